"""The objects that are called: of each kind one, with handlers of every sort.

Each handler is given the number of its operation, and says when its turn begins; so a caller that
gives up knows whether it was still queued. Names and numbers that are written are never written
twice, so that whoever sees one knows where it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import anyio
import attrs

from trio_durable import Alarm, DurableObject, Retry, alarm, handler

from .history import Key
from .models import other_name

if TYPE_CHECKING:
    from .world import World

world = cast("World", None)
"""The one that is under way, where handlers find it."""


class Refused(Exception):
    """What handlers raise, with what they saw before they changed anything."""

    def __init__(self, seen: object) -> None:
        super().__init__(f"refused at {seen!r}")
        self.seen = seen


class Register(DurableObject, hibernate_after=1, shutdown_after=4, mailbox_size=3):
    """One value; `RegisterModel`."""

    value: str = ""

    @handler
    def write(self, call: int, value: str) -> str:
        world.history.begins(call)
        before, self.value = self.value, value
        return before

    @handler
    async def write_slowly(self, call: int, value: str) -> str:
        world.history.begins(call)
        before = self.value
        await world.pause()
        self.value = value
        await world.pause()
        return before

    @handler
    def swap(self, call: int, old: str, new: str) -> bool:
        world.history.begins(call)
        if self.value != old:
            return False
        self.value = new
        return True

    @handler(readonly=True)
    def read(self, call: int) -> str:
        world.history.begins(call)
        return self.value

    @handler(readonly=True)
    async def read_slowly(self, call: int) -> str:
        world.history.begins(call)
        await world.pause()
        return self.value

    @handler
    def write_and_fail(self, call: int, value: str) -> None:
        world.history.begins(call)
        before, self.value = self.value, value
        raise Refused(before)

    @handler
    async def write_slowly_and_fail(self, call: int, value: str) -> None:
        world.history.begins(call)
        before, self.value = self.value, value
        await world.pause()
        raise Refused(before)

    @handler(readonly=True)
    def cheat(self, call: int, value: str) -> None:
        world.history.begins(call)
        self.value = value

    @handler
    def erase(self, call: int) -> None:
        world.history.begins(call)
        self.value = "erased"
        self.ctx.delete()


class Counter(DurableObject, hibernate_after=0.5, shutdown_after=2):
    """A total; `CounterModel`."""

    total: int = 0

    @handler
    def add(self, call: int, by: int) -> int:
        world.history.begins(call)
        self.total += by
        return self.total

    @handler
    async def add_slowly(self, call: int, by: int) -> int:
        world.history.begins(call)
        total = self.total
        await world.pause()
        self.total = total + by
        return self.total

    @handler
    async def add_in_two(self, call: int, by: int, fails: bool) -> int:
        """The second half is an operation of its own, as the first is durable without it."""
        world.history.begins(call)
        self.total += by
        world.history.commits(call)
        await self.ctx.commit()
        world.history.divide(call, self.total, "add", by)
        await world.pause()
        before = self.total
        self.total += by
        if fails:
            raise Refused(before)
        return self.total

    @handler(readonly=True)
    def read(self, call: int) -> int:
        world.history.begins(call)
        return self.total


class Ledger(DurableObject, hibernate_after=2, shutdown_after=6):
    """A list of names; `LedgerModel`."""

    names: list[str] = attrs.field(factory=list)

    @handler
    def append(self, call: int, name: str) -> list[object]:
        world.history.begins(call)
        last = self.names[-1:]
        self.names.append(name)
        return [len(self.names), *last]

    @handler(readonly=True)
    def read(self, call: int) -> list[str]:
        world.history.begins(call)
        return self.names

    @handler
    async def forward(self, call: int, name: str, other: str) -> list[object]:
        """What stands here stands there as well, for that was told before."""
        world.history.begins(call)
        last = self.names[-1:]
        self.names.append(name)
        await world.append_at(
            self.ctx.runtime, Key("Ledger", other), f"{name} of {self.ctx.object_id}"
        )
        return [len(self.names), *last]


@attrs.frozen
class Order:
    """The payload of an alarm."""

    token: str
    plan: str
    """What its handler does besides noting the token."""
    failures: int = 0
    """How many attempts fail."""


class Clerk(DurableObject, hibernate_after=1, shutdown_after=3):
    """Notes what its alarms do; `ClerkModel`."""

    fired: list[str] = attrs.field(factory=list)
    attempts: int = 0
    """Of alarms whose handlers commit before their end."""

    def seen(self) -> list[object]:
        return [len(self.fired), *self.fired[-1:]]

    @handler
    def order(self, call: int, name: str, after: float, order: Order) -> list[object]:
        world.orders(call, order.token, after)
        self.ctx.schedule_alarm(name, after=after, payload=order)
        return self.seen()

    @handler
    async def order_slowly(self, call: int, name: str, after: float, order: Order) -> list[object]:
        world.orders(call, order.token, after)
        seen = self.seen()
        self.ctx.schedule_alarm(name, after=after, payload=order)
        await world.pause()
        return seen

    @handler
    async def order_and_fail(self, call: int, name: str, after: float, order: Order) -> None:
        world.orders(call, order.token, after)
        seen = self.seen()
        self.fired.append("never")
        self.ctx.cancel_all_alarms()
        self.ctx.schedule_alarm(name, after=after, payload=order)
        await world.pause()
        raise Refused(seen)

    @handler
    def withdraw(self, call: int, name: str) -> list[object]:
        world.history.begins(call)
        self.ctx.cancel_alarm(name)
        return self.seen()

    @handler(readonly=True)
    def read(self, call: int) -> list[str]:
        world.history.begins(call)
        return self.fired

    @handler
    def erase(self, call: int) -> None:
        world.history.begins(call)
        self.ctx.delete()

    # --- alarms ----------------------------------------------------------------------------------

    def perform(self, alarm: Alarm) -> None:
        """What all handlers do, each plan in one turn."""
        order = alarm.payload_as(Order)
        self.fired.append(order.token)
        match order.plan:
            case "again":
                token = f"{order.token}'"
                plan = "again" if token.count("'") < 3 else "note"
                after = world.reschedule(self.ctx.object_id, alarm.name, token, plan, 1.0)
                self.ctx.schedule_alarm(alarm.name, after=after, payload=Order(token, plan))
            case "withdraw":
                self.ctx.cancel_alarm(other_name(alarm.name))
            case "erase":
                self.ctx.delete()
        if alarm.attempt <= order.failures:
            raise Refused(self.fired)

    @alarm(retry=Retry(initial=0.5, factor=2, maximum=2))
    def quick(self) -> None:
        assert self.ctx.alarm is not None
        world.fires(self.ctx.runtime, self.ctx.alarm)
        self.perform(self.ctx.alarm)

    @alarm(retry=Retry(initial=0.5, factor=2, maximum=2))
    async def slow(self) -> None:
        assert self.ctx.alarm is not None
        world.fires(self.ctx.runtime, self.ctx.alarm)
        await world.pause()
        self.attempts += 1
        # The alarm stays until the turn ends.
        await self.ctx.commit()
        await world.pause()
        self.perform(self.ctx.alarm)
        await anyio.lowlevel.checkpoint()

    async def handle_alarm(self, alarm: Alarm) -> None:
        world.fires(self.ctx.runtime, alarm)
        await world.pause()
        self.perform(alarm)


OBJECTS = [Register, Counter, Ledger, Clerk]
