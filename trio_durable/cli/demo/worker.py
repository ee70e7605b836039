"""The process that the demo kills: accounts and diaries in a `DurableRuntime`.

The demo runs it as ``python -m trio_durable.cli.demo.worker FILE ACCOUNTS DIARIES SECONDS``. It
waits until the overdue alarms have fired, and writes a report: one line of JSON, see
`Objects.report`. Then it serves requests:

- Input is a sequence of words of four bytes. The number of an account requests a deposit. The
  number of a diary with the bit `ALARM` requests an alarm, due at a random time within SECONDS.
- Output is a sequence of pairs: a word from the input, and the latency in microseconds. It
  acknowledges the request: from now on its change must never be lost.

When its input ends, it waits for the last alarms, writes a second report, closes the runtime and
exits.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
from array import array
from datetime import UTC, datetime, timedelta
from time import perf_counter_ns, time

import attrs
import trio

from ... import Alarm, DurableObject, DurableRuntime, handler
from .protocol import ALARM, AMOUNT, CALLS_PER_TASK

MAX_ALARM_DELAY_SECONDS = 10
"""The delay after which an alarm counts as lost."""


class Account(DurableObject):
    """Two fields that disagree if only half of a deposit is stored."""

    deposits: int = 0
    balance: int = 0

    @handler
    def deposit(self) -> None:
        """Deposit AMOUNT."""
        self.deposits += 1
        self.balance += AMOUNT

    @handler
    async def deposit_slowly(self) -> None:
        """Deposit AMOUNT, with a checkpoint at which the process is often killed."""
        self.deposits += 1
        await trio.lowlevel.checkpoint()
        self.balance += AMOUNT

    @handler(readonly=True)
    def totals(self) -> tuple[int, int]:
        """Both fields."""
        return self.deposits, self.balance


@attrs.define
class Reminder:
    """An alarm that was set, and its deliveries, of which there should be one."""

    set_by: int
    """The id of the process that set it."""
    due_at: datetime
    fired: list[tuple[int, datetime]] = attrs.field(factory=list)
    """Process id and time of each delivery."""


class Diary(DurableObject):
    """Sets alarms, and records their deliveries."""

    reminders: list[Reminder] = attrs.field(factory=list)

    @handler
    def remind(self, due_at: datetime) -> None:
        """Set an alarm, and record it in the same commit."""
        number = len(self.reminders)
        self.reminders.append(Reminder(os.getpid(), due_at))
        self.ctx.schedule_alarm(f"reminder {number}", at=due_at, payload=number)

    def handle_alarm(self, alarm: Alarm) -> None:
        """Record the delivery. The same commit removes the alarm."""
        reminder = self.reminders[alarm.payload_as(int)]
        reminder.fired.append((os.getpid(), datetime.now(UTC)))

    @handler(readonly=True)
    def all(self) -> list[Reminder]:
        """All alarms that were set."""
        return self.reminders


class Acknowledgements:
    """Sends acknowledgements to the parent, one write per pass of the event loop."""

    def __init__(self) -> None:
        self._waiting = array("I")
        self._token = trio.lowlevel.current_trio_token()

    def send(self, request: int, microseconds: int) -> None:
        """Acknowledge a request after its change was committed."""
        if not self._waiting:
            self._token.run_sync_soon(self._flush)
        self._waiting.append(request)
        self._waiting.append(microseconds)

    def _flush(self) -> None:
        # This doesn't block: the parent limits the requests in flight so that their
        # acknowledgements fit into the pipe.
        os.write(sys.stdout.fileno(), self._waiting.tobytes())
        self._waiting = array("I")


class Objects:
    """All accounts and diaries."""

    def __init__(self, runtime: DurableRuntime, accounts: int, diaries: int) -> None:
        self.accounts = [runtime.get(Account, f"account-{n}") for n in range(accounts)]
        self.diaries = [runtime.get(Diary, f"diary-{n}") for n in range(diaries)]

    async def wait_for_alarms(self, due_before: float) -> None:
        """Wait until all alarms due before a time have fired or count as lost."""
        began = time()
        while True:
            missing = [
                reminder.due_at.timestamp()
                for diary in self.diaries
                for reminder in await diary.all()
                if not reminder.fired and reminder.due_at.timestamp() < due_before
            ]
            if not missing or time() > max(began, *missing) + MAX_ALARM_DELAY_SECONDS:
                return
            await trio.sleep(0.05)

    async def report(self) -> None:
        """Write one line of JSON with all data.

        Its items are the time, deposits and balance of each account, and the alarms of each diary.
        """
        totals: list[tuple[int, int]] = [(0, 0)] * len(self.accounts)

        async def read(number: int) -> None:
            """Read one account."""
            totals[number] = await self.accounts[number].totals()

        async with trio.open_nursery() as readers:
            for number in range(len(self.accounts)):
                readers.start_soon(read, number)
        reminders = [
            [
                (
                    reminder.set_by,
                    reminder.due_at.timestamp(),
                    [(process, at.timestamp()) for process, at in reminder.fired],
                )
                for reminder in await diary.all()
            ]
            for diary in self.diaries
        ]
        sys.stdout.write(json.dumps([time(), totals, reminders]) + "\n")
        sys.stdout.flush()


async def serve(path: str, accounts: int, diaries: int, within: float) -> None:
    """Write a report, then carry out requests."""
    async with DurableRuntime(path) as runtime, trio.open_nursery() as nursery:
        objects = Objects(runtime, accounts, diaries)
        await objects.wait_for_alarms(due_before=time())
        await objects.report()

        acknowledgements = Acknowledgements()

        async def carry_out(requests: array[int]) -> None:
            """Carry out requests, one after the other, and acknowledge each."""
            for request in requests:
                began = perf_counter_ns()
                if request & ALARM:
                    due_at = datetime.now(UTC) + timedelta(seconds=random.uniform(0, within))
                    await objects.diaries[request ^ ALARM].remind(due_at)
                elif request % 4:
                    await objects.accounts[request].deposit()
                else:
                    await objects.accounts[request].deposit_slowly()
                acknowledgements.send(request, (perf_counter_ns() - began) // 1000)

        async def receive() -> bytes:
            """Read requests; nothing once the parent has closed the pipe."""
            # Abandoned on cancellation: if a deposit fails, the process ends at once.
            return await trio.to_thread.run_sync(
                os.read, sys.stdin.fileno(), 1 << 16, abandon_on_cancel=True
            )

        rest = b""
        while received := await receive():
            received = rest + received
            whole = len(received) // 4 * 4
            requests = array("I", received[:whole])
            rest = received[whole:]
            for start in range(0, len(requests), CALLS_PER_TASK):
                nursery.start_soon(carry_out, requests[start : start + CALLS_PER_TASK])
        await objects.wait_for_alarms(due_before=math.inf)
        await objects.report()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
