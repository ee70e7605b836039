"""Tests of alarms in whose deliveries the process dies, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
import pytest

from ..._alarms.recurrence import Every, Recurrence, letter_name
from ..._alarms.retry import Retry
from ..._errors import AlarmCrashed
from ...storage import NewAlarm
from ._bench import TYPE, Bench, Node, alarm_key
from ._tests import SchedulerTests

THRICE = Retry(initial=0, crashes=3)
LONG = 100.0
"""Seconds after which a delivery is no longer suspected of killing its process."""


class CrashTests(SchedulerTests):
    """An alarm that kills the process each time becomes a dead letter; no other alarm does."""

    @pytest.fixture(autouse=True)
    def counting(self) -> None:
        """Skip all tests of this group if the scheduler doesn't count crashes."""
        if not self.counts_crashes:
            pytest.skip("this scheduler doesn't count crashes")

    async def node_with(
        self, bench: Bench, retry: Retry, *held: str, **recurring: Recurrence
    ) -> Node:
        """Start a node with handlers that don't end by themselves."""
        node = Node(bench, {TYPE})
        node.destination.retry = retry
        node.destination.recurrences_by_name.update(recurring)
        for name in held:
            node.destination.hold(name)
        return await bench.begin(node)

    async def until(self, condition: Callable[[], bool], after: float = 0.0) -> None:
        """Wait for a condition, as long as it may take until a suspect is delivered.

        Args:
            condition: The condition, which has to hold in the end.
            after: The longest delay of a suspect.
        """
        seconds = after + self.claim_ttl + 2 * self.polling_interval
        for _ in range(math.ceil(seconds / self.lateness)):
            if condition():
                break
            await self.until_late()
        assert condition()

    async def has(self, node: Node, *names: str, after: float = 0.0) -> None:
        """Wait until a node has handled exactly these alarms."""
        await self.until(lambda: sorted(node.names) == sorted(names), after)

    async def has_any(self, node: Node, after: float = 0.0) -> None:
        """Wait until a node has handled any alarm."""
        await self.until(lambda: bool(node.names), after)

    async def holds_one(self, node: Node) -> None:
        """Wait until a node has claimed an alarm and keeps it."""
        await self.until(lambda: node.scheduler.statistics().in_flight > 0)
        await self.until_late()
        assert node.scheduler.statistics().in_flight == 1

    async def takes_over(self, node: Node) -> None:
        """Wait until a node has claimed the alarms of a dead process, if it does so."""
        await self.until_late(self.claim_ttl + 2 * self.polling_interval)

    async def dies_of(self, bench: Bench, name: str, retry: Retry, *held: str) -> Node:
        """Start a node, and kill it soon after it has begun to handle the alarm ``name``."""
        node = await self.node_with(bench, retry, name, *held)
        await self.until(lambda: name in node.names, retry.maximum)
        await node.kill()
        return node

    async def kills(self, bench: Bench, retry: Retry, times: int) -> Node:
        """Set the alarm ``x``, and let so many processes die of it; return the node that set it."""
        setter = await bench.node("Other")
        await setter.set("x", 0)
        for _ in range(times):
            await self.dies_of(bench, "x", retry)
        return setter

    # --- the alarm that kills --------------------------------------------------------------------

    @pytest.mark.parametrize("crashes", [1, 2, 5])
    async def test_an_alarm_of_which_each_process_dies_is_a_dead_letter(
        self, bench: Bench, crashes: int
    ) -> None:
        retry = Retry(initial=0, crashes=crashes)
        setter = await bench.node("Other")
        await setter.set("x", 0)
        for _ in range(1 + crashes):  # the first process may have died of anything
            assert await setter.dead() == []
            await self.dies_of(bench, "x", retry)
        node = await self.node_with(bench, retry)
        await self.takes_over(node)
        assert node.names == []
        (dead,) = await node.scheduler.dead_letters(TYPE, None, 10, "")
        assert (dead.key, dead.failures, dead.crashes) == (alarm_key("x"), 0, crashes)
        assert (dead.last_error or "").startswith("AlarmCrashed: ")

    async def test_without_a_limit_on_crashes_an_alarm_is_delivered_again(
        self, bench: Bench
    ) -> None:
        retry = Retry(initial=0, crashes=None)
        await self.kills(bench, retry, 15)
        node = await self.node_with(bench, retry)
        await self.has(node, "x")
        assert await node.dead() == []

    async def test_two_alarms_that_kill_are_both_dead_letters(self, bench: Bench) -> None:
        setter = await bench.node("Other")
        await setter.set("x", 0)
        await setter.set("y", 0)
        for _ in range(1 + 2 * 3):
            node = await self.node_with(bench, THRICE, "x", "y")
            await self.has_any(node)
            await node.kill()
        node = await self.node_with(bench, THRICE)
        await self.takes_over(node)
        assert node.names == []
        assert await node.dead() == ["x", "y"]

    async def test_a_delivery_after_a_crash_is_delayed(self, bench: Bench) -> None:
        retry = Retry(initial=40, factor=2, maximum=1000)
        setter = await bench.node("Other")
        await setter.set("x", 0)
        times = []
        for _ in range(4):
            node = await self.dies_of(bench, "x", retry)
            times.append(node.handled[0].at)
        usual = self.claim_ttl + self.polling_interval + 2 * self.lateness
        assert times[1] <= usual
        for at, longest in zip(times[2:], (40, 80), strict=True):
            assert longest / 2 <= at <= longest + usual

    async def test_a_revived_alarm_has_all_its_crashes(self, bench: Bench) -> None:
        setter = await self.kills(bench, THRICE, 1 + 3)
        node = await self.node_with(bench, THRICE, "x")
        await self.takes_over(node)
        assert await node.scheduler.revive(alarm_key("x"))
        await self.has(node, "x")
        await node.kill()
        for _ in range(2):
            assert await setter.dead() == []
            await self.dies_of(bench, "x", THRICE)
        node = await self.node_with(bench, THRICE)
        await self.takes_over(node)
        assert node.names == []
        assert await node.dead() == ["x"]

    async def test_an_alarm_that_is_set_again_has_all_its_crashes(self, bench: Bench) -> None:
        setter = await self.kills(bench, THRICE, 3)
        await setter.set("x", 0)
        for _ in range(1 + 3):
            assert await setter.dead() == []
            await self.dies_of(bench, "x", THRICE)

    async def test_who_fires_an_alarm_that_crashed_too_often_gets_an_error(
        self, bench: Bench
    ) -> None:
        unlimited = Retry(initial=0, crashes=None)
        await self.kills(bench, unlimited, 1 + 3)
        one = await self.node_with(bench, unlimited, "x")
        await self.has(one, "x")
        other = await self.node_with(bench, THRICE)
        with pytest.raises(AlarmCrashed) as caught:
            await other.fire(alarm_key("x"))
        # The claim that was taken away was marked, but its process lives.
        assert caught.value.crashes == 3
        assert await other.dead() == ["x"]

    async def test_a_suspect_is_fired_without_a_delay(self, bench: Bench) -> None:
        retry = Retry(initial=1000, factor=1, maximum=1000)
        await self.kills(bench, retry, 2)
        node = await self.node_with(bench, retry)
        assert await node.fire(alarm_key("x"))
        assert node.names == ["x"]
        assert await node.listed() == []

    async def test_a_recurring_alarm_goes_on_after_a_firing_of_which_each_process_dies(
        self, bench: Bench
    ) -> None:
        recurrence = Recurrence(Every(1_000_000_000))
        due_at = bench.time(0)
        setter = await bench.node("Other")
        key = alarm_key("x")
        new = NewAlarm(due_at, None, recurrence.fingerprint)
        await setter.scheduler.schedule(key.object_key, "x", new)
        for _ in range(1 + 3):
            assert await setter.dead() == []
            node = await self.node_with(bench, THRICE, "x", x=recurrence)
            await self.has(node, "x")
            await node.kill()
        node = await self.node_with(bench, THRICE, x=recurrence)
        await self.takes_over(node)
        assert node.names == []
        (dead,) = await node.scheduler.dead_letters(TYPE, None, 10, "")
        assert (dead.key.name, dead.crashes) == (letter_name(key, due_at), 3)
        (row,) = bench.reader.load_alarms([key], bench.time(0))
        assert row is not None
        assert (row.alarm.due_at, row.alarm.crashes) == (due_at + 1_000_000_000, None)

    # --- the others ------------------------------------------------------------------------------

    async def test_alarms_delivered_with_one_that_kills_are_spared(self, bench: Bench) -> None:
        innocent = ["a", "b", "z"]
        setter = await bench.node("Other")
        for name in [*innocent, "x"]:
            await setter.set(name, 0, name)
        for _ in range(1 + 3):
            await self.dies_of(bench, "x", THRICE, *innocent)
        node = await self.node_with(bench, THRICE)
        await self.has(node, *innocent)
        await self.until_late()
        assert await node.dead() == ["x"]

    async def test_a_long_delivery_that_is_killed_again_and_again_is_spared(
        self, bench: Bench
    ) -> None:
        setter = await bench.node("Other")
        await setter.set("x", 0)
        for _ in range(8):
            node = await self.node_with(bench, THRICE, "x")
            await self.has(node, "x")
            await anyio.sleep(LONG)
            await node.kill()
        node = await self.node_with(bench, THRICE)
        await self.has(node, "x")
        await self.until_late()
        assert await node.listed() == await node.dead() == []

    async def test_a_process_that_dies_before_the_delivery_is_not_counted(
        self, bench: Bench
    ) -> None:
        retry = Retry(initial=50, factor=1, maximum=50, crashes=2)
        await self.kills(bench, retry, 2)  # one crash is counted
        for _ in range(10):
            node = await self.node_with(bench, retry, "x")
            await self.holds_one(node)
            await node.kill()
            assert node.names == []
        node = await self.node_with(bench, retry)
        await self.has(node, "x", after=retry.maximum)
        assert await node.dead() == []

    async def test_suspects_begin_one_at_a_time_and_others_at_once(self, bench: Bench) -> None:
        setter = await bench.node("Other")
        suspects = ["a", "b", "c"]
        for name in suspects:
            await setter.set(name, 0, name)
        await self.dies_of(bench, "c", THRICE, "a", "b")
        node = Node(bench, {TYPE})
        held = {name: node.destination.hold(name) for name in suspects}
        await bench.begin(node)
        await self.has_any(node)
        assert len(node.names) == 1
        await setter.set("new", 0)
        await node.set("other", 0)
        await self.until_late()
        assert "other" in node.names
        # The next begins when the first has ended, or has run for long enough.
        held[node.names[0]].release()
        await self.until_late()
        assert len(set(suspects).intersection(node.names)) == 2
        await self.until_late(LONG)
        assert set(suspects).issubset(node.names)

    async def test_a_delivery_that_ends_is_no_crash(self, bench: Bench) -> None:
        pause = 10 * self.polling_interval
        retry = Retry(initial=pause, factor=1, maximum=pause, crashes=2)
        setter = await bench.node("Other")
        await setter.set("x", 0)
        for failures in range(1, 4):
            for _ in range(2):  # one crash is counted
                await self.dies_of(bench, "x", retry)
            node = Node(bench, {TYPE})
            node.destination.retry = retry
            node.destination.fail("x", 1)
            await bench.begin(node)
            await self.has(node, "x", after=pause)
            (stored,) = await setter.scheduler.list(alarm_key("x").object_key)
            assert (stored.failures, stored.crashes) == (failures, None)
            await node.kill()

    async def test_a_process_that_closes_is_not_counted(self, bench: Bench) -> None:
        setter = await self.kills(bench, THRICE, 3)  # two crashes are counted
        for _ in range(5):
            node = await self.node_with(bench, THRICE, "x")
            await self.has(node, "x")
            await node.close()
        (stored,) = await setter.scheduler.list(alarm_key("x").object_key)
        assert (stored.failures, stored.crashes) == (0, 2)
        # It is a suspect still, and the next crash is the third.
        await self.dies_of(bench, "x", THRICE)
        node = await self.node_with(bench, THRICE)
        await self.takes_over(node)
        assert await node.dead() == ["x"]

    async def test_a_suspect_that_waits_is_given_back(self, bench: Bench) -> None:
        retry = Retry(initial=500, factor=1, maximum=500)
        setter = await self.kills(bench, retry, 2)
        node = await self.node_with(bench, retry, "x")
        await self.holds_one(node)
        await node.close()
        (stored,) = await setter.scheduler.list(alarm_key("x").object_key)
        assert stored.crashes == 1
        node = await self.node_with(bench, Retry(initial=0))
        await self.until_late()
        assert node.names == ["x"]
