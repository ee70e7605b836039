"""Tests of recurring alarms: each has one firing to come, or one that is delivered, or is off."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import anyio
import pytest

from ..._alarms.delivery import Delivery
from ..._alarms.recurrence import FIRING, Every, Recurrence, letter_name, stopped
from ..._alarms.retry import Retry
from ..._clock import instant
from ..._keys import ObjectKey
from ...storage import MOVED, STOPPED, AlarmChanges, AlarmRow, Commit, NewAlarm, Onto
from ._bench import TYPE, Bench, Node, alarm_key
from ._tests import SchedulerTests

A = ObjectKey(TYPE, "a")
TICK = alarm_key("tick")
YEAR = 365 * 86400.0
TWICE = Retry(initial=1, factor=1, maximum=1, attempts=2)


def every(seconds: float, **options: Any) -> Recurrence:
    """A schedule by interval."""
    return Recurrence(Every(round(seconds * 1e6)), **options)


class RecurrenceTests(SchedulerTests):
    """The end of a firing of a recurring alarm sets the next one, in one transaction."""

    unhandled_pause: float = 300.0
    """Seconds after which a recurring alarm that nothing handled is tried again, at the latest."""

    @pytest.fixture
    async def watched(self, bench: Bench) -> Node:
        """A node with the recurring alarm "tick", whose row must always be there."""
        node = await bench.node()
        node.destination.recurrences_by_name["tick"] = every(10)
        await self.turn_on(node)
        bench.writer.after_write = lambda: self.check_pending(bench)
        return node

    async def turn_on(self, node: Node) -> None:
        """Begin the recurrence of "tick"."""
        recurrence = node.destination.recurrences_by_name["tick"]
        now = node.destination.now()
        new = recurrence.begin(A, now, Onto.STOPPED | Onto.OUTDATED)
        await node.scheduler.schedule(A, "tick", new)

    def row(self, bench: Bench) -> AlarmRow | None:
        """The row of "tick"."""
        (row,) = bench.reader.load_alarms([TICK], bench.time(0))
        return row

    def check_pending(self, bench: Bench) -> AlarmRow:
        """Check that "tick" has one row, which is due or will be; return that."""
        row = self.row(bench)
        assert row is not None
        assert row.status in ("pending", "overdue")
        assert row.alarm.recurrence is not None
        return row

    def lies_after(self, bench: Bench, seconds: float) -> bool:
        """True if "tick" is due so many seconds from now, or a little later or earlier."""
        due_at = self.check_pending(bench).alarm.due_at
        return abs(due_at - bench.time(seconds)) <= self.lateness * 1e6

    # --- going on --------------------------------------------------------------------------------

    async def test_a_recurring_alarm_fires_at_each_of_its_times(
        self, bench: Bench, watched: Node
    ) -> None:
        first = self.check_pending(bench).alarm
        await self.until_late(35)
        assert watched.names == ["tick"] * 3
        due_at = instant(first.due_at)
        assert [each.alarm.due_at for each in watched.handled] == [
            due_at + n * timedelta(seconds=10) for n in range(3)
        ]
        assert all(0 <= each.late <= self.lateness for each in watched.handled)
        assert self.check_pending(bench).alarm.recurrence == first.recurrence

    async def test_a_firing_that_is_retried_keeps_its_mark_and_its_time(
        self, bench: Bench, watched: Node
    ) -> None:
        watched.destination.retry = Retry(initial=2, factor=1, maximum=2)
        watched.destination.fail("tick", 1)
        first = self.check_pending(bench).alarm
        await self.until_late(10)
        found = self.check_pending(bench).alarm
        assert (found.due_at, found.recurrence, found.failures) == (
            *(first.due_at, first.recurrence),
            1,
        )
        await self.until_late(2)
        assert watched.attempts == [1, 2]
        assert self.lies_after(bench, 10 - 2 - 2 * self.lateness)

    async def test_a_firing_that_a_closed_runtime_leaves_keeps_its_mark(
        self, bench: Bench, watched: Node
    ) -> None:
        watched.destination.hold("tick")
        first = self.check_pending(bench).alarm
        await self.until_late(10)
        await watched.close()
        assert self.check_pending(bench).alarm == first

    @pytest.mark.parametrize("outcome", ["fails", "is lost"])
    async def test_a_firing_whose_commit_fails_has_one_successor(
        self, bench: Bench, watched: Node, outcome: Literal["fails", "is lost"]
    ) -> None:
        watched.destination.retry = Retry(initial=1, factor=1, maximum=1, attempts=1)

        async def script(_delivery: Delivery) -> None:
            if len(watched.handled) == 1:
                bench.writer.next_commit = outcome

        watched.destination.scripts["tick"] = script
        await self.until_late(10 + 1 + self.lateness)
        assert watched.names == ["tick"] * (2 if outcome == "fails" else 1)
        assert await watched.dead() == []
        assert self.lies_after(bench, 10 - 1 - 2 * self.lateness)
        await self.until_late(9)
        assert len(watched.names) == (3 if outcome == "fails" else 2)

    async def test_a_firing_that_sets_its_alarm_has_that_successor(
        self, bench: Bench, watched: Node
    ) -> None:
        async def script(_delivery: Delivery) -> AlarmChanges:
            return AlarmChanges(changed={"tick": NewAlarm(bench.time(3), b"1", MOVED)})

        watched.destination.scripts["tick"] = script
        await self.until_late(10)
        del watched.destination.scripts["tick"]
        assert self.check_pending(bench).alarm.recurrence == MOVED
        await self.until_late(3)
        assert [each.alarm.payload for each in watched.handled] == [None, 1]
        assert self.check_pending(bench).alarm.recurrence != MOVED

    async def test_a_firing_before_its_time_is_that_of_its_time(
        self, bench: Bench, watched: Node
    ) -> None:
        first = self.check_pending(bench).alarm
        assert await watched.fire(TICK)
        assert self.check_pending(bench).alarm.due_at == first.due_at + 10_000_000
        await self.until_late(10)
        assert watched.names == ["tick"]

    # --- dead letters ----------------------------------------------------------------------------

    async def test_a_firing_that_dies_has_a_successor(self, bench: Bench, watched: Node) -> None:
        watched.destination.retry = TWICE
        watched.destination.fail("tick", 2)
        first = self.check_pending(bench).alarm
        await self.until_late(10 + 1 + self.lateness)
        (dead,) = await watched.scheduler.dead_letters(TYPE, None, 10, "")
        assert dead.key.name == letter_name(TICK, first.due_at)
        assert (dead.due_at, dead.failures, dead.recurrence) == (first.due_at, 2, FIRING)
        found = self.check_pending(bench).alarm
        assert (found.due_at, found.failures, found.last_error) == (
            *(first.due_at + 10_000_000, 0),
            None,
        )
        await self.until_late(9)
        assert watched.attempts == [1, 2, 1]

    async def test_a_death_that_cant_be_written_is_written_later(
        self, bench: Bench, watched: Node
    ) -> None:
        watched.destination.retry = Retry(attempts=1)
        watched.destination.fail("tick", 1)
        bench.writer.failing_postponements = 1
        first = self.check_pending(bench).alarm
        await self.until_late(10)
        assert await watched.dead() == []
        await self.until_late(5)
        assert await watched.dead() == [letter_name(TICK, first.due_at)]
        assert self.check_pending(bench).alarm.due_at == first.due_at + 10_000_000
        await self.until_late(5)
        assert watched.names == ["tick"] * 2

    async def test_a_firing_that_has_died_is_revived_for_itself(
        self, bench: Bench, watched: Node
    ) -> None:
        watched.destination.retry = Retry(attempts=1)
        watched.destination.fail("tick", 1)
        await self.until_late(10)
        (name,) = await watched.dead()
        before = self.check_pending(bench)
        assert await watched.scheduler.revive(alarm_key(name))
        await self.until_late()
        assert watched.names == ["tick", name]
        assert await watched.dead() == []
        assert self.check_pending(bench) == before

    async def recurring_node(self, bench: Bench, recurrence: Recurrence) -> Node:
        """Start a node for which "tick" recurs."""
        node = Node(bench, {TYPE})
        node.destination.recurrences_by_name["tick"] = recurrence
        return await bench.begin(node)

    def overdue(self, bench: Bench, recurrence: Recurrence, by: float = 1) -> AlarmChanges:
        """Changes that set "tick" for a time that has passed."""
        new = NewAlarm(bench.time(-by), None, recurrence.fingerprint)
        return AlarmChanges(changed={"tick": new})

    # --- what is missed, and what nothing handles ------------------------------------------------

    async def test_a_firing_that_is_too_late_is_skipped_for_the_next(self, bench: Bench) -> None:
        recurrence = every(600, missed="skip")
        changes = self.overdue(bench, recurrence, 1000)
        bench.writer.commit([Commit(A, None, alarms=changes)], 0)
        bench.writer.after_write = lambda: self.check_pending(bench)
        node = await self.recurring_node(bench, recurrence)
        await self.until_late(self.polling_interval)
        assert node.names == []
        due_at = self.check_pending(bench).alarm.due_at
        assert 0 < due_at - bench.time(0) < 200_000_000
        await self.until_late(200)
        assert node.names == ["tick"]

    async def test_a_recurring_alarm_without_a_handler_is_kept(self, bench: Bench) -> None:
        changes = self.overdue(bench, every(600))
        bench.writer.commit([Commit(A, None, alarms=changes)], 0)
        bench.writer.after_write = lambda: self.check_pending(bench)
        node = await bench.node()
        node.destination.retry = Retry(attempts=1)
        await self.until_late(2 * self.unhandled_pause)
        before = changes.changed["tick"]
        assert before is not None
        found = self.check_pending(bench).alarm
        assert (found.due_at, found.failures) == (before.due_at, 0)
        assert node.names == await node.dead() == []
        node.destination.recurrences_by_name["tick"] = every(600)
        await self.until_late(self.unhandled_pause)
        assert node.names == ["tick"]

    # --- on and off ------------------------------------------------------------------------------

    async def test_one_that_is_turned_off_isnt_delivered_until_it_is_on(
        self, bench: Bench, watched: Node
    ) -> None:
        bench.writer.after_write = None
        await watched.commit(AlarmChanges(changed={"tick": stopped(bench.time(0))}))
        await self.until_late(2 * self.polling_interval)
        assert watched.names == await watched.listed() == await watched.dead() == []
        assert await watched.fire(TICK) is False
        assert await watched.scheduler.revive(TICK) is False
        await self.turn_on(watched)
        await self.until_late(10)
        assert watched.names == ["tick"]

    async def test_one_that_is_turned_off_while_it_runs_has_no_successor(
        self, bench: Bench, watched: Node
    ) -> None:
        held = watched.destination.hold("tick")
        await self.until_late(10)
        bench.writer.after_write = None
        await watched.commit(AlarmChanges(changed={"tick": stopped(bench.time(0))}))
        (delivery,) = held.deliveries
        assert delivery.superseded
        await watched.kill()
        row = self.row(bench)
        assert row is not None
        assert (row.status, row.alarm.recurrence) == ("stopped", STOPPED)

    async def test_turning_on_what_is_on_changes_nothing(self, bench: Bench, watched: Node) -> None:
        before = self.check_pending(bench)
        await anyio.sleep(5)
        await self.turn_on(watched)
        assert self.check_pending(bench) == before
        await self.until_late(5)
        assert watched.names == ["tick"]

    async def test_turning_on_by_a_time_from_before_a_firing_changes_nothing(
        self, bench: Bench, watched: Node
    ) -> None:
        await anyio.sleep(9.5)
        new = every(10).begin(A, bench.time(0), Onto.STOPPED | Onto.OUTDATED)
        await self.until_late(0.5)
        before = self.check_pending(bench)
        assert before.alarm.due_at > new.due_at
        await watched.scheduler.schedule(A, "tick", new)
        assert self.check_pending(bench) == before

    async def test_turning_it_on_while_it_runs_changes_nothing(
        self, bench: Bench, watched: Node
    ) -> None:
        held = watched.destination.hold("tick")
        await self.until_late(10)
        await self.turn_on(watched)
        (delivery,) = held.deliveries
        assert not delivery.superseded
        held.release()
        await self.until_late(1)
        assert watched.names == ["tick"]
        assert self.lies_after(bench, 10 - 1 - 2 * self.lateness)

    # --- changes that depend on the row ----------------------------------------------------------

    @pytest.mark.parametrize("polls", [0.5, 5])
    async def test_an_alarm_that_is_kept_keeps_its_time(self, node: Node, polls: float) -> None:
        after = polls * self.polling_interval
        await node.set("x", after, payload=b"1")
        await self.keep(node, "x", after / 2)
        await self.until_late(after / 2)
        assert node.names == []
        await self.keep(node, "x", after * 2)
        await self.until_late(after / 2)
        assert [each.alarm.payload for each in node.handled] == [1]
        assert node.handled[0].late <= self.lateness
        await self.keep(node, "x", 3)
        await self.until_late(3)
        assert [each.alarm.payload for each in node.handled] == [1, 2]

    async def test_an_alarm_that_is_kept_while_it_runs_is_acknowledged(self, node: Node) -> None:
        held = node.destination.hold("x")
        await node.set("x", 0)
        await self.until_late()
        await self.keep(node, "x", 5)
        held.release()
        await self.until_late(5 + self.polling_interval)
        assert node.names == ["x"]
        assert await node.listed() == []

    async def keep(self, node: Node, name: str, after: float) -> None:
        """Set an alarm of the object "a" if it has none of that name."""
        due_at = node.destination.now() + round(after * 1e6)
        await node.scheduler.schedule(A, name, NewAlarm(due_at, b"2", None, Onto.STOPPED))

    @pytest.mark.parametrize("polls", [0.1, 5])
    async def test_a_time_of_another_schedule_is_replaced(
        self, bench: Bench, node: Node, polls: float
    ) -> None:
        after = 5 + polls * self.polling_interval
        await node.scheduler.schedule(A, "tick", NewAlarm(bench.time(after), None, "other"))
        node.destination.recurrences_by_name["tick"] = every(5)
        await self.turn_on(node)
        await self.until_late(5)
        assert node.names == ["tick"]

    # --- times that are too late -----------------------------------------------------------------

    async def test_at_the_start_far_times_are_pulled_in(self, bench: Bench) -> None:
        recurrence = every(60)
        for object_id, mark in (("a", recurrence.fingerprint), ("moved", MOVED)):
            new = NewAlarm(bench.time(YEAR), None, mark)
            changes = AlarmChanges(changed={"tick": new})
            bench.writer.commit([Commit(ObjectKey(TYPE, object_id), None, alarms=changes)], 0)
        bench.writer.after_write = lambda: self.check_pending(bench)
        node = await self.recurring_node(bench, recurrence)
        await self.until_late(60 + self.polling_interval)
        assert [each.key.object_id for each in node.handled] == ["a"]

    async def test_far_times_of_objects_are_pulled_in_as_they_come(self, bench: Bench) -> None:
        recurrence = every(60)
        new = NewAlarm(bench.time(YEAR), None, recurrence.fingerprint)
        changes = AlarmChanges(changed={"tick": new})
        bench.writer.commit([Commit(A, None, alarms=changes)], 0)
        node = Node(bench, {TYPE})
        node.destination.recurrences_by_name["tick"] = recurrence
        node.destination.elsewhere = {"a"}
        await bench.begin(node)
        await self.until_late(self.polling_interval)
        assert self.check_pending(bench).alarm.due_at == new.due_at
        node.destination.elsewhere = set()
        node.scheduler.acquired()
        await self.until_late(60 + self.polling_interval)
        assert node.names == ["tick"]
