"""Tests of setting, replacing, cancelling and listing alarms."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import anyio
import pytest

from ..._clock import instant
from ..._keys import ObjectKey
from ...storage import AlarmChanges, Commit
from ._bench import TYPE, Bench, Node
from ._tests import SchedulerTests


class SettingTests(SchedulerTests):
    """An alarm is delivered at the time that was set last."""

    async def test_an_alarm_is_delivered_at_its_time(self, node: Node) -> None:
        await node.set("x", 2)
        await anyio.sleep(1.9)
        assert node.names == []
        await self.until_late(0.1)
        assert node.names == ["x"]
        assert 0 <= node.handled[0].late <= self.lateness
        assert await node.listed() == []

    async def test_alarms_are_never_early(self, bench: Bench, node: Node) -> None:
        for n in range(10):
            if n == 5:
                bench.latency = 0  # a scheduler that claims ahead of time claims too early now
            await node.set("x", 1, f"{n}")
            await anyio.sleep(0.5)
        await self.until_late(1)
        assert len(node.handled) == 10
        assert all(0 <= handled.late <= self.lateness for handled in node.handled)

    async def test_a_handled_alarm_is_not_delivered_again(self, node: Node) -> None:
        await node.set("x", 0)
        await self.until_late(2 * self.polling_interval + self.claim_ttl)
        assert node.names == ["x"]

    async def test_an_alarm_of_the_past_is_due_at_once(self, node: Node) -> None:
        await node.set("x", -3600)
        await self.until_late()
        assert node.names == ["x"]

    @pytest.mark.parametrize("polls", [0.9, 1.5, 3.9])
    async def test_an_alarm_some_polls_away_is_delivered_at_its_time(
        self, node: Node, polls: float
    ) -> None:
        after = polls * self.polling_interval
        await node.set("x", after)
        await anyio.sleep(after - 0.1)
        assert node.names == []
        await self.until_late(0.1)
        assert node.names == ["x"]

    async def test_the_handler_gets_the_alarm_as_it_was_set(self, bench: Bench, node: Node) -> None:
        due_at = instant(bench.time(1))
        await node.set("x", 1, "some id", payload=b'{"n":1}')
        await self.until_late(1)
        (handled,) = node.handled
        assert handled.alarm.key == ObjectKey(TYPE, "some id")
        assert handled.alarm.name == "x"
        assert abs(handled.alarm.due_at - due_at) < timedelta(milliseconds=10)
        assert handled.alarm.payload == {"n": 1}
        assert (handled.alarm.attempt, handled.alarm.last_error) == (1, None)

    @pytest.mark.parametrize(("first", "second"), [(2, 4), (4, 2)])
    async def test_an_alarm_set_again_has_its_new_time_only(
        self, node: Node, first: float, second: float
    ) -> None:
        await node.set("x", first, payload=b"1")
        await node.set("x", second, payload=b"2")
        await anyio.sleep(second - 0.1)
        assert node.names == []
        await self.until_late(4)
        assert [handled.alarm.payload for handled in node.handled] == [2]
        assert node.handled[0].late <= self.lateness

    async def test_a_cancelled_alarm_is_not_delivered(self, node: Node) -> None:
        await node.set("x", 1)
        await node.set("y", 1)
        await node.set("x", 1, "b")
        await node.scheduler.cancel(ObjectKey(TYPE, "a"), "x")
        assert await node.listed() == ["y"]
        await self.until_late(1)
        assert sorted((each.key.object_id, each.key.name) for each in node.handled) == [
            ("a", "y"),
            ("b", "x"),
        ]

    async def test_cancelling_nothing_is_fine(self, node: Node) -> None:
        await node.scheduler.cancel(ObjectKey(TYPE, "a"), "x")
        await node.scheduler.cancel_all(ObjectKey(TYPE, "a"))

    async def test_all_alarms_of_an_object_are_cancelled(self, node: Node) -> None:
        for name in "xyz":
            await node.set(name, 1)
        await node.set("x", 1, "b")
        await node.scheduler.cancel_all(ObjectKey(TYPE, "a"))
        assert await node.listed() == []
        await self.until_late(2 * self.polling_interval)
        assert [each.key.object_id for each in node.handled] == ["b"]

    async def test_an_alarm_that_a_turn_sets_is_delivered_at_its_time(
        self, bench: Bench, node: Node
    ) -> None:
        await node.commit(bench.changes(x=2))
        await anyio.sleep(1.9)
        assert node.names == []
        await self.until_late(0.1)
        assert node.names == ["x"]

    async def test_an_alarm_that_a_turn_cancels_is_not_delivered(
        self, bench: Bench, node: Node
    ) -> None:
        await node.commit(bench.changes(x=1, y=1))
        await node.commit(bench.changes(x=None))
        await self.until_late(1)
        assert node.names == ["y"]

    async def test_a_turn_clears_all_alarms_and_sets_new_ones(
        self, bench: Bench, node: Node
    ) -> None:
        await node.commit(bench.changes(x=1, y=1))
        await node.commit(AlarmChanges(clear=True, changed=bench.changes(y=2).changed))
        await anyio.sleep(1.9)
        assert node.names == []
        await self.until_late(0.1)
        assert node.names == ["y"]

    async def test_alarms_are_delivered_in_the_order_of_their_times(self, node: Node) -> None:
        for name, after in {"third": 3, "first": 1, "fourth": 4, "second": 2}.items():
            await node.set(name, after, name)
        await self.until_late(4)
        assert node.names == ["first", "second", "third", "fourth"]

    async def test_many_alarms_are_delivered_once_each(self, bench: Bench, node: Node) -> None:
        for n in range(100):
            await node.commit(bench.changes(x=1, y=1, z=1), f"{n}")
        await self.until_late(1 + 2 * self.polling_interval)
        counts = Counter(handled.key for handled in node.handled)
        assert len(counts) == 300
        assert set(counts.values()) == {1}

    @pytest.mark.parametrize("tenant", ["", "t"])
    async def test_an_alarm_that_another_process_writes_is_found(
        self, bench: Bench, node: Node, tenant: str
    ) -> None:
        key = ObjectKey(TYPE, "a", tenant)
        bench.writer.commit([Commit(key, None, alarms=bench.changes(x=0))], bench.time(0))
        await self.until_late(self.polling_interval)
        assert node.names == ["x"]

    async def test_alarms_are_listed_by_their_times(self, node: Node) -> None:
        await node.set("late", 200)
        await node.set("early", 100, payload=b"[1]")
        await node.set("x", 50, "b")
        early, late = await node.scheduler.list(ObjectKey(TYPE, "a"))
        assert (early.key.name, late.key.name) == ("early", "late")
        assert (early.payload, early.failures, early.last_error) == (b"[1]", 0, None)
        assert early.due_at < late.due_at
        assert await node.scheduler.list(ObjectKey(TYPE, "missing")) == []

    async def test_tenants_have_alarms_of_their_own(self, node: Node) -> None:
        await node.set("x", 1, tenant="t")
        await node.set("x", 2, tenant="u")
        await node.set("x", 3)
        assert len(await node.scheduler.list(ObjectKey(TYPE, "a", "t"))) == 1
        await node.scheduler.cancel(ObjectKey(TYPE, "a", "u"), "x")
        await self.until_late(3)
        assert [handled.key.tenant for handled in node.handled] == ["t", ""]
