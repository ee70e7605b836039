"""What the kit is tried on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import attrs

from trio_durable import Alarm, DurableObject, Retry, alarm, handler

scripts: dict[str, Callable[[Any], Any]] = {}
"""What `Tally.do`, `Tally.do_slowly` and alarms of other names than the methods' do."""


class Tally(DurableObject, name="testing.Tally"):
    count: int = 0
    log: list[str] = attrs.field(factory=list)

    @handler
    def add(self, by: int = 1) -> int:
        self.count += by
        return self.count

    @handler
    async def add_slowly(self, by: int = 1) -> int:
        self.count += by
        await anyio.sleep(1)
        self.ctx.schedule_alarm("later", after=60)
        return self.count

    @handler(readonly=True)
    def entries(self) -> list[str]:
        return self.log

    @handler
    def keep(self, entries: list[str]) -> list[str]:
        self.log = entries
        return entries

    @handler
    def link(self, object_id: str = "") -> str:
        return f"{self.ctx.object_id} to {object_id}"

    @handler
    def do(self, what: str) -> object:
        return scripts[what](self)

    @handler(readonly=True)
    def look(self, what: str) -> object:
        return scripts[what](self)

    @handler
    async def do_slowly(self, what: str) -> object:
        result = scripts[what](self)
        return await result if isinstance(result, Awaitable) else result

    @alarm
    def ring(self) -> None:
        self.log.append("ring")

    @alarm(retry=Retry(initial=10, factor=1, attempts=2))
    async def fail(self) -> None:
        self.log.append("lost")
        await anyio.lowlevel.checkpoint()
        raise KeyError("on purpose")

    @alarm
    def repeat(self) -> None:
        self.count += 1
        self.ctx.schedule_alarm("repeat", after=timedelta(hours=1))

    async def handle_alarm(self, alarm: Alarm) -> None:
        self.log.append(alarm.name)
        script = scripts.get(alarm.name)
        result = None if script is None else script(self)
        if isinstance(result, Awaitable):
            await result


class Plain(DurableObject, name="testing.Plain"):
    """Has no catch-all."""

    rung: int = 0

    @alarm
    def ring(self) -> None:
        self.rung += 1
