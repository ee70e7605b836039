"""Tests of deliveries in flight, firing and statistics."""

from __future__ import annotations

from typing import Literal

import anyio
import pytest

from ..._alarms.delivery import Delivery
from ..._alarms.retry import Retry
from ..._errors import PersistenceError
from ..._keys import ObjectKey
from ...scheduler import SchedulerStatistics
from ...storage import AlarmChanges
from ._bench import TYPE, Bench, Node, alarm_key
from ._tests import SchedulerTests


class DeliveryTests(SchedulerTests):
    """A delivery ends once, whatever happens to its alarm while the handler runs."""

    # --- changes while the handler runs ----------------------------------------------------------

    async def test_a_slow_handler_is_called_once(self, node: Node) -> None:
        held = node.destination.hold("x")
        await node.set("x", 0)
        await self.until_late(2 * (self.polling_interval + self.claim_ttl))
        held.release()
        await self.until_late()
        assert node.names == ["x"]
        assert await node.listed() == []

    async def test_an_alarm_that_is_set_while_it_is_handled_supersedes_the_delivery(
        self, node: Node
    ) -> None:
        held = node.destination.hold("x")
        await node.set("x", 0, payload=b"1")
        await self.until_late()
        (delivery,) = held.deliveries
        assert not delivery.superseded
        await node.set("x", 5, payload=b"2")
        assert delivery.superseded
        held.release()
        await anyio.sleep(4)
        # The acknowledgement of the first is refused, and isn't a failure of the second.
        assert [handled.alarm.payload for handled in node.handled] == [1]
        await self.until_late(1)
        assert [handled.alarm.payload for handled in node.handled] == [1, 2]
        assert node.attempts == [1, 1]
        assert node.handled[1].late <= self.lateness
        assert await node.listed() == []
        assert exact(node.scheduler.statistics()) == (0, 1, 0)

    async def test_an_alarm_that_is_set_while_it_is_handled_needn_t_wait_for_it(
        self, node: Node
    ) -> None:
        node.destination.hold("x")
        await node.set("x", 0)
        await self.until_late()
        await node.set("x", 1)
        await self.until_late(1)
        assert node.names == ["x", "x"]

    async def test_an_alarm_that_is_cancelled_while_it_is_handled_is_gone(
        self, bench: Bench, node: Node
    ) -> None:
        node.destination.retry = Retry(initial=1, factor=1, maximum=1)
        held = node.destination.hold("x")
        await node.set("x", 0)
        await self.until_late()
        await node.commit(bench.changes(x=None))
        assert held.deliveries[0].superseded
        held.release()
        await self.until_late(2 * self.polling_interval + self.claim_ttl)
        assert node.names == ["x"]
        assert await node.listed() == []

    @pytest.mark.parametrize("outcome", ["fails", "is lost"])
    async def test_a_change_that_failed_and_may_be_durable_supersedes_the_delivery(
        self, bench: Bench, node: Node, outcome: Literal["fails", "is lost"]
    ) -> None:
        held = node.destination.hold("x")
        await node.set("x", 0)
        await self.until_late()
        (delivery,) = held.deliveries
        for change, is_superseded in (bench.changes(y=None), False), (bench.changes(x=None), True):
            bench.writer.next_commit = outcome
            with pytest.raises(PersistenceError):
                await node.commit(change)
            assert delivery.superseded is is_superseded
        held.release()
        await self.until_late(2 * self.polling_interval + self.claim_ttl)
        assert node.names == ["x"]
        assert await node.listed() == []
        assert node.scheduler.statistics().failed == 0

    async def test_alarms_of_others_are_not_superseded(self, bench: Bench, node: Node) -> None:
        held = node.destination.hold("x")
        await node.set("x", 0)
        await self.until_late()
        await node.commit(bench.changes(y=1))
        await node.commit(bench.changes(x=1), "b")
        await node.commit(bench.changes(x=1), tenant="t")
        (delivery,) = held.deliveries
        assert delivery.is_current

    async def test_a_handler_that_sets_its_own_alarm_again_is_called_again(
        self, bench: Bench, node: Node
    ) -> None:
        async def script(_delivery: Delivery) -> AlarmChanges | None:
            return bench.changes(x=2) if len(node.handled) < 3 else None

        node.destination.scripts["x"] = script
        await node.set("x", 0)
        await self.until_late(4 + 2 * self.lateness)
        assert node.names == ["x"] * 3
        assert node.attempts == [1, 1, 1]
        assert all(handled.late <= self.lateness for handled in node.handled)
        assert await node.listed() == []

    async def test_an_alarm_that_is_acknowledged_in_the_middle_of_its_turn_is_not_tried_again(
        self, node: Node
    ) -> None:
        node.destination.retry = Retry(initial=1, factor=1, maximum=1)
        seen: list[bool] = []

        async def script(delivery: Delivery) -> None:
            await node.commit(AlarmChanges(acknowledged={"x": delivery.claim}))
            seen.append(delivery.acknowledged)
            raise ValueError("on purpose")

        node.destination.scripts["x"] = script
        await node.set("x", 0)
        await self.until_late(2 + self.lateness)
        assert seen == [True]
        assert node.names == ["x"]
        assert await node.listed() == []
        assert node.scheduler.statistics().failed == 0

    async def test_deliveries_of_a_dropped_tenant_are_superseded(self, node: Node) -> None:
        held = node.destination.hold("x")
        await node.set("x", 0, tenant="t")
        await node.set("y", 2, tenant="t")
        await node.set("x", 0)
        await self.until_late()
        await node.drop_tenant("t")
        superseded = {each.key.tenant: each.superseded for each in held.deliveries}
        assert superseded == {"t": True, "": False}
        held.release()
        await self.until_late(2 * self.polling_interval + self.claim_ttl)
        assert node.names == ["x", "x"]

    # --- firing ----------------------------------------------------------------------------------

    async def test_firing_delivers_an_alarm_now_and_once(self, node: Node) -> None:
        await node.set("x", 10)
        with anyio.fail_after(self.lateness):
            assert await node.fire(alarm_key("x")) is True
        assert node.names == ["x"]
        assert await node.listed() == []
        await self.until_late(10 + self.polling_interval)
        assert node.names == ["x"]

    async def test_firing_reaches_an_alarm_that_is_far_away(self, node: Node) -> None:
        await node.set("x", 1e8)
        with anyio.fail_after(self.lateness):
            assert await node.fire(alarm_key("x")) is True
        assert node.attempts == [1]

    async def test_an_unknown_alarm_isn_t_fired(self, node: Node) -> None:
        await node.set("x", 10)
        assert await node.fire(alarm_key("y")) is False
        assert await node.fire(alarm_key("x", "b")) is False
        assert await node.fire(alarm_key("x", tenant="t")) is False
        assert node.names == []

    async def test_firing_raises_what_the_handler_raised_and_the_alarm_is_tried_again(
        self, node: Node
    ) -> None:
        node.destination.retry = Retry(initial=1, factor=1, maximum=1)
        node.destination.fail("x", 1)
        await node.set("x", 10)
        with pytest.raises(ValueError, match="on purpose"):
            await node.fire(alarm_key("x"))
        (stored,) = await node.scheduler.list(ObjectKey(TYPE, "a"))
        assert stored.failures == 1
        await self.until_late(1)
        assert node.attempts == [1, 2]

    async def test_firing_an_alarm_that_is_being_handled_waits_for_that(self, node: Node) -> None:
        held = node.destination.hold("x")
        await node.set("x", 0)
        await self.until_late()
        outcomes: list[bool] = []

        async def fire() -> None:
            outcomes.append(await node.fire(alarm_key("x")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fire)
            await self.until_late()
            assert outcomes == []
            held.release()
        assert outcomes == [True]
        assert node.names == ["x"]

    async def test_a_dead_letter_isn_t_fired(self, node: Node) -> None:
        node.destination.retry = Retry(attempts=1)
        node.destination.fail("x", 1)
        await node.set("x", 0)
        await self.until_late()
        assert await node.dead() == ["x"]
        assert await node.fire(alarm_key("x")) is False
        assert await node.dead() == ["x"]

    # --- statistics ------------------------------------------------------------------------------

    async def test_statistics_count_what_happens(self, node: Node) -> None:
        def statistics() -> SchedulerStatistics:
            return node.scheduler.statistics()

        assert statistics() == SchedulerStatistics(0, 0, 0, 0)
        node.destination.retry = Retry(attempts=1)
        node.destination.fail("bad", 1)
        held = node.destination.hold("slow")
        await node.set("later", 3)
        assert statistics().waiting <= 1
        await node.set("good", 0)
        await node.set("bad", 0)
        await node.set("slow", 0)
        await self.until_late()
        assert exact(statistics()) == (1, 1, 1)
        held.release()
        await self.until_late(3)
        assert statistics() == SchedulerStatistics(waiting=0, in_flight=0, delivered=3, failed=1)


def exact(statistics: SchedulerStatistics) -> tuple[int, int, int]:
    """The counters that every scheduler knows exactly: in flight, delivered, failed."""
    return statistics.in_flight, statistics.delivered, statistics.failed
