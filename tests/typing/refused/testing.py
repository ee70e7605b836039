"""What the testing kit doesn't take."""

from __future__ import annotations

from trio_durable import DurableObject, DurableRuntime
from trio_durable.testing import (
    assert_alarm_scheduled,
    assert_eventually,
    assert_persisted,
    drain_alarms,
    fire_alarm,
    get_persisted_state,
    perform_alarm_handler,
    perform_handler,
)


class Counter(DurableObject):
    count: int = 0


def use(*things: object) -> None:
    pass


async def turns() -> None:
    await perform_handler(Counter, "add")  # refused
    await perform_handler("Counter", "add")  # refused
    await perform_handler(Counter(), 5)  # refused
    await perform_handler(Counter(), "add", object_id=5)  # refused
    turn = await perform_handler(Counter(), "add")
    result: int = turn.result  # refused
    turn.state = Counter()  # refused
    await perform_alarm_handler(Counter(), "ring", due_at=5)  # refused
    await perform_alarm_handler(Counter(), "ring", "payload")  # refused
    use(result)


async def objects(runtime: DurableRuntime) -> None:
    await assert_persisted(runtime, Counter)  # refused
    await assert_persisted(runtime, int, "a")  # refused
    state: Counter = await get_persisted_state(runtime, Counter, "a")  # refused
    await assert_alarm_scheduled(runtime, Counter, "a", "ring", within="1")  # refused
    await assert_alarm_scheduled(runtime, Counter, "a", "ring", 5)  # refused
    await fire_alarm(runtime, Counter, "a")  # refused
    await drain_alarms(runtime, Counter, "a", 5)  # refused
    await assert_eventually(True)  # refused
    use(state)
