"""Tests of recurring alarms: condition 16."""

from __future__ import annotations

import attrs
import pytest

from ..._keys import AlarmKey
from ...storage import (
    MOVED,
    STOPPED,
    AlarmChanges,
    AlarmRow,
    Commit,
    DeadFiring,
    NewAlarm,
    Onto,
    Postponement,
    Reader,
    StoredAlarm,
    Writer,
)
from ._builders import alarm_key, key, outside
from ._tests import StorageTests
from ._values import NOW, SECOND

X = alarm_key("x")


def new(
    due_at: int = NOW + 5, recurrence: str | None = "b", onto: Onto = Onto.ANYTHING
) -> NewAlarm:
    return NewAlarm(due_at, b'"\\u0000"', recurrence, onto)


class RecurrenceTests(StorageTests):
    """Marks, conditional changes, and the two rows of a firing that has died."""

    def put(self, writer: Writer, alarm: NewAlarm | None, name: str = "x") -> None:
        assert self.commit(writer, outside("a", AlarmChanges(changed={name: alarm}))) == []

    def row(self, reader: Reader, alarm: AlarmKey = X) -> AlarmRow | None:
        (row,) = reader.load_alarms([alarm], NOW)
        return row

    def test_a_recurrence_is_kept_through_claims_and_retries(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.put(writer, new(NOW))
        expected = StoredAlarm(X, NOW, b'"\\u0000"', 0, None, recurrence="b")
        assert reader.list_alarms(key("a")) == [expected]
        assert writer.claim([X], 1, NOW, NOW + SECOND) == [expected]
        writer.postpone([Postponement(X, 1, NOW + 1, 1, "no")])
        (found,) = reader.list_alarms(key("a"))
        assert (found.recurrence, found.failures) == ("b", 1)
        self.put(writer, NewAlarm(NOW, None))
        assert reader.list_alarms(key("a"))[0].recurrence is None

    def test_alarms_are_loaded_by_key(self, writer: Writer, reader: Reader) -> None:
        self.put(writer, new(NOW), "x")
        self.put(writer, new(NOW + 1), "y")
        self.put(writer, NewAlarm(NOW, None, STOPPED), "off")
        self.make_dead(writer, "dead")
        there = alarm_key("x", tenant="acme")
        self.commit(
            writer, Commit(there.object_key, None, alarms=AlarmChanges({}, False, {"x": new()}))
        )
        keys = [alarm_key(name) for name in ("off", "x", "none", "dead", "y")]
        rows = reader.load_alarms([*keys, there, alarm_key("x", tenant="none")], NOW)
        found = [None if row is None else (row.alarm.key, row.status) for row in rows]
        assert found == [
            (keys[0], "stopped"),
            (keys[1], "overdue"),
            None,
            (keys[3], "dead"),
            (keys[4], "pending"),
            (there, "pending"),
            None,
        ]
        assert reader.load_alarms([], NOW) == []

    def test_a_mark_is_neither_due_nor_dead(self, writer: Writer, reader: Reader) -> None:
        self.put(writer, NewAlarm(NOW, None, STOPPED))
        assert self.due(reader) == []
        assert reader.list_alarms(key("a")) == []
        assert self.dead(reader) == []
        assert writer.claim([X], 1, NOW + SECOND, NOW + 2 * SECOND) == []
        assert writer.revive(X, NOW) is False
        (row,) = reader.browse_alarms("stopped", NOW, "Cart", None, 9)
        assert (row.alarm.key, row.available_at, row.status) == (X, None, "stopped")
        assert reader.browse_alarms("dead", NOW, None, None, 9) == []
        (summary,) = reader.summarize(NOW)
        assert (summary.pending, summary.overdue, summary.dead) == (0, 0, 0)
        self.put(writer, None)
        assert self.row(reader) is None

    @pytest.mark.parametrize(
        ("stored", "onto", "replaced"),
        [
            ("none", Onto.NOTHING, True),
            ("none", Onto.STOPPED | Onto.OUTDATED, True),
            ("stopped", Onto.NOTHING, False),
            ("stopped", Onto.OUTDATED, False),
            ("stopped", Onto.STOPPED, True),
            ("same", Onto.STOPPED | Onto.OUTDATED, False),
            ("earlier", Onto.OUTDATED, False),
            ("later", Onto.OUTDATED, False),
            ("later", Onto.LATE, True),
            ("earlier", Onto.LATE, False),
            ("same", Onto.LATE, False),
            ("other", Onto.LATE, False),
            ("dead", Onto.LATE, False),
            ("due", Onto.LATE, False),
            ("later", Onto.STOPPED, False),
            ("other", Onto.OUTDATED, True),
            ("other", Onto.NOTHING, False),
            ("plain", Onto.OUTDATED, True),
            ("due", Onto.OUTDATED, False),
            ("moved", Onto.STOPPED | Onto.OUTDATED | Onto.LATE, False),
            ("claimed", Onto.STOPPED | Onto.OUTDATED | Onto.LATE, False),
            ("dead", Onto.OUTDATED, True),
            ("dead", Onto.STOPPED, False),
            ("moved", Onto.ANYTHING, True),
        ],
    )
    def test_a_conditional_change_replaces_what_it_may(
        self, writer: Writer, reader: Reader, stored: str, onto: Onto, replaced: bool
    ) -> None:
        there = {
            "stopped": NewAlarm(NOW, None, STOPPED),
            "same": NewAlarm(NOW + 5, None, "b"),
            "earlier": NewAlarm(NOW + 4, None, "b"),
            "later": NewAlarm(NOW + 6, None, "b"),
            "other": NewAlarm(NOW + 4, None, "a"),
            "plain": NewAlarm(NOW + 4, None),
            "due": NewAlarm(NOW, None, "a"),
            "moved": NewAlarm(NOW + 6, None, MOVED),
            "claimed": NewAlarm(NOW + 6, None, "a"),
            "dead": NewAlarm(NOW - 1, None, "a"),
        }
        if stored != "none":
            self.put(writer, there[stored])
        if stored in ("claimed", "dead"):
            assert writer.claim([X], 1, NOW + 9, NOW + SECOND)
        if stored == "dead":
            writer.postpone([Postponement(X, 1, None, 3, "no")])
        before = self.row(reader)
        self.put(writer, new(onto=onto))
        after = self.row(reader)
        if not replaced:
            assert after == before
            return
        alarm = StoredAlarm(X, NOW + 5, b'"\\u0000"', 0, None, recurrence="b")
        assert after == AlarmRow(alarm, NOW + 5, "pending")
        assert writer.claim([X], 2, NOW + 5, NOW + SECOND) == [alarm]

    def test_the_next_firing_replaces_the_one_that_is_acknowledged(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.put(writer, new(NOW))
        assert writer.claim([X], 1, NOW, NOW + SECOND)
        for claim, stale in ((2, [0]), (1, []), (1, [0])):
            both = AlarmChanges({"x": claim}, changed={"x": new(NOW + claim)})
            assert self.commit(writer, outside("a", both)) == stale
        assert self.alarms(reader) == {"x": NOW + 1}

    def test_a_firing_that_dies_leaves_its_letter_and_the_next_one(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.put(writer, new(NOW))
        self.put(writer, new(NOW), "y")
        assert len(writer.claim([X, alarm_key("y")], 1, NOW, NOW + SECOND)) == 2
        dead = DeadFiring("x@1", "firing", new(NOW + 9, "c"))
        lost = attrs.evolve(dead, name="x@2")
        writer.postpone(
            [
                Postponement(X, 1, None, 3, "no", dead_firing=dead),
                Postponement(alarm_key("y"), 1, NOW + 3, 1, "again"),
            ]
        )
        writer.postpone([Postponement(X, 1, None, 4, "lost", dead_firing=lost)])
        letter = StoredAlarm(alarm_key("x@1"), NOW, b'"\\u0000"', 3, "no", recurrence="firing")
        assert reader.list_dead_letters("Cart", None, 9) == [letter]
        following = StoredAlarm(X, NOW + 9, b'"\\u0000"', 0, None, recurrence="c")
        assert self.row(reader) == AlarmRow(following, NOW + 9, "pending")
        assert self.due(reader) == [(NOW + 3, "a", "y"), (NOW + 9, "a", "x")]
        assert writer.revive(alarm_key("x@1"), NOW) is True
        assert len(writer.claim([X, alarm_key("x@1")], 2, NOW + 9, NOW + SECOND)) == 2

    def test_recurring_alarms_are_found_by_name_and_time(
        self, writer: Writer, reader: Reader
    ) -> None:
        for object_id, alarm in (
            ("a", new(NOW + 1)),
            ("b", new(NOW + 2)),
            ("c", new(NOW + 3)),
            ("d", NewAlarm(NOW + 9, None)),
            ("e", NewAlarm(NOW + 9, None, MOVED)),
            ("f", NewAlarm(NOW + 9, None, STOPPED)),
        ):
            changed = AlarmChanges(changed={"x": alarm, "y": new(NOW + 9)})
            assert self.commit(writer, outside(object_id, changed)) == []

        def found(due_after: int, after: AlarmKey | None = None, limit: int = 9) -> list[str]:
            page = reader.recurring_alarms("Cart", "x", due_after, after, limit)
            return [alarm.key.object_id for alarm in page]

        assert found(NOW) == ["a", "b", "c"]
        assert found(NOW + 1) == ["b", "c"]
        assert found(NOW, limit=2) == ["a", "b"]
        assert found(NOW, alarm_key("x", "b")) == ["c"]
        assert reader.recurring_alarms("Cart", "x", NOW, None, 9, "none") == []
        assert reader.recurring_alarms("Order", "x", NOW, None, 9) == []
