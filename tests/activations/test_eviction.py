"""Making room: its cost for each newcomer, however many objects are busy."""

from __future__ import annotations

from collections import deque

import pytest

from trio_durable._activations.eviction import NEVER, ResidentSet
from trio_durable._eventloop.running import running_loop

pytestmark = pytest.mark.anyio


class Objects:
    """The objects of one type, with the first ``busy`` ones busy for ever."""

    def __init__(self, residents: ResidentSet, busy: int) -> None:
        self.residents = residents
        self.busy = busy
        self.looks = 0
        self.order: deque[int] = deque()
        residents.add(self)

    def enter(self, number: int) -> None:
        self.residents.enter(NEVER)
        self.order.append(number)

    def retire(self, now: float) -> float:
        return NEVER

    def oldest_use(self) -> float:
        return float(self.order[0]) if self.order else NEVER

    def evict_oldest(self, now: float) -> bool:
        self.looks += 1
        number = self.order.popleft()
        if number < self.busy:
            self.order.append(number)
            return False
        self.residents.leave()
        return True


@pytest.mark.parametrize("busy", [0, 500, 990, 5_000])
async def test_the_work_for_a_newcomer_is_constant(busy: int) -> None:
    objects = Objects(ResidentSet(running_loop(), max_resident=1_000), busy)
    for number in range(5_000):
        objects.enter(number)
    assert objects.looks <= 16 * 5_000


@pytest.mark.parametrize("busy", [0, 63, 64, 500, 900, 999])
async def test_idle_objects_that_are_too_many_leave(busy: int) -> None:
    objects = Objects(ResidentSet(running_loop(), max_resident=1_000), busy)
    for number in range(5_000):
        objects.enter(number)
        assert objects.residents.count <= 1_000 + busy // 15
