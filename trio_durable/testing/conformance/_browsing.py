"""Tests of browsing a storage: pages of all objects and alarms, and summaries."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from ...storage import (
    AlarmRow,
    AlarmStatus,
    Commit,
    ObjectRow,
    Reader,
    Storage,
    StoredAlarm,
    TypeSummary,
    Writer,
)
from ._builders import alarm_key, bytewise, changes, in_order, key, postponed, save
from ._tests import StorageTests
from ._values import NOW, ODD_IDS, STATES, TENANTS


class BrowsingTests(StorageTests):
    """Pages contain every row once, in order."""

    @pytest.mark.parametrize("tenant", TENANTS)
    def test_objects_are_looked_through_in_pages(
        self, writer: Writer, reader: Reader, tenant: str
    ) -> None:
        keys = [key(one, kind, tenant) for one in ODD_IDS for kind in ("Cart", "cart", "é", "Z")]
        self.commit(writer, *(Commit(k, 0, k.object_id.encode()) for k in keys))
        writer.commit([Commit(key("\uffff", "cart", tenant), 1, b"2")], NOW + 5)
        rows = [ObjectRow(k, 1, NOW, k.object_id.encode()) for k in sorted(keys, key=in_order)]
        rows = [
            ObjectRow(row.key, 2, NOW + 5, b"2")
            if (row.key.object_id, row.key.type_name) == ("\uffff", "cart")
            else row
            for row in rows
        ]
        for type_name in (None, "Cart", "cart", "é", "none"):
            expected = [row for row in rows if type_name in (None, row.key.type_name)]
            for limit in (1, 7, 1000):
                paged: list[ObjectRow] = []
                while page := reader.browse_objects(
                    type_name, paged[-1].key if paged else None, limit, tenant
                ):
                    assert len(page) <= limit
                    paged += page
                    assert len(paged) <= len(expected)  # or it might never end
                self.check_all(paged, expected)
        # After a key that isn't stored.
        found = reader.browse_objects(None, key("", "cart", tenant), 1, tenant)
        assert found[0].key.type_name == "cart"
        assert reader.browse_objects("Cart", key("👾" * 129, "Cart", tenant), 1, tenant) == []

    @pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
    def test_states_are_looked_at_as_they_were(
        self, writer: Writer, reader: Reader, state: bytes
    ) -> None:
        self.commit(writer, Commit(key("a", tenant="acme"), 0, state), save("b", 0, b"1"))
        (row,) = reader.browse_objects(None, None, 10, "acme")
        self.check_exact(row.state, state)
        (summary,) = reader.summarize(NOW, "acme")
        assert summary == TypeSummary("Cart", 1, len(state), 0, 0, 0)

    @pytest.mark.parametrize("tenant", TENANTS)
    def test_alarms_are_looked_through_in_pages(
        self, writer: Writer, reader: Reader, tenant: str
    ) -> None:
        keys = [
            alarm_key(name, one, kind, tenant)
            for name in ("x", "é", "'")
            for one in ("a", "👾", "\uffff")
            for kind in ("Cart", "cart")
        ]
        for n, one in enumerate(keys):
            alarms = changes({one.name: NOW + n}, payload=json.dumps(n).encode())
            self.commit(writer, Commit(one.object_key, None, alarms=alarms))
        later = NOW + len(keys)
        dead, claimed, retried = keys[::4], keys[1::4], keys[2::4]
        self.claim(writer, 1, *dead, *claimed, *retried, now=later, until=later + 50)
        writer.postpone([postponed(one, 1, None, 3, "no") for one in dead])
        writer.postpone([postponed(one, 1, later + 9, 1, "retry") for one in retried])
        now = NOW + 7
        rows = []
        for n, one in enumerate(keys):
            payload = json.dumps(n).encode()
            status: AlarmStatus = "overdue" if n <= 7 else "pending"
            if one in dead:
                stored, at = StoredAlarm(one, NOW + n, payload, 3, "no"), None
                status = "dead"
            elif one in retried:
                stored, at = StoredAlarm(one, NOW + n, payload, 1, "retry"), later + 9
            else:
                stored = StoredAlarm(one, NOW + n, payload, 0, None)
                at = later + 50 if one in claimed else NOW + n
            rows.append(AlarmRow(stored, at, status))
        rows.sort(key=lambda row: bytewise(row.alarm.key))
        statuses: list[AlarmStatus | None] = [None, "pending", "overdue", "dead"]
        for status_asked in statuses:
            for type_name in (None, "Cart", "cart", "none"):
                expected = [
                    row
                    for row in rows
                    if type_name in (None, row.alarm.key.type_name)
                    and status_asked in (None, row.status)
                ]
                for limit in (1, 5, 100):
                    paged: list[AlarmRow] = []
                    while page := reader.browse_alarms(
                        status_asked,
                        now,
                        type_name,
                        paged[-1].alarm.key if paged else None,
                        limit,
                        tenant,
                    ):
                        assert len(page) <= limit
                        paged += page
                        assert len(paged) <= len(expected)
                    assert paged == expected
        assert reader.summarize(now, tenant) == [
            TypeSummary(
                type_name,
                0,
                0,
                *(
                    sum(
                        (row.alarm.key.type_name, row.status) == (type_name, status) for row in rows
                    )
                    for status in ("pending", "overdue", "dead")
                ),
            )
            for type_name in ("Cart", "cart")
        ]

    def test_a_summary_has_types_with_objects_or_alarms_or_both(
        self, writer: Writer, reader: Reader
    ) -> None:
        assert reader.summarize(NOW) == []
        self.commit(
            writer,
            Commit(key("a", "é"), 0, "é".encode()),
            Commit(key("b", "é"), 0, b"123"),
            Commit(key("a", "Both"), 0, b"1", alarms=changes({"x": NOW, "y": NOW + 1})),
            Commit(key("a", "Alarms"), None, alarms=changes({"x": NOW + 1})),
            Commit(key("a", "Theirs", "acme"), 0, b"1"),
        )
        assert reader.summarize(NOW) == [
            TypeSummary("Alarms", 0, 0, 1, 0, 0),
            TypeSummary("Both", 1, 1, 1, 1, 0),
            TypeSummary("é", 2, 5, 0, 0, 0),
        ]
        assert reader.summarize(NOW + 1)[0] == TypeSummary("Alarms", 0, 0, 0, 1, 0)

    def test_nothing_is_pending_of_what_was_opened(self, storage: Storage) -> None:
        with closing(storage.open_writer()) as writer:
            self.fill_tenants(writer)
            assert storage.pending_migrations() == []
        assert storage.pending_migrations() == []
