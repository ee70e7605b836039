"""Exceptions that are answers, and alarms that were superseded: no failures to instruments."""

from __future__ import annotations

import logging
from contextlib import suppress

import anyio
import pytest
from support.scripted import ScriptedStorage

from trio_durable import (
    DurableObject,
    DurableRuntime,
    PersistenceError,
    StorageError,
    alarm,
    handler,
)
from trio_durable.storage import StorageFault
from trio_durable.telemetry import AlarmDelivery, Call, Instrument, LoggingInstrument, Timed, Turn
from trio_durable.telemetry import is_failure as is_failure_

pytestmark = pytest.mark.anyio


class Refusal(Exception):
    """An answer of all handlers."""


class TooLow(Exception):
    """An answer of one."""


class MuchTooLow(TooLow):
    pass


class Auction(DurableObject, expected=Refusal):
    highest: int = 0
    rings: int = 0

    @handler(expected=(TooLow, StorageError))
    def bid(self, amount: int) -> None:
        if amount < 0:
            raise MuchTooLow("a negative bid")
        if amount <= self.highest:
            raise TooLow(f"{amount} isn't above {self.highest}")
        self.highest = amount

    @handler(expected=TooLow)
    async def bid_slowly(self, amount: int) -> None:
        await anyio.sleep(2)
        self.bid.function(amount)

    @handler
    def refuse(self, *, too_low: bool = False) -> None:
        raise TooLow if too_low else Refusal

    @handler
    async def pass_on(self) -> None:
        await Auction.bid("other", 0)

    @alarm
    async def ring(self) -> None:
        await anyio.sleep(1)
        self.rings += 1


class SubAuction(Auction, expected=()):
    pass


class Failures(Instrument):
    """The failures that an instrument sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.ended = 0

    def on_exception(self, event: Timed, duration: float, error: BaseException) -> None:
        self.ended += 1
        if is_failure_(event, error) and isinstance(event, (Call, Turn, AlarmDelivery)):
            name = event.name if isinstance(event, AlarmDelivery) else event.handler
            self.seen.append((type(event).__name__, name))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_expected_exception_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_durable.telemetry")
    failures = Failures()
    instruments = [LoggingInstrument(), failures]
    async with DurableRuntime(":memory:", instruments=instruments):
        await Auction.bid("a", 2)
        for amount in (1, -1):
            with pytest.raises(TooLow):
                await Auction.bid("a", amount)
        with pytest.raises(Refusal):
            await Auction.refuse("a")
    assert failures.ended == 6
    assert failures.seen == []
    assert warnings(caplog) == []
    told = [record for record in caplog.records if " raised after " in record.message]
    assert len(told) == 6
    assert {record.levelno for record in told} == {logging.DEBUG}
    assert not any(record.exc_info for record in told)
    assert told[0].message.startswith("turn bid of Auction('a') raised after ")
    assert told[0].message.endswith(": TooLow: 1 isn't above 2")


async def test_other_exceptions_of_the_same_handlers_are_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = Failures()
    async with DurableRuntime(":memory:", instruments=[LoggingInstrument(), failures]) as runtime:
        with pytest.raises(TooLow):
            await Auction.refuse("a", too_low=True)
        with pytest.raises(TooLow):
            await Auction.pass_on("a")  # what the callee expects, its caller may not
        with pytest.raises(Refusal):
            await runtime.get(SubAuction, "a").refuse()
    assert failures.seen == [
        *(("Turn", "refuse"), ("Call", "refuse")),
        *(("Turn", "pass_on"), ("Call", "pass_on")),
        *(("Turn", "refuse"), ("Call", "refuse")),
    ]
    assert len(warnings(caplog)) == 3


async def test_a_failure_of_the_storage_is_never_an_answer() -> None:
    storage, failures = ScriptedStorage(), Failures()
    async with DurableRuntime(storage, runner=storage.runner, instruments=[failures]):
        storage.fail_commits(StorageFault("the disk is full"))
        with pytest.raises(PersistenceError):
            await Auction.bid("a", 1)
    assert failures.seen == [("Call", "bid")]


async def test_a_slow_turn_with_an_expected_exception_is_slow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with DurableRuntime(":memory:", instruments=[LoggingInstrument()]):
        with pytest.raises(TooLow):
            await Auction.bid_slowly("a", 0)
    [line] = warnings(caplog)
    assert line.startswith(
        "turn bid_slowly of Auction('a') raised after 2 s, which is slow: TooLow"
    )


async def test_a_superseded_alarm_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures()
    instruments = [LoggingInstrument(slow=None), failures]
    async with DurableRuntime(":memory:", instruments=instruments) as runtime:
        await runtime.schedule_alarm(Auction, "a", "ring", after=1)
        await anyio.sleep(1.5)
        await runtime.schedule_alarm(Auction, "a", "ring", after=60)
        await anyio.sleep(5)
        assert (await runtime.get_state(Auction, "a")).rings == 0
        await anyio.sleep(60)
        assert (await runtime.get_state(Auction, "a")).rings == 1
    assert failures.ended > 0
    assert failures.seen == []
    assert warnings(caplog) == []


async def test_a_cancellation_is_no_failure() -> None:
    failures = Failures()
    async with DurableRuntime(":memory:", instruments=[failures]):
        with anyio.move_on_after(1):
            await Auction.bid_slowly("a", 1)
        with suppress(TooLow):
            await Auction.bid_slowly("a", 0)
    assert failures.ended == 3
    assert failures.seen == []
