"""States that are upgraded while messages wait for their objects, and alarms of theirs recur."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from trio_durable import (
    DurableObject,
    DurableRuntime,
    InlineRunner,
    ObjectKey,
    Retry,
    SQLiteStorage,
    alarm,
    handler,
    upgrade,
)

from .stored_data import everything, save, writer_of
from .support import run

pytestmark = pytest.mark.anyio

HOUR = 3600


class NotToday(Exception):
    """The older release takes nothing."""


class OldTill(DurableObject, name="cli.Till"):
    coins: int = 0

    @handler
    def earn(self) -> None:
        self.coins += 1

    @handler(retry=Retry(initial=600))
    def take(self, number: int) -> None:
        raise NotToday

    @handler(expected=(NotToday,))
    def owe(self, number: int) -> None:
        raise NotToday

    @alarm(every=HOUR, autostart=True)
    def count(self) -> None:
        pass


class Till(DurableObject, name="cli.Till", schema=2):
    cents: int = 0
    taken: list[int] = attrs.field(factory=list)
    counted: list[float] = attrs.field(factory=list)

    @upgrade(from_schema=1)
    @staticmethod
    def count_cents(state: dict[str, Any]) -> dict[str, Any]:
        return {"cents": state["coins"] * 100}

    @handler
    def take(self, number: int) -> None:
        self.taken.append(number)

    @handler
    def owe(self, number: int) -> None:
        self.taken.append(number)

    @alarm(every=HOUR, autostart=True)
    def count(self) -> None:
        current = self.ctx.alarm
        assert current is not None
        self.counted.append(current.due_at.timestamp())


class Payer(DurableObject, name="cli.Payer"):
    @handler
    def pay(self, numbers: list[int]) -> None:
        for number in numbers:
            self.ctx.send(OldTill.take, "t", number)

    @handler
    def pay_later(self, number: int) -> None:
        self.ctx.outgoing(after=2 * HOUR).send(OldTill.take, "t", number)


def runtime_of(*objects: type[DurableObject]) -> DurableRuntime:
    return DurableRuntime(SQLiteStorage("app.db"), objects=objects, runner=InlineRunner)


def mail_and_alarms() -> tuple[object, ...]:
    """All that is stored but the objects."""
    with closing(SQLiteStorage("app.db").open_reader()) as reader:
        waiting = reader.list_messages(None, None, None, 100)
        dead = reader.list_dead_messages(None, 0, 100)
    assert (len(waiting), len(dead)) == (4, 2)
    return waiting, dead, everything(Path("app.db"))[1]


@pytest.mark.parametrize("by", ["command", "runtime"])
async def test_messages_and_recurring_alarms_outlive_an_upgrade(by: str, folder: Path) -> None:
    async with runtime_of(OldTill, Payer) as old:
        await old.get(OldTill, "t").earn()
        await old.get(Payer, "p").pay([1, 2, 3])
        await old.get(Payer, "p").pay_later(4)
        for number in (8, 9):
            await old.send(OldTill.owe, "t", number)
        await old.settled(OldTill, "t")
        [recurring] = await old.list_alarms(OldTill, "t")
    before = mail_and_alarms()
    if by == "command":
        result = run("migrate-states", "-s", "app.db", "--app", f"{__name__}:Till")
        assert result.stdout == "cli.Till: 1 state upgraded to schema 2, 0 had it already.\n"
        assert mail_and_alarms() == before
    async with runtime_of(Till) as new:
        await anyio.sleep(700)
        till = await new.get_state(Till, "t")
        assert (till.cents, till.taken) == (100, [1, 2, 3])
        assert await new.retry_messages(Till) == 2
        await anyio.sleep(2.5 * HOUR)
        till = await new.get_state(Till, "t")
        assert till.taken == [1, 2, 3, 8, 9, 4]
        first = recurring.due_at.timestamp()
        assert till.counted == [first, first + HOUR]
        [recurring] = await new.list_alarms(Till, "t")
        assert recurring.due_at.timestamp() == first + 2 * HOUR


async def test_a_message_waits_until_its_receiver_can_be_upgraded(folder: Path) -> None:
    async with runtime_of(OldTill, Payer) as old:
        await old.get(Payer, "p").pay([1, 2])
    with writer_of(Path("app.db")) as writer:
        save(writer, ObjectKey("cli.Till", "t"), {"coins": "none"})
    async with runtime_of(Till) as new:
        await anyio.sleep(700)
        first, second = await new.list_messages(Till)
        assert "cli.Till" in str(first.last_error)
        assert (first.failures, second.failures, second.last_error) == (0, 0, None)
    with writer_of(Path("app.db")) as writer:
        save(writer, ObjectKey("cli.Till", "t"), {"coins": 2}, revision=1)
    async with runtime_of(Till) as new:
        await anyio.sleep(700)
        till = await new.get_state(Till, "t")
        assert (till.cents, till.taken) == (200, [1, 2])
