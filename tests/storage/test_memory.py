"""Storage in memory: the cost of a page of due alarms."""

from __future__ import annotations

import pytest

from trio_durable import ObjectKey
from trio_durable._keys import AlarmKey
from trio_durable.storage import AlarmChanges, DueAlarm, NewAlarm
from trio_durable.storage._memory_alarms import Alarms


@pytest.mark.parametrize("every", [1, 3])
def test_a_page_of_due_alarms_looks_at_no_more_than_it_returns_and_skips(every: int) -> None:
    alarms = Alarms()
    names = [f"{number:04}" for number in range(1_000)]
    alarms.apply(
        ObjectKey("Bell", "a"),
        AlarmChanges(changed={name: NewAlarm(int(name) // 2, None) for name in names}),
        0,
    )
    found: list[str] = []
    looks = 0

    def matches(key: AlarmKey) -> bool:
        nonlocal looks
        looks += 1
        return int(key.name) % every == 0

    last: DueAlarm | None = None
    while page := alarms.due(300, last, 10, matches):
        assert looks <= 10 * every + 10
        looks = 0
        found += (alarm.key.name for alarm in page)
        last = page[-1]
    assert found == [name for name in names[:600] if int(name) % every == 0]
