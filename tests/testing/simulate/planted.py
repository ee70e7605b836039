"""Bugs that tests of single turns don't find, and the invariants that they break."""

from __future__ import annotations

import sys

from hypothesis.stateful import invariant

from trio_durable import Alarm, DurableObject, handler
from trio_durable.testing.simulate import Simulation, outside


async def publish(object_id: str, number: int) -> None:
    """Stands for an index outside, which keeps the last number of each object."""
    raise NotImplementedError


async def post_letter(object_id: str) -> None:
    """Stands for the mail, which sends each letter that it gets."""
    raise NotImplementedError


# --- dual write ----------------------------------------------------------------------------------


class Listing(DurableObject, name="planted.Listing"):
    """Writes to an index and to its state, and each may be written without the other."""

    number: int = 0

    @handler
    async def add(self) -> None:
        self.number += 1
        await publish(self.ctx.object_id, self.number)


class DualWrite(Simulation):
    objects = (Listing,)

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        super().__init__()

    @outside(sys.modules[__name__], "publish")
    async def publish(self, object_id: str, number: int) -> None:
        self.index[object_id] = number

    @invariant()
    def nothing_is_published_that_is_not_stored(self) -> None:
        stored = {name: listing.number for name, listing in self.stored(Listing).items()}
        assert all(number <= stored.get(name, 0) for name, number in self.index.items())


# --- check after await ---------------------------------------------------------------------------


class Stock(DurableObject, name="planted.Stock"):
    left: int = 2

    @handler(readonly=True)
    def has_any(self) -> bool:
        return self.left > 0

    @handler
    def take(self) -> None:
        self.left -= 1


class Basket(DurableObject, name="planted.Basket"):
    """Looks whether there is some, and takes it when another may have taken it meanwhile."""

    taken: int = 0

    @handler
    async def fill(self) -> None:
        stock = self.ctx.runtime.get(Stock, "tea")
        if await stock.has_any():
            await stock.take()
            self.taken += 1


class CheckAfterAwait(Simulation):
    objects = (Basket, Stock)
    left_out = ("Stock.take", "Stock.has_any")

    @invariant()
    def no_stock_is_negative(self) -> None:
        assert all(stock.left >= 0 for stock in self.stored(Stock).values())


# --- an alarm that isn't idempotent --------------------------------------------------------------


class Reminder(DurableObject, name="planted.Reminder"):
    """Sends a letter in an alarm, which fires again if the process dies before the commit."""

    asked: int = 0

    @handler
    def remind(self) -> None:
        self.asked += 1
        self.ctx.schedule_alarm(f"send {self.asked}", after=60)

    async def handle_alarm(self, alarm: Alarm) -> None:
        await post_letter(self.ctx.object_id)


class AlarmTwice(Simulation):
    objects = (Reminder,)
    delays = (60,)

    def __init__(self) -> None:
        self.letters: list[str] = []
        super().__init__()

    @outside(sys.modules[__name__], "post_letter")
    async def post_letter(self, object_id: str) -> None:
        self.letters.append(object_id)

    @invariant()
    def no_more_letters_than_reminders(self) -> None:
        for name, reminder in self.stored(Reminder).items():
            assert self.letters.count(name) <= reminder.asked


# --- stale read after a hand-over ----------------------------------------------------------------


class Feed(DurableObject, name="planted.Feed"):
    """Publishes what it has in memory, which a newer owner may have changed and published."""

    number: int = 0

    @handler
    async def add(self) -> None:
        self.number += 1
        await self.ctx.commit()
        await publish(self.ctx.object_id, self.number)


class StaleRead(Simulation):
    objects = (Feed,)
    second_owners = True

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.went_back: list[tuple[str, int]] = []
        super().__init__()

    @outside(sys.modules[__name__], "publish")
    async def publish(self, object_id: str, number: int) -> None:
        if number < self.index.get(object_id, 0):
            self.went_back.append((object_id, number))
        self.index[object_id] = number

    @invariant()
    def the_index_never_goes_back(self) -> None:
        assert not self.went_back
