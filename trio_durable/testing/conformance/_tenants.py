"""Tests of the isolation of tenants: condition 11."""

from __future__ import annotations

from contextlib import closing
from typing import ClassVar

import pytest

from ..._keys import AlarmKey, ObjectKey
from ...storage import (
    AlarmRow,
    Commit,
    DueAlarm,
    ObjectRow,
    Reader,
    Storage,
    StoredAlarm,
    StoredObject,
    TypeSummary,
    Writer,
)
from ._builders import alarm_key, changes, key, postponed, save
from ._tests import StorageTests
from ._values import FOREVER, NOW, TENANTS


class TenantTests(StorageTests):
    """Objects and alarms of one tenant, and calls about several tenants."""

    @staticmethod
    def seen_of(reader: Reader, tenant: str) -> object:
        """All answers of a reader about a tenant."""
        return (
            reader.load([key("a", tenant=tenant)]),
            reader.list_ids("Cart", None, 10, tenant),
            reader.due_alarms(FOREVER, None, 10, (), tenant),
            reader.list_alarms(key("a", tenant=tenant)),
            reader.list_dead_letters("Cart", None, 10, tenant),
            reader.browse_objects(None, None, 10, tenant),
            reader.browse_alarms(None, NOW, None, None, 10, tenant),
            reader.summarize(NOW, tenant),
        )

    NOTHING: ClassVar[object] = ([None], [], [], [], [], [], [], [])

    def test_what_is_of_one_tenant_is_seen_there_alone(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.fill_tenants(writer)
        for n, tenant in enumerate(TENANTS):
            k, state = key("a", tenant=tenant), f"{n}".encode()
            due = StoredAlarm(k.alarm("due"), NOW, None, 0, None)
            dead = StoredAlarm(k.alarm("dead"), NOW, None, 1, tenant)
            assert self.seen_of(reader, tenant) == (
                [StoredObject(1, state)],
                ["a"],
                [DueAlarm(NOW, due.key)],
                [due],
                [dead],
                [ObjectRow(k, 1, NOW, state)],
                [AlarmRow(dead, None, "dead"), AlarmRow(due, NOW, "overdue")],
                [TypeSummary("Cart", 1, 1, 0, 1, 1)],
            )
        keys = [key("a", tenant=tenant) for tenant in ("acme", "", "none", "a-b", "acme")]
        found = [row.state if row else None for row in reader.load(keys)]
        assert found == [b"2", b"0", None, b"1", b"2"]

    def test_a_tenant_that_is_not_there_is_empty(self, writer: Writer, reader: Reader) -> None:
        self.fill_tenants(writer)
        assert self.seen_of(reader, "none") == self.NOTHING
        alarm = alarm_key("due", tenant="none")
        assert writer.claim([alarm], 1, NOW, NOW) == []
        writer.renew([(alarm, 1)], NOW + 5)
        writer.postpone([postponed(alarm, 1, NOW)])
        assert writer.revive(alarm, NOW) is False
        assert writer.drop_tenant("none") is False
        assert self.seen_of(reader, "none") == self.NOTHING
        assert reader.list_tenants(None, 10) == TENANTS[1:]

    def test_a_tenant_comes_into_being_with_what_is_first_written(
        self, writer: Writer, reader: Reader
    ) -> None:
        def one(object_id: str = "a") -> ObjectKey:
            return key(object_id, tenant="acme")

        nothing = [
            Commit(one("a"), 0),
            Commit(one("b"), 0, delete=True, alarms=changes(clear=True)),
            Commit(one("c"), None, alarms=changes({"x": None})),
            Commit(one("d"), None, alarms=changes(clear=True)),
        ]
        assert self.commit(writer, *nothing) == []
        stale = [
            Commit(one("a"), 3, b"1"),
            Commit(one("b"), 1, delete=True),
            Commit(one("c"), 2),
            Commit(one("d"), None, alarms=changes({"y": NOW}, acknowledged={"x": 1})),
            Commit(one("e"), 1, b"1", alarms=changes({"y": NOW})),
        ]
        for commit in stale:
            assert self.commit(writer, commit) == [0]
        assert self.commit(writer, *stale) == [0, 1, 2, 3, 4]
        assert self.commit(writer, *nothing, save("a", 0)) == []
        assert reader.list_tenants(None, 10) == []
        for n, first in enumerate(
            [
                Commit(one(), 0, b"1"),
                Commit(one(), None, alarms=changes({"x": NOW})),
                Commit(one(), 0, alarms=changes({"x": NOW})),
            ]
        ):
            batch = [first] if n % 2 else [*stale[1:], first]
            assert self.commit(writer, *batch) == list(range(len(batch) - 1))
            assert reader.list_tenants(None, 10) == ["acme"]
            assert writer.drop_tenant("acme") is True

    @pytest.mark.parametrize("size", [2, 9, 1000])
    def test_a_batch_of_several_tenants(self, writer: Writer, reader: Reader, size: int) -> None:
        """Fresh and stale commits in one batch, of existing tenants and of a new one."""
        self.commit(writer, save("s", 0), Commit(key("s", tenant="a-b"), 0, b"0"))
        keys = [key(f"{n:04}", tenant=TENANTS[n % 3]) for n in range(size)]
        alarms = changes({"x": NOW})
        assert self.commit(writer, *(Commit(k, 0, b"1", alarms=alarms) for k in keys)) == []
        self.check_all(reader.load(keys), [StoredObject(1, b"1")] * size)
        for tenant in TENANTS:
            mine = [k.alarm("x") for k in keys if k.tenant == tenant]
            due = reader.due_alarms(FOREVER, None, size, (), tenant)
            self.check_all([each.key for each in due], mine)
        claimed = [k.alarm("x") for k in keys]
        assert self.claim(writer, 1, *claimed) == set(claimed)
        done = changes({"y": NOW}, acknowledged={"x": 1})
        batch, stale, expected = [], [], []
        for n, k in enumerate(keys):
            commit, row = [
                (Commit(k, 1, b"2", alarms=done), StoredObject(2, b"2")),
                (Commit(k, 0, b"2", alarms=done), StoredObject(1, b"1")),
                (Commit(k, 1, delete=True, alarms=changes(clear=True)), None),
                (
                    Commit(k, 1, b"2", alarms=changes(acknowledged={"x": 2})),
                    StoredObject(1, b"1"),
                ),
            ][n % 4]
            batch.append(commit)
            expected.append(row)
            if n % 4 in (1, 3):
                stale.append(n)
        self.check_all(self.commit(writer, *batch), stale)
        self.check_all(reader.load(keys), expected)
        for n, k in enumerate(keys):
            left = {0: ["y"], 1: ["x"], 2: [], 3: ["x"]}[n % 4]
            if n < 50:
                assert [alarm.key for alarm in reader.list_alarms(k)] == [k.alarm(x) for x in left]

    @pytest.mark.parametrize("refused", TENANTS)
    def test_what_is_stale_of_one_tenant_does_not_hold_back_another(
        self, writer: Writer, reader: Reader, refused: str
    ) -> None:
        self.commit(writer, *(Commit(key("a", tenant=one), 0, b"1") for one in TENANTS))
        batch = [Commit(key("a", tenant=one), 7 if one == refused else 1, b"2") for one in TENANTS]
        assert self.commit(writer, *batch) == [TENANTS.index(refused)]
        rows = reader.load([key("a", tenant=one) for one in TENANTS])
        assert [row.state if row else None for row in rows] == [
            b"1" if one == refused else b"2" for one in TENANTS
        ]

    def test_alarms_of_several_tenants_in_one_call(self, writer: Writer, reader: Reader) -> None:
        names = ["x", "y", "z"]
        for tenant in TENANTS:
            k = key("a", tenant=tenant)
            self.commit(writer, Commit(k, None, alarms=changes(dict.fromkeys(names, NOW))))
        keys = [alarm_key(name, tenant=tenant) for name in names for tenant in (*TENANTS, "none")]
        there = [one for one in keys if one.tenant != "none"]
        mixed = [one for one in there if one.name != "z"]
        claimed = writer.claim([*mixed, alarm_key("x", tenant="none")], 1, NOW, NOW + 10)
        assert sorted(alarm.key for alarm in claimed) == sorted(mixed)
        assert writer.claim(mixed, 2, NOW, NOW + 10) == []
        writer.renew([(one, 1) for one in keys], NOW + 20)

        def available() -> dict[AlarmKey, int]:
            return {
                each.key: each.available_at
                for tenant in TENANTS
                for each in reader.due_alarms(FOREVER, None, 10, (), tenant)
            }

        assert available() == {one: NOW + 20 if one in mixed else NOW for one in there}
        # Another claim changes nothing.
        writer.renew([(one, 2) for one in keys], NOW + 30)
        writer.postpone([postponed(one, 2, NOW + 30) for one in keys])
        assert available() == {one: NOW + 20 if one in mixed else NOW for one in there}
        writer.postpone([postponed(one, 1, NOW + 5 if one.name == "x" else None) for one in keys])
        times = {"x": NOW + 5, "z": NOW}
        assert available() == {one: times[one.name] for one in there if one.name in times}
        for tenant in TENANTS:
            letters = reader.list_dead_letters("Cart", None, 10, tenant)
            assert [letter.key for letter in letters] == [alarm_key("y", tenant=tenant)]
            assert writer.revive(alarm_key("y", tenant=tenant), NOW + 7) is True
            assert reader.list_dead_letters("Cart", None, 10, tenant) == []
            assert available()[alarm_key("y", tenant=tenant)] == NOW + 7

    def test_a_claim_is_of_one_tenants_alarm(self, writer: Writer, reader: Reader) -> None:
        for tenant in TENANTS:
            commit = Commit(key("a", tenant=tenant), None, alarms=changes({"x": NOW}))
            self.commit(writer, commit)
        mine = alarm_key("x", tenant="acme")
        assert self.claim(writer, 1, mine) == {mine}
        done = changes(acknowledged={"x": 1})
        assert self.commit(writer, Commit(key("a"), None, alarms=done)) == [0]
        assert self.commit(writer, Commit(key("a", tenant="a-b"), None, alarms=done)) == [0]
        assert self.commit(writer, Commit(key("a", tenant="acme"), None, alarms=done)) == []
        assert len(reader.list_alarms(key("a"))) == len(reader.list_alarms(key("a", "Cart", "a-b")))
        assert reader.list_alarms(key("a", tenant="acme")) == []

    def test_claims_of_tenants_are_given_back_when_the_storage_is_opened(
        self, storage: Storage
    ) -> None:
        self.needs_one_writer()
        keys = [alarm_key("x", tenant=tenant) for tenant in TENANTS]
        with closing(storage.open_writer()) as writer:
            for one in keys:
                commit = Commit(one.object_key, None, alarms=changes({"x": NOW}))
                self.commit(writer, commit)
            assert self.claim(writer, 1, *keys, until=FOREVER) == set(keys)
        with closing(storage.open_writer()) as writer:
            assert self.claim(writer, 2, *keys) == set(keys)

    @pytest.mark.parametrize("dropped", TENANTS[1:])
    def test_a_dropped_tenant_leaves_the_others(
        self, writer: Writer, reader: Reader, dropped: str
    ) -> None:
        self.fill_tenants(writer)
        before = {tenant: self.seen_of(reader, tenant) for tenant in TENANTS}
        assert writer.drop_tenant(dropped) is True
        assert writer.drop_tenant(dropped) is False
        for tenant in TENANTS:
            expected = self.NOTHING if tenant == dropped else before[tenant]
            assert self.seen_of(reader, tenant) == expected
        assert reader.list_tenants(None, 10) == [one for one in TENANTS[1:] if one != dropped]
        # Revisions and claims from before are stale, and the tenant starts empty.
        stale = Commit(key("a", tenant=dropped), 1, b"2")
        assert self.commit(writer, stale) == [0]
        assert reader.list_tenants(None, 10) == [one for one in TENANTS[1:] if one != dropped]
        assert self.commit(writer, Commit(key("a", tenant=dropped), 0, b"3")) == []
        assert reader.load([key("a", tenant=dropped)]) == [StoredObject(1, b"3")]
        assert reader.list_dead_letters("Cart", None, 10, dropped) == []
        assert reader.list_tenants(None, 10) == TENANTS[1:]

    def test_a_dropped_tenant_stays_away(self, storage: Storage) -> None:
        with closing(storage.open_writer()) as writer:
            self.fill_tenants(writer)
            writer.drop_tenant("acme")
        for _ in range(2):
            with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
                assert reader.list_tenants(None, 10) == ["a-b"]
                assert self.seen_of(reader, "acme") == self.NOTHING
                assert self.commit(writer, Commit(key("a", tenant="acme"), 0, b"1")) == []
                assert writer.drop_tenant("acme") is True

    def test_lists_of_tenants_page_through_in_order(self, writer: Writer, reader: Reader) -> None:
        names = ["0", "9", "a", "a-", "a-0", "a0", "a_", "aa", "ab", "b", "zz", "x" * 48]
        self.commit(writer, *(Commit(key("a", tenant=one), 0, b"1") for one in names))
        for limit in (1, 3, 12, 100):
            paged: list[str] = []
            while page := reader.list_tenants(paged[-1] if paged else None, limit):
                assert len(page) <= limit
                paged += page
                assert len(paged) <= len(names)
            assert paged == sorted(names)
        assert reader.list_tenants("a1", 2) == ["a_", "aa"]
