"""The testing kit: what it takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import assert_type

from trio_durable import Alarm, DurableObject, DurableRuntime, alarm, handler
from trio_durable.testing import (
    Performed,
    all_scheduled_alarms,
    assert_alarm_scheduled,
    assert_eventually,
    assert_persisted,
    drain_alarms,
    fire_alarm,
    get_persisted_state,
    perform_alarm_handler,
    perform_handler,
    refute_alarm_scheduled,
)


class Counter(DurableObject):
    count: int = 0

    @handler
    def add(self, by: int = 1) -> int:
        self.count += by
        return self.count

    @alarm
    def ring(self) -> None:
        self.count += 1


async def turns() -> None:
    turn = await perform_handler(Counter(count=1), "add", 2, object_id="a")
    assert_type(turn, Performed[Counter])
    assert_type(turn.result, object)
    assert_type(turn.state, Counter)
    assert_type(turn.state.count, int)
    assert_type(turn.alarms, Mapping[str, Alarm])
    assert_type(turn.cancelled, frozenset[str])
    assert_type(turn.began_at, datetime)
    turn = await perform_handler(turn.state, "add", by=2)
    turn = await perform_alarm_handler(
        turn.state, "ring", payload=[1], due_at=datetime.now(UTC), attempt=2, object_id="a"
    )


async def objects(runtime: DurableRuntime) -> None:
    await assert_persisted(runtime, Counter, "a", count=1)
    await assert_persisted(runtime, "Counter", "a")
    assert_type(await get_persisted_state(runtime, Counter, "a"), Counter | None)
    assert_type(await get_persisted_state(runtime, "Counter", "a"), DurableObject | None)
    found = await assert_alarm_scheduled(runtime, Counter, "a", "ring", within=timedelta(1))
    assert_type(found, Alarm)
    await refute_alarm_scheduled(runtime, Counter, "a", "ring", within=0.5)
    assert_type(await all_scheduled_alarms(runtime, Counter, "a"), list[Alarm])
    await fire_alarm(runtime, Counter, "a", "ring")
    assert_type(await drain_alarms(runtime, "Counter", "a", max_iterations=3), int)

    async def holds() -> bool:
        return True

    await assert_eventually(holds, timeout=timedelta(seconds=1))
    await assert_eventually(lambda: True, interval=1)
