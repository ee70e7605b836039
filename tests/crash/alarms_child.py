"""A process that is meant to be killed while alarms fire.

    python alarms_child.py PATH BACKEND RUN
    python alarms_child.py PATH BACKEND last

Tickers have an alarm that sets itself again every few milliseconds. Ledgers have single ones, that
callers set through a handler or from outside; each carries a token, which its handler notes. Some
fail at first, some are cancelled or set anew about when they are due. Callers say on standard
output what they do and what they were told, each line at once and unbuffered:

    ? TOKEN LEDGER          the alarm is going to be set
    ! TOKEN LEDGER          it is going to be set in a turn that fails
    = TOKEN LEDGER          it was set
    x TOKEN LEDGER TIMES    it was cancelled or set anew, and had fired so many times by then

It runs until it is killed. The last one sets nothing: it lets the tickers come to their end, waits
until nothing is left to fire, says ``done`` and exits.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import anyio
import attrs

from trio_durable import Alarm, DurableObject, DurableRuntime, Retry, alarm, handler

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CALLERS = 8
TICKERS = 24
LEDGERS = 6
"""For each run: what the runs before it have set comes due in theirs."""
DELAYS = [0, 0.002, 0.005, 0.02, 0.1, 0.6, 2]
"""Some of which end when the process is dead."""
SOON = Retry(initial=0.01, maximum=0.05)


@attrs.frozen
class Order:
    token: str
    failures: int = 0


class NotYet(Exception):
    """What handlers raise at first."""


def microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


class Ticker(DurableObject, call_timeout=60):
    """Its n-th tick, from 0, is due n intervals after the start; ``wrong`` is what was not so."""

    start: int = 0
    interval: int = 0
    count: int = 0
    """How many ticks there were, all in microseconds else."""
    limit: int | None = None
    """The tick that is due then or later is the last one."""
    wrong: list[str] = attrs.field(factory=list)

    @handler
    def begin(self, interval: int) -> None:
        if not self.interval:
            self.start = time.time_ns() // 1000
            self.interval = interval
            self.schedule_next()

    @handler
    def end(self) -> None:
        # It need not catch up with all that it has missed.
        near = self.start + (self.count + 100) * self.interval
        self.limit = min(time.time_ns() // 1000, near)

    def schedule_next(self) -> None:
        due_at = EPOCH + timedelta(microseconds=self.start + self.count * self.interval)
        self.ctx.schedule_alarm("tick", at=due_at, payload=self.count)

    @alarm(retry=SOON)
    def tick(self) -> None:
        alarm = self.ctx.alarm
        assert alarm is not None
        due_at, now = microseconds(alarm.due_at), time.time_ns() // 1000
        expected = (self.count, self.start + self.count * self.interval)
        if (alarm.payload, due_at) != expected or now < due_at:
            self.wrong.append(f"{alarm.payload} due at {due_at}, not {expected}; it is {now}")
        if self.count % 7 == 3 and alarm.attempt == 1:
            raise NotYet
        self.count += 1
        if self.limit is None or due_at < self.limit:
            self.ctx.schedule_alarm(
                "tick",
                at=alarm.due_at + timedelta(microseconds=self.interval),
                payload=self.count,
            )


class Ledger(DurableObject, call_timeout=60):
    """What its turns have set, and what has fired."""

    planned: list[str] = attrs.field(factory=list)
    fired: list[str] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)

    @handler
    def plan(self, token: str, delay: float, failures: int) -> None:
        self.planned.append(token)
        name = "trying" if failures else token
        self.ctx.schedule_alarm(name, after=delay, payload=Order(token, failures))

    @handler
    async def plan_twice(self, token: str, delay: float) -> None:
        """Two commits in one turn, each of which may be the last one."""
        for part in "ab":
            self.planned.append(f"{token}{part}")
            await anyio.lowlevel.checkpoint()
            self.ctx.schedule_alarm(f"{token}{part}", after=delay, payload=Order(f"{token}{part}"))
            await self.ctx.commit()

    @handler
    def plan_and_fail(self, token: str) -> None:
        self.planned.append(token)
        self.ctx.schedule_alarm(token, after=0, payload=Order(token))
        raise NotYet

    @handler(readonly=True)
    def times_fired(self, token: str) -> int:
        return self.fired.count(token)

    async def handle_alarm(self, alarm: Alarm) -> None:
        self.note(alarm)
        await anyio.lowlevel.checkpoint()

    @alarm(retry=SOON)
    def trying(self) -> None:
        assert self.ctx.alarm is not None
        self.note(self.ctx.alarm)

    def note(self, alarm: Alarm) -> None:
        order = alarm.payload_as(Order)
        if time.time_ns() // 1000 < microseconds(alarm.due_at):
            self.wrong.append(order.token)
        self.fired.append(order.token)
        if alarm.attempt <= order.failures:
            raise NotYet


def say(*words: object) -> None:
    # One write: a kill leaves the line wholly or not at all.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def caller(runtime: DurableRuntime, run: str, number: int) -> None:
    for n in itertools.count():
        token = f"{run}.{number}.{n}"
        object_id = f"{run}.{(number + n) % LEDGERS}"
        delay = DELAYS[(3 * number + n) % len(DELAYS)]
        kind, failures = (number + n) % 6, n % 3
        if kind in (0, 1) and failures:
            object_id = token  # has the one name that is tried again soon
        ledger = runtime.get(Ledger, object_id)
        match kind:
            case 0:
                say("?", token, object_id)
                await ledger.plan(token, delay, failures)
                say("=", token, object_id)
            case 1:
                name, order = "trying" if failures else token, Order(token, failures)
                say("?", token, object_id)
                await runtime.schedule_alarm(Ledger, object_id, name, after=delay, payload=order)
                say("=", token, object_id)
            case 2:
                say("?", f"{token}a", object_id)
                say("?", f"{token}b", object_id)
                await ledger.plan_twice(token, delay)
                say("=", f"{token}a", object_id)
                say("=", f"{token}b", object_id)
            case 3:
                say("!", token, object_id)
                with contextlib.suppress(NotYet):
                    await ledger.plan_and_fail(token)
            case _:
                # Withdrawn just before, or just after it is due.
                say("?", f"{token}a", object_id)
                order = Order(f"{token}a")
                await runtime.schedule_alarm(Ledger, object_id, token, after=delay, payload=order)
                await anyio.sleep(min(delay, 0.02) * (0.8 + n % 5 / 10))
                if kind == 4:
                    await runtime.cancel_alarm(Ledger, object_id, token)
                else:
                    say("?", f"{token}b", object_id)
                    order = Order(f"{token}b")
                    await runtime.schedule_alarm(Ledger, object_id, token, after=0, payload=order)
                    say("=", f"{token}b", object_id)
                say("x", f"{token}a", object_id, await ledger.times_fired(f"{token}a"))


async def work(runtime: DurableRuntime, run: str) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(TICKERS):
            await runtime.get(Ticker, f"ticker {number}").begin(10_000 + 1000 * number)
        for number in range(CALLERS):
            tasks.start_soon(caller, runtime, run, number)


async def come_to_an_end(runtime: DurableRuntime, path: str) -> None:
    for object_id in await runtime.list_objects(Ticker):
        await runtime.get(Ticker, object_id).end()
    # Not through the runtime: who has an alarm and no state yet is in no list of objects.
    with closing(sqlite3.connect(path)) as connection, anyio.fail_after(60):
        while connection.execute("SELECT count(*) FROM durable_alarms").fetchone() != (0,):
            await anyio.sleep(0.01)
    say("done")


async def main(path: str, run: str) -> None:
    async with DurableRuntime(path, objects=[Ticker, Ledger]) as runtime:
        if run == "last":
            await come_to_an_end(runtime, path)
        else:
            await work(runtime, run)


if __name__ == "__main__":
    # Failures of alarms are part of it; the parent takes what else is on standard error as one.
    logging.getLogger("trio_durable.alarms").disabled = True
    anyio.run(main, sys.argv[1], sys.argv[3], backend=sys.argv[2])
