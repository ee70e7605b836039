"""What the tests of telemetry call."""

from __future__ import annotations

from datetime import timedelta

import anyio

from trio_durable import Alarm, DurableObject, Retry, alarm, handler


class Wrong(Exception):
    """What handlers raise."""


class Counter(DurableObject, hibernate_after=10, shutdown_after=100):
    count: int = 0

    @handler
    def add(self, by: int = 1) -> int:
        self.count += by
        return self.count

    @handler
    async def add_slowly(self, seconds: float = 1) -> int:
        await anyio.sleep(seconds)
        self.count += 1
        return self.count

    @handler
    async def add_twice(self) -> int:
        self.count += 1
        await self.ctx.commit()
        self.count += 1
        return self.count

    @handler(readonly=True)
    def value(self) -> int:
        return self.count

    @handler
    def fail(self) -> None:
        self.count += 1
        raise Wrong("def")

    @handler
    async def fail_slowly(self, seconds: float = 1) -> None:
        await anyio.sleep(seconds)
        raise Wrong("async")

    @handler
    def fail_silently(self) -> None:
        raise Wrong

    @handler
    def forget(self) -> None:
        self.ctx.delete()

    @handler
    async def add_to(self, other: str) -> int:
        return await Counter.add(other)

    @handler
    def plan(self, name: str, after: float) -> None:
        self.ctx.schedule_alarm(name, after=after)

    @alarm
    def ring(self) -> None:
        self.count += 1

    @alarm
    async def ring_slowly(self) -> None:
        await anyio.sleep(1)
        self.count += 1

    @alarm(retry=Retry(initial=2, factor=1, attempts=2))
    def ring_in_vain(self) -> None:
        raise Wrong("alarm")

    def handle_alarm(self, alarm: Alarm) -> None:
        self.count += 1


class Welcoming(DurableObject):
    greeted: bool = False

    def after_load(self) -> None:
        self.greeted = True

    @handler(readonly=True)
    def is_greeted(self) -> bool:
        return self.greeted


class SlowlyWelcoming(DurableObject):
    greeted: bool = False

    async def after_load(self) -> None:
        await anyio.sleep(1)
        self.greeted = True

    @handler(readonly=True)
    def is_greeted(self) -> bool:
        return self.greeted


class Unwelcoming(DurableObject):
    def after_load(self) -> None:
        raise Wrong("after_load")

    @handler
    def noop(self) -> None: ...


class SlowlyUnwelcoming(DurableObject):
    async def after_load(self) -> None:
        await anyio.sleep(1)
        raise Wrong("after_load")

    @handler
    def noop(self) -> None: ...


class Lasting(DurableObject, hibernate_after=1e9):
    count: int = 0

    @handler
    def add(self) -> None:
        self.count += 1


class Fleeting(DurableObject, shutdown_after=timedelta(seconds=5)):
    count: int = 0

    @handler
    def add(self) -> None:
        self.count += 1
