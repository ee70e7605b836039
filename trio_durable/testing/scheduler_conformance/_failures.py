"""Tests of retries, dead letters and commits that fail."""

from __future__ import annotations

import anyio
import pytest

from ..._alarms.delivery import Delivery
from ..._alarms.retry import Retry
from ..._errors import PersistenceError
from ..._keys import ObjectKey
from ...storage import AlarmChanges
from ._bench import TYPE, Bench, Node, alarm_key
from ._tests import SchedulerTests

TWICE = Retry(initial=1, factor=1, maximum=1, attempts=2)


class FailureTests(SchedulerTests):
    """An alarm is kept until a commit acknowledges it, or its attempts are used up."""

    async def make_dead(
        self, node: Node, name: str, object_id: str = "a", tenant: str = ""
    ) -> None:
        """Turn an alarm into a dead letter."""
        node.destination.retry = TWICE
        node.destination.fail(name, 2)
        await node.set(name, 0, object_id, tenant=tenant)
        await self.until_late(1 + self.lateness)
        node.handled.clear()

    # --- retries ---------------------------------------------------------------------------------

    async def test_a_failed_alarm_is_tried_again_with_growing_delays(self, node: Node) -> None:
        node.destination.retry = Retry(initial=2, factor=2, maximum=6)
        node.destination.fail("x", 3)
        await node.set("x", 0)
        await self.until_late(2 + 4 + 6 + 3 * self.lateness)
        assert node.names == ["x"] * 4
        assert node.attempts == [1, 2, 3, 4]
        assert node.handled[0].alarm.last_error is None
        assert "on purpose" in (node.handled[1].alarm.last_error or "")
        times = [handled.at for handled in node.handled]
        for n, longest in enumerate((2, 4, 6)):
            assert longest / 2 <= times[n + 1] - times[n] <= longest + self.lateness
        assert await node.listed() == []

    async def test_a_failed_alarm_keeps_the_time_it_was_set_for(self, node: Node) -> None:
        node.destination.retry = Retry(initial=2, factor=1, maximum=2)
        node.destination.fail("x", 1)
        await node.set("x", 1)
        await self.until_late(1)
        (stored,) = await node.scheduler.list(ObjectKey(TYPE, "a"))
        assert stored.failures == 1
        await self.until_late(2)
        first, second = node.handled
        assert first.alarm.due_at == second.alarm.due_at

    async def test_an_alarm_that_cant_be_delivered_is_tried_again(self, node: Node) -> None:
        node.destination.retry = Retry(initial=1, factor=1, maximum=1)
        node.destination.refusals.append(ValueError("no way in"))
        await node.set("x", 0)
        await self.until_late()
        assert not node.destination.refusals
        assert node.names == []
        await self.until_late(1)
        assert node.attempts == [2]

    async def test_other_alarms_of_the_object_are_delivered_meanwhile(self, node: Node) -> None:
        node.destination.retry = Retry(initial=1000, factor=1, maximum=1000)
        node.destination.fail("x", 1)
        await node.set("x", 0)
        await node.set("y", 1)
        await self.until_late(1)
        assert node.names == ["x", "y"]

    async def test_setting_a_failed_alarm_again_gives_it_all_its_attempts(self, node: Node) -> None:
        node.destination.retry = Retry(initial=1000, factor=1, maximum=1000)
        node.destination.fail("x", 1)
        await node.set("x", 0)
        await self.until_late()
        await node.set("x", 1)
        await self.until_late(1)
        assert node.attempts == [1, 1]

    async def test_cancelling_a_failed_alarm_ends_its_retries(self, node: Node) -> None:
        node.destination.retry = Retry(initial=3, factor=1, maximum=3)
        node.destination.fail("x", 1)
        await node.set("x", 0)
        await self.until_late()
        await node.scheduler.cancel(ObjectKey(TYPE, "a"), "x")
        await self.until_late(3 + 2 * self.polling_interval)
        assert node.names == ["x"]

    # --- commits that fail -----------------------------------------------------------------------

    async def test_an_alarm_whose_acknowledgement_fails_is_tried_again_uncounted(
        self, bench: Bench, node: Node
    ) -> None:
        node.destination.retry = Retry(initial=1, factor=1, maximum=1, attempts=1)

        async def script(_delivery: Delivery) -> None:
            if len(node.handled) == 1:
                bench.writer.next_commit = "fails"

        node.destination.scripts["x"] = script
        await node.set("x", 0)
        await self.until_late(1 + self.lateness)
        assert node.attempts == [1, 1]
        assert await node.listed() == []
        assert await node.dead() == []

    async def test_an_alarm_that_a_lost_commit_has_set_is_delivered_at_its_time(
        self, bench: Bench, node: Node
    ) -> None:
        bench.writer.next_commit = "is lost"
        with pytest.raises(PersistenceError):
            await node.commit(bench.changes(x=2))
        await anyio.sleep(1.9)
        assert node.names == []
        await self.until_late(0.1)
        assert node.names == ["x"]

    async def test_an_alarm_that_a_failed_commit_would_have_set_is_not_delivered(
        self, bench: Bench, node: Node
    ) -> None:
        bench.writer.next_commit = "fails"
        with pytest.raises(PersistenceError):
            await node.commit(bench.changes(x=1))
        await node.commit(bench.changes(y=1))
        await self.until_late(1 + 2 * self.polling_interval)
        assert node.names == ["y"]

    # --- dead letters ----------------------------------------------------------------------------

    async def test_an_alarm_that_has_used_up_its_attempts_is_a_dead_letter(
        self, node: Node
    ) -> None:
        node.destination.retry = TWICE
        node.destination.fail("x", 5)
        await node.set("x", 0)
        await self.until_late(1 + self.lateness)
        assert node.attempts == [1, 2]
        assert await node.listed() == []
        (dead,) = await node.scheduler.dead_letters(TYPE, None, 10, "")
        assert (dead.key, dead.failures) == (alarm_key("x"), 2)
        assert "on purpose" in (dead.last_error or "")
        await self.until_late(2 * self.polling_interval + self.claim_ttl)
        assert node.attempts == [1, 2]

    async def test_dead_letters_are_listed_in_pages(self, node: Node) -> None:
        for object_id in "abc":
            await self.make_dead(node, "x", object_id)
        await self.make_dead(node, "x", "d", tenant="t")
        dead = node.scheduler.dead_letters
        first = await dead(TYPE, None, 2, "")
        assert [each.key.object_id for each in first] == ["a", "b"]
        second = await dead(TYPE, first[-1].key, 2, "")
        assert [each.key.object_id for each in second] == ["c"]
        assert [each.key.object_id for each in await dead(TYPE, None, 2, "t")] == ["d"]
        assert await dead("Other", None, 2, "") == []

    async def test_a_revived_dead_letter_is_due_at_once_with_all_its_attempts(
        self, node: Node
    ) -> None:
        await self.make_dead(node, "x")
        node.destination.fail("x", 1)
        assert await node.scheduler.revive(alarm_key("x")) is True
        assert await node.dead() == []
        await self.until_late()
        assert node.attempts == [1]
        await self.until_late(1)
        assert node.attempts == [1, 2]
        assert await node.dead() == []
        assert await node.listed() == []

    async def test_only_dead_letters_are_revived(self, node: Node) -> None:
        await self.make_dead(node, "x")
        await node.set("y", 1000)
        assert await node.scheduler.revive(alarm_key("y")) is False
        assert await node.scheduler.revive(alarm_key("x", "b")) is False
        assert await node.scheduler.revive(alarm_key("x", tenant="t")) is False
        assert await node.scheduler.revive(alarm_key("x")) is True
        assert await node.scheduler.revive(alarm_key("x")) is False
        await self.until_late()
        assert node.names == ["x"]

    async def test_a_dead_letter_is_cancelled(self, node: Node) -> None:
        await self.make_dead(node, "x")
        await self.make_dead(node, "y")
        await node.scheduler.cancel(ObjectKey(TYPE, "a"), "x")
        assert await node.dead() == ["y"]
        await node.commit(AlarmChanges(clear=True))
        assert await node.dead() == []

    async def test_a_dead_letter_that_is_set_again_is_an_alarm(self, node: Node) -> None:
        await self.make_dead(node, "x")
        await node.set("x", 1)
        assert await node.dead() == []
        await self.until_late(1)
        assert node.attempts == [1]
