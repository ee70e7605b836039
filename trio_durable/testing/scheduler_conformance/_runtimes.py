"""Tests of several runtimes on one storage, of closing, and of clocks that jump."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from ..._alarms.retry import Retry
from ._bench import TYPE, Bench, Node, alarm_key
from ._tests import SchedulerTests


class RuntimeTests(SchedulerTests):
    """One runtime at a time delivers an alarm. If it dies, another one takes over."""

    # --- several runtimes ------------------------------------------------------------------------

    async def test_two_runtimes_deliver_each_alarm_once(self, bench: Bench) -> None:
        one, other = await bench.node(), await bench.node()
        # Far enough ahead that both nodes have found the alarms by then.
        after = 1.5 * self.polling_interval
        for n in range(50):
            await one.set("x", after, f"{n}")
            await other.set("y", after, f"{n}")
        await self.until_late(after + 2 * self.polling_interval)
        counts = Counter(handled.key for handled in one.handled + other.handled)
        assert len(counts) == 100
        assert set(counts.values()) == {1}

    async def test_a_slow_delivery_is_not_repeated_by_another_runtime(self, bench: Bench) -> None:
        one, other = await bench.node(), await bench.node()
        held = [node.destination.hold("x") for node in (one, other)]
        await one.set("x", 0)
        await self.until_late(3 * self.claim_ttl + 2 * self.polling_interval)
        assert one.names + other.names == ["x"]
        for each in held:
            each.release()
        await self.until_late(self.polling_interval)
        assert one.names + other.names == ["x"]
        assert await one.listed() == []

    async def taken(self, setter: Node, other: Node) -> tuple[Node, Node]:
        """Set the alarm ``x``; return the node that takes it, and the other, without a script."""
        await setter.set("x", 0)
        await self.until_late()
        one, other = (other, setter) if other.names else (setter, other)
        assert one.names == ["x"]
        assert other.names == []
        del other.destination.scripts["x"]
        return one, other

    async def test_alarms_of_a_dead_runtime_are_delivered_when_its_claims_run_out(
        self, bench: Bench
    ) -> None:
        nodes = await bench.node(), await bench.node()
        for node in nodes:
            node.destination.hold("x")
        one, other = await self.taken(*nodes)
        await one.kill()
        await anyio.sleep(self.claim_ttl / 2)
        assert other.names == []
        await self.until_late(self.claim_ttl / 2 + 2 * self.polling_interval)
        assert other.names == ["x"]
        assert other.attempts == [1]

    async def test_alarms_that_a_dead_runtime_has_set_are_delivered(self, bench: Bench) -> None:
        one, other = await bench.node(), await bench.node()
        await one.set("x", self.polling_interval + 1)
        await one.kill()
        await self.until_late(self.polling_interval + 1)
        assert other.names == ["x"]

    async def test_an_alarm_set_elsewhere_replaces_the_one_known_here(self, bench: Bench) -> None:
        one, other = await bench.node(), await bench.node()
        await one.set("x", 1, payload=b"1")
        await other.set("x", 2, payload=b"2")
        await self.until_late(2 + 2 * self.polling_interval)
        assert [each.alarm.payload for each in one.handled + other.handled] == [2]

    async def test_an_alarm_cancelled_elsewhere_is_not_delivered(self, bench: Bench) -> None:
        one, other = await bench.node(), await bench.node()
        await one.set("x", 1)
        await other.commit(bench.changes(x=None))
        await self.until_late(1 + 2 * self.polling_interval)
        assert one.names + other.names == []

    # --- types -------------------------------------------------------------------------------

    async def test_alarms_of_unknown_types_are_kept(self, bench: Bench) -> None:
        node = await bench.node("Other")
        await node.set("x", 0)
        await node.set("y", 0, type_name="Other")
        await self.until_late(2 * self.polling_interval + self.claim_ttl)
        assert node.names == ["y"]
        assert await node.listed() == ["x"]
        node.destination.types.add(TYPE)
        await self.until_late(self.polling_interval)
        assert node.names == ["y", "x"]
        assert node.attempts == [1, 1]

    async def test_an_alarm_for_another_runtime_is_delivered_there(self, bench: Bench) -> None:
        here, there = await bench.node("Other"), await bench.node()
        await here.set("x", 2)
        await anyio.sleep(1.9)
        assert there.names == []
        await self.until_late(0.1 + 2 * self.polling_interval)
        assert there.names == ["x"]
        assert here.names == []

    # --- closing ---------------------------------------------------------------------------------

    async def test_a_stopped_scheduler_begins_no_deliveries(self, bench: Bench) -> None:
        node = await bench.node()
        held = node.destination.hold("slow")
        await node.set("slow", 0)
        await node.set("x", 1)
        await self.until_late()
        node.scheduler.stop()
        await node.set("y", 0)
        await self.until_late(1 + 2 * self.polling_interval)
        assert node.names == ["slow"]
        # The delivery that has begun may still end.
        held.release()
        await self.until_late()
        assert sorted(await node.listed()) == ["x", "y"]

    async def test_another_runtime_delivers_the_alarms_of_a_closed_one(self, bench: Bench) -> None:
        one, other = await bench.node(), await bench.node()
        for node in (one, other):
            node.destination.retry = Retry(attempts=1)
        one.destination.hold("slow")
        await one.set("slow", 0)
        await one.set("x", 1)
        await self.until_late()
        await one.close()
        await self.until_late(2 * self.polling_interval)
        assert sorted(other.names) == ["slow", "x"]
        # A cancelled delivery isn't a failure.
        assert other.attempts == [1, 1]
        assert one.scheduler.statistics().in_flight == 0
        assert await other.dead() == []

    @pytest.mark.parametrize("after_due", [-0.01, 0.01, 0.03])
    async def test_an_alarm_that_is_due_while_a_runtime_closes_is_delivered_by_another(
        self, bench: Bench, after_due: float
    ) -> None:
        # The scheduler hasn't claimed it, is claiming it, or has passed it on.
        one, other = await bench.node(), await bench.node()
        one.destination.hold("x")
        due_at = bench.time(1)
        await one.set("x", 1)
        await anyio.sleep((due_at - bench.time(0)) / 1e6 + after_due)
        await one.close()
        await self.until_late(2 * self.polling_interval)
        assert other.names == ["x"]
        assert other.attempts == [1]

    async def test_a_retry_that_is_left_keeps_its_failures(self, bench: Bench) -> None:
        nodes = await bench.node(), await bench.node()
        for node in nodes:
            node.destination.fail("x", 1)
        one, other = await self.taken(*nodes)
        assert one.attempts == [1]
        await one.close()
        await self.until_late(one.destination.retry.initial + self.polling_interval)
        assert other.attempts == [2]

    async def test_closing_releases_a_caller_that_waits_for_a_fired_alarm(
        self, bench: Bench
    ) -> None:
        node = await bench.node()
        node.destination.hold("x")
        await node.set("x", 10)
        errors: list[Exception] = []

        async def fire() -> None:
            try:
                await node.scheduler.fire(alarm_key("x"))
            except Exception as error:  # noqa: BLE001  # counted below
                errors.append(error)

        with anyio.fail_after(10 + self.lateness):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fire)
                await self.until_late()
                await node.close()
        assert len(errors) == 1

    # --- clocks that jump ------------------------------------------------------------------------

    async def test_an_alarm_is_due_when_the_clock_is_set_forward(self, bench: Bench) -> None:
        bench.clock.can_be_set = True
        node = await bench.node()
        await node.set("x", 1.5 * self.polling_interval)
        await anyio.sleep(5)
        bench.clock.jump(1.5 * self.polling_interval)
        await self.until_late(1)
        assert node.names == ["x"]

    async def test_an_alarm_is_not_due_when_the_clock_is_set_back(self, bench: Bench) -> None:
        bench.clock.can_be_set = True
        node = await bench.node()
        await node.set("x", 2)
        bench.clock.jump(-100)
        await self.until_late(99)
        assert node.names == []
        await self.until_late(3 + 1)
        assert node.names == ["x"]
        assert node.handled[0].late >= 0
