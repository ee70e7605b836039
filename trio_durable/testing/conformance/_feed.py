"""Tests of reading alarms: the horizon feed, lists, and exact values."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..._keys import AlarmKey, ObjectKey
from ...storage import AlarmChanges, Commit, DueAlarm, NewAlarm, Reader, Storage, Writer
from ._builders import alarm_key, changes, key, outside, postponed
from ._tests import StorageTests
from ._values import ERRORS, FOREVER, NOW, ODD_IDS, STATES, TIMES


class FeedTests(StorageTests):
    """Conditions 5 and 6 for alarms."""

    # --- the horizon feed ------------------------------------------------------------------------

    def test_the_feed_is_in_the_order_of_time_and_key(self, writer: Writer, reader: Reader) -> None:
        keys = [
            AlarmKey(type_name, object_id, name)
            for type_name in ("Cart", "cart", "É")
            for object_id in ("B", "a", "\uffff", "👾")
            for name in ("x", "é", "z")
        ]
        times = {one: NOW + n * 7 % 4 for n, one in enumerate(keys)}
        by_object: dict[ObjectKey, dict[str, int | None]] = {}
        for one, time in times.items():
            by_object.setdefault(one.object_key, {})[one.name] = time
        self.commit(
            writer, *(Commit(one, None, alarms=changes(its)) for one, its in by_object.items())
        )

        def bytewise(each: DueAlarm) -> tuple[int, list[bytes]]:
            return each.available_at, [part.encode() for part in each.key]

        expected = sorted((DueAlarm(time, one) for one, time in times.items()), key=bytewise)
        assert reader.due_alarms(NOW + 4, None, 1000, ()) == expected
        assert reader.due_alarms(NOW + 2, None, 1000, ()) == [
            each for each in expected if each.available_at < NOW + 2
        ]
        for limit in (1, 2, 5, 36, 100):
            paged: list[DueAlarm] = []
            after = None
            while page := reader.due_alarms(NOW + 4, after, limit, ["cart"]):
                assert len(page) <= limit
                paged += page
                after = page[-1]
            assert paged == [each for each in expected if each.key.type_name != "cart"]
        # After an entry that isn't stored, differing in each of its parts.
        for each in (
            DueAlarm(NOW + 1, AlarmKey("", "", "")),
            DueAlarm(NOW + 1, AlarmKey("Cart", "a", "y")),
            DueAlarm(NOW + 1, AlarmKey("Cart", "b", "")),
            DueAlarm(NOW + 1, AlarmKey("D", "", "")),
            DueAlarm(NOW + 9, AlarmKey("Cart", "a", "x")),
        ):
            assert reader.due_alarms(NOW + 4, each, 1000, ()) == [
                other for other in expected if bytewise(other) > bytewise(each)
            ]

    def test_the_feed_ends_before_its_time(self, writer: Writer, reader: Reader) -> None:
        self.schedule(writer, "x")
        assert self.due(reader, NOW) == []
        assert self.due(reader, NOW + 1) == [(NOW, "a", "x")]

    def test_the_feed_shows_a_claimed_alarm_where_its_claim_runs_out(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.schedule(writer, "x", "y")
        self.claim(writer, 1, alarm_key("x"), until=NOW + 10)
        assert self.due(reader, NOW + 10) == [(NOW, "a", "y")]
        assert self.due(reader) == [(NOW, "a", "y"), (NOW + 10, "a", "x")]

    def test_the_feed_leaves_types_out(self, writer: Writer, reader: Reader) -> None:
        types = ["Cart", "cart", "'", "Order"]
        self.commit(
            writer,
            *(Commit(ObjectKey(t, "a"), None, alarms=changes({"x": NOW})) for t in types),
        )

        def left(*except_types: str) -> list[str]:
            page = reader.due_alarms(FOREVER, None, 2, except_types)
            return [each.key.type_name for each in page]

        assert left() == ["'", "Cart"]
        assert left("Cart", "none") == ["'", "Order"]
        assert left("'", "Cart", "Order") == ["cart"]
        assert left(*types) == []
        assert len(reader.due_alarms(FOREVER, None, 9, {"Cart"})) == 3
        assert len(reader.due_alarms(FOREVER, None, 9, frozenset(types))) == 0

    # --- lists of alarms -------------------------------------------------------------------------

    def test_alarms_are_listed_by_time_and_name(self, writer: Writer, reader: Reader) -> None:
        names = ["b", "a", "é", "\uffff", "👾", "A"]
        self.schedule(writer, *names)
        self.schedule(writer, "late", due_at=NOW + 1)
        self.schedule(writer, "early", due_at=NOW - 1)
        self.schedule(writer, "other", object_id="b")
        assert list(self.alarms(reader)) == ["early", *sorted(names, key=str.encode), "late"]
        # In the order of due_at, not of available_at.
        self.claim(writer, 1, alarm_key("early"), until=NOW + 10)
        assert next(iter(self.alarms(reader))) == "early"
        assert self.alarms(reader, "none") == {}

    def test_dead_letters_page_through_in_the_order_of_id_and_name(
        self, writer: Writer, reader: Reader
    ) -> None:
        ids = ["B", "a", "aa", "é", "\uffff", "👾"]
        names = ["z", "Z", "zz", "é"]
        for object_id in ids:
            self.make_dead(writer, *names, object_id=object_id)
            self.schedule(writer, "alive", object_id=object_id)
        self.commit(writer, Commit(key("a", "Order"), None, alarms=changes({"x": NOW})))
        x = AlarmKey("Order", "a", "x")
        self.claim(writer, 1, x)
        writer.postpone([postponed(x, 1, None)])
        in_order = sorted(
            ((one, name) for one in ids for name in names),
            key=lambda pair: [part.encode() for part in pair],
        )
        for limit in (1, 3, 7, 24, 100):
            paged: list[tuple[str, str]] = []
            after = None
            while page := reader.list_dead_letters("Cart", after, limit):
                assert len(page) <= limit
                paged += [(letter.key.object_id, letter.key.name) for letter in page]
                after = page[-1].key
            assert paged == in_order
        after = alarm_key("a", "a")  # not stored
        found = reader.list_dead_letters("Cart", after, 100)
        assert [(letter.key.object_id, letter.key.name) for letter in found] == [
            pair for pair in in_order if pair > ("a", "a")
        ]
        assert [letter.key for letter in reader.list_dead_letters("Order", None, 9)] == [x]
        assert reader.list_dead_letters("order", None, 9) == []

    # --- exact and odd ---------------------------------------------------------------------------

    def test_payloads_come_back_as_they_were(self, writer: Writer, reader: Reader) -> None:
        payloads = [None, *(state for name, state in STATES.items() if name != "16 MiB")]
        keys = [alarm_key(f"{n:02}") for n in range(len(payloads))]
        for together in (True, False):
            news = [
                {one.name: NewAlarm(NOW, payload)}
                for one, payload in zip(keys, payloads, strict=True)
            ]
            if together:
                news = [{name: new for each in news for name, new in each.items()}]
            for new in news:
                self.commit(writer, outside("a", AlarmChanges(changed={**new})))
            listed = reader.list_alarms(key("a"))
            claimed = writer.claim(keys, 1 + together, NOW, NOW + 10)
            claimed.sort(key=lambda alarm: alarm.key)
            writer.postpone([postponed(one, 1 + together, None) for one in keys])
            dead = reader.list_dead_letters("Cart", None, 100)
            for alarms in (listed, claimed, dead):
                assert [alarm.key for alarm in alarms] == keys
                for alarm, payload in zip(alarms, payloads, strict=True):
                    self.check_exact(alarm.payload, payload)

    @pytest.mark.parametrize("part", ["type", "id", "name"])
    def test_odd_keys_of_alarms(self, writer: Writer, reader: Reader, part: str) -> None:
        """Each id passes through every operation."""
        keys = [
            {"type": AlarmKey(odd, "a", "x"), "id": AlarmKey("Cart", odd, "x")}.get(
                part, AlarmKey("Cart", "a", odd)
            )
            for odd in ODD_IDS
        ]
        objects = list(dict.fromkeys(one.object_key for one in keys))

        def commit(change: Callable[[AlarmKey], AlarmChanges]) -> list[int]:
            merged: dict[ObjectKey, AlarmChanges] = {}
            for one in keys:
                merged.setdefault(one.object_key, AlarmChanges()).merge(change(one))
            return self.commit(
                writer, *(Commit(k, None, alarms=mine) for k, mine in merged.items())
            )

        def found() -> set[AlarmKey]:
            return {alarm.key for one in objects for alarm in reader.list_alarms(one)}

        assert commit(lambda one: changes({one.name: NOW})) == []
        assert found() == set(keys)
        in_order = sorted(keys, key=lambda one: [text.encode() for text in one])
        assert reader.due_alarms(FOREVER, None, 100, ()) == [DueAlarm(NOW, k) for k in in_order]
        for place, one in enumerate(in_order):
            assert [d.key for d in reader.due_alarms(FOREVER, DueAlarm(NOW, one), 2, ())] == (
                in_order[place + 1 : place + 3]
            )
        assert self.claim(writer, 1, *keys, until=NOW + 10) == set(keys)
        writer.renew([(one, 1) for one in keys], NOW + 20)
        assert [d.available_at for d in reader.due_alarms(FOREVER, None, 100, ())] == (
            [NOW + 20] * len(keys)
        )
        writer.postpone([postponed(one, 1, None, 1, one.name) for one in keys])
        assert found() == set()
        dead = [
            letter
            for type_name in sorted({one.type_name for one in keys}, key=str.encode)
            for letter in reader.list_dead_letters(type_name, None, 100)
        ]
        assert [letter.key for letter in dead] == in_order
        assert [letter.last_error for letter in dead] == [one.name for one in in_order]
        if part != "type":
            for place, one in enumerate(in_order):
                page = reader.list_dead_letters("Cart", one, 2)
                assert [letter.key for letter in page] == in_order[place + 1 : place + 3]
        assert all(writer.revive(one, NOW) for one in keys)
        assert self.claim(writer, 2, *keys) == set(keys)
        assert commit(lambda one: changes(acknowledged={one.name: 1})) == list(range(len(objects)))
        assert commit(lambda one: changes(acknowledged={one.name: 2})) == []
        assert found() == set()
        assert commit(lambda one: changes({one.name: NOW})) == []
        for one in keys[::2]:
            cancel = changes({one.name: None})
            self.commit(writer, Commit(one.object_key, None, alarms=cancel))
        assert found() == set(keys[1::2])
        for one in keys[1::2]:
            self.commit(writer, Commit(one.object_key, None, alarms=changes(clear=True)))
        assert found() == set()

    def test_errors_come_back_as_they_were(self, writer: Writer, reader: Reader) -> None:
        for n, error in enumerate(ERRORS):
            self.schedule(writer, "x", "dead")
            x, dead = alarm_key("x"), alarm_key("dead")
            self.claim(writer, 2 * n + 1, x, dead)
            writer.postpone(
                [
                    postponed(x, 2 * n + 1, NOW, 1, error),
                    postponed(dead, 2 * n + 1, None, 1, error),
                ]
            )
            assert [alarm.last_error for alarm in reader.list_alarms(key("a"))] == [error]
            letters = reader.list_dead_letters("Cart", None, 9)
            assert [letter.last_error for letter in letters] == [error]
            assert writer.claim([x], 2 * n + 2, NOW, NOW)[0].last_error == error

    def test_times_of_all_years(self, writer: Writer, reader: Reader) -> None:
        for n, time in enumerate(TIMES):
            claim = 3 * n + 1
            x = alarm_key("x")
            self.schedule(writer, "x", due_at=time)
            assert self.alarms(reader) == {"x": time}
            assert self.due(reader, time) == []
            assert self.due(reader, time + 1) == [(time, "a", "x")]
            assert self.claim(writer, claim, x, now=time - 1, until=time) == set()
            assert self.claim(writer, claim + 1, x, now=time, until=time + 1) == {x}
            assert self.due(reader, time + 1) == []
            writer.renew([(x, claim + 1)], time - 7)
            assert self.due(reader) == [(time - 7, "a", "x")]
            writer.postpone([postponed(x, claim + 1, time + 7)])
            assert self.due(reader) == [(time + 7, "a", "x")]
            assert self.alarms(reader) == {"x": time}
            self.claim(writer, claim + 2, x, now=time + 7, until=time + 8)
            writer.postpone([postponed(x, claim + 2, None)])
            assert writer.revive(x, time)
            assert self.due(reader) == [(time, "a", "x")]

    def test_times_of_all_years_in_order(self, writer: Writer, reader: Reader) -> None:
        times = TIMES
        # So that the order of names is another one.
        changed = changes({f"{len(times) - n:02}": time for n, time in enumerate(times)})
        self.commit(writer, outside("a", changed))
        assert [time for time, _, _ in self.due(reader)] == times
        assert [alarm.due_at for alarm in reader.list_alarms(key("a"))] == times
        after = None
        for time in times:
            (after,) = reader.due_alarms(FOREVER, after, 1, ())
            assert after.available_at == time

    # --- alarms: visibility to readers ----------------------------------------------------------

    def test_a_reader_sees_every_change_of_alarms(self, storage: Storage, writer: Writer) -> None:
        early = storage.open_reader()
        x = alarm_key("x")

        def seen(alarms: list[str], due: list[int], dead: list[str]) -> None:
            late = storage.open_reader()
            for reader in (early, late):
                assert list(self.alarms(reader)) == alarms
                assert [time for time, _, _ in self.due(reader)] == due
                assert [name for _, name in self.dead(reader)] == dead
            late.close()

        seen([], [], [])
        self.schedule(writer, "x")
        seen(["x"], [NOW], [])
        self.claim(writer, 1, x, until=NOW + 5)
        seen(["x"], [NOW + 5], [])
        writer.renew([(x, 1)], NOW + 6)
        seen(["x"], [NOW + 6], [])
        writer.postpone([postponed(x, 1, None)])
        seen([], [], ["x"])
        writer.revive(x, NOW)
        seen(["x"], [NOW], [])
        self.commit(writer, outside("a", changes({"x": None})))
        seen([], [], [])
        early.close()

    def test_each_of_ten_thousand_objects_has_its_own_alarms(
        self, writer: Writer, reader: Reader
    ) -> None:
        ids = [f"{n:05}" for n in range(10_000)]
        for start in range(0, len(ids), 1000):
            batch = ids[start : start + 1000]
            self.commit(writer, *(outside(one, changes({"x": NOW + int(one)})) for one in batch))
        assert [
            (d.available_at, d.key.object_id) for d in reader.due_alarms(FOREVER, None, 3, ())
        ] == [(NOW + n, f"{n:05}") for n in range(3)]
        assert self.alarms(reader, "05000") == {"x": NOW + 5000}
        after = DueAlarm(NOW + 9000, alarm_key("x", "09000"))
        page = reader.due_alarms(NOW + 9003, after, 10, ())
        assert [d.key.object_id for d in page] == ["09001", "09002"]
