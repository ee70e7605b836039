"""Objects whose replies tell what was there before, so that lost and repeated changes show."""

from __future__ import annotations

import anyio
import attrs

from trio_durable import Alarm, DurableObject, handler

Place = tuple[int, list[str]]
"""The length of a list, and its last name, if there is one."""


class Refused(Exception):
    """Raised by a handler that has changed its object; it says what was there before."""


class Ledger(DurableObject, name="ChaosLedger"):
    """A list of names, each of which is to be there once."""

    names: list[str] = attrs.field(factory=list)

    @handler
    def append(self, name: str) -> Place:
        before = self.names[-1:]
        self.names.append(name)
        return len(self.names), before

    @handler
    async def append_slowly(self, name: str, seconds: float) -> Place:
        await anyio.sleep(seconds)
        return self.append.function(name)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.names

    @handler(readonly=True)
    async def read_slowly(self, seconds: float) -> list[str]:
        await anyio.sleep(seconds)
        return self.names

    @handler
    def refuse(self, name: str) -> None:
        before = len(self.names), self.names[-1:]
        self.names.append(name)
        raise Refused(before)

    @handler
    async def refuse_slowly(self, name: str, seconds: float) -> None:
        before = len(self.names), self.names[-1:]
        self.names.append(name)
        await anyio.sleep(seconds)
        raise Refused(before)

    @handler
    async def relay(self, name: str, other: str) -> tuple[Place, Place]:
        """Append here, and to another ledger in a turn of its own."""
        there = await self.ctx.runtime.get(Ledger, other).append(name)
        return self.append.function(name), there

    @handler
    def arm(self, name: str, seconds: float) -> None:
        """Append a name later."""
        self.ctx.schedule_alarm(name, after=seconds)

    def handle_alarm(self, alarm: Alarm) -> None:
        self.names.append(alarm.name)


class Register(DurableObject, name="ChaosRegister"):
    """A text."""

    value: str = ""

    @handler
    def write(self, value: str) -> str:
        before, self.value = self.value, value
        return before

    @handler
    async def write_slowly(self, value: str, seconds: float) -> str:
        await anyio.sleep(seconds)
        return self.write.function(value)

    @handler(readonly=True)
    def read(self) -> str:
        return self.value

    @handler(readonly=True)
    async def read_slowly(self, seconds: float) -> str:
        await anyio.sleep(seconds)
        return self.value

    @handler
    def refuse(self, value: str) -> None:
        before, self.value = self.value, value
        raise Refused(before)


class Counter(DurableObject, name="ChaosCounter"):
    """A number."""

    total: int = 0

    @handler
    def add(self, number: int) -> int:
        self.total += number
        return self.total

    @handler
    async def add_slowly(self, number: int, seconds: float) -> int:
        await anyio.sleep(seconds)
        return self.add.function(number)

    @handler(readonly=True)
    def read(self) -> int:
        return self.total

    @handler
    async def refuse(self, number: int) -> None:
        before = self.total
        self.total += number
        raise Refused(before)
