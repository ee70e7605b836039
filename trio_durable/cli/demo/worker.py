"""The process that the demo kills: accounts and diaries in a `DurableRuntime`.

Run by the demo as ``python -m trio_durable.cli.demo.worker FILE ACCOUNTS DIARIES SECONDS``. It
lets the alarms fire that came due while nobody was there, and writes one line of JSON with all that
the file holds, see `Objects.report`. Then it serves:

- in come words of four bytes: an account's number requests a deposit; a diary's with `ALARM` added,
  an alarm that is due at a random time within so many seconds,
- out go pairs of such a word and how many microseconds it took: it was acknowledged, so it must
  never be lost.

When its input ends it lets the last alarms fire, writes such a line again, closes the runtime and
exits; but mostly it doesn't come to that.
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

PATIENCE = 10
"""Seconds that an alarm may be late before it counts as lost."""


class Account(DurableObject):
    """Two fields that agree with each other unless a deposit was cut in half."""

    deposits: int = 0
    balance: int = 0

    @handler
    def deposit(self) -> None:
        """Deposit AMOUNT."""
        self.deposits += 1
        self.balance += AMOUNT

    @handler
    async def deposit_slowly(self) -> None:
        """The same, but the process may well be killed in the middle of it."""
        self.deposits += 1
        await trio.lowlevel.checkpoint()
        self.balance += AMOUNT

    @handler(readonly=True)
    def totals(self) -> tuple[int, int]:
        """Both fields."""
        return self.deposits, self.balance


@attrs.define
class Reminder:
    """An alarm that was set, and each time that it has fired: one, if all is well."""

    set_by: int
    """The id of the process."""
    due_at: datetime
    fired: list[tuple[int, datetime]] = attrs.field(factory=list)
    """By which process, and when."""


class Diary(DurableObject):
    """Sets alarms, and notes how they fire."""

    reminders: list[Reminder] = attrs.field(factory=list)

    @handler
    def remind(self, due_at: datetime) -> None:
        """Set an alarm. It is committed together with the note of it."""
        number = len(self.reminders)
        self.reminders.append(Reminder(os.getpid(), due_at))
        self.ctx.schedule_alarm(f"reminder {number}", at=due_at, payload=number)

    def handle_alarm(self, alarm: Alarm) -> None:
        """Note that it fires. The commit of that removes the alarm."""
        reminder = self.reminders[alarm.payload_as(int)]
        reminder.fired.append((os.getpid(), datetime.now(UTC)))

    @handler(readonly=True)
    def all(self) -> list[Reminder]:
        """What was set, and what has fired."""
        return self.reminders


class Acknowledgements:
    """Sends them to the parent process, all of one pass of the event loop at once."""

    def __init__(self) -> None:
        self._waiting = array("I")
        self._token = trio.lowlevel.current_trio_token()

    def send(self, request: int, microseconds: int) -> None:
        """Tell the parent that what it requested is durable."""
        if not self._waiting:
            self._token.run_sync_soon(self._flush)
        self._waiting.append(request)
        self._waiting.append(microseconds)

    def _flush(self) -> None:
        # The parent keeps the requests under way so few that their acknowledgements fit into the
        # pipe; this doesn't block.
        os.write(sys.stdout.fileno(), self._waiting.tobytes())
        self._waiting = array("I")


class Objects:
    """All accounts and diaries."""

    def __init__(self, runtime: DurableRuntime, accounts: int, diaries: int) -> None:
        self.accounts = [runtime.get(Account, f"account-{n}") for n in range(accounts)]
        self.diaries = [runtime.get(Diary, f"diary-{n}") for n in range(diaries)]

    async def wait_for_alarms(self, due_before: float) -> None:
        """Return when the alarms have fired that are due before a time, or are far too late."""
        began = time()
        while True:
            missing = [
                reminder.due_at.timestamp()
                for diary in self.diaries
                for reminder in await diary.all()
                if not reminder.fired and reminder.due_at.timestamp() < due_before
            ]
            if not missing or time() > max(began, *missing) + PATIENCE:
                return
            await trio.sleep(0.05)

    async def report(self) -> None:
        """Write one line of JSON with all that there is.

        The time; deposits and balance of each account; the reminders of each diary.
        """
        totals: list[tuple[int, int]] = [(0, 0)] * len(self.accounts)

        async def look(number: int) -> None:
            """Ask one account."""
            totals[number] = await self.accounts[number].totals()

        async with trio.open_nursery() as lookers:
            for number in range(len(self.accounts)):
                lookers.start_soon(look, number)
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
    """Report what the file holds, then carry out what is requested."""
    async with DurableRuntime(path) as runtime, trio.open_nursery() as nursery:
        objects = Objects(runtime, accounts, diaries)
        await objects.wait_for_alarms(due_before=time())
        await objects.report()

        acknowledgements = Acknowledgements()

        async def carry_out(requests: array[int]) -> None:
            """Do what is requested, one after the other, and acknowledge each."""
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
            """More requests; nothing once the parent has closed the pipe."""
            # Abandoned if a deposit fails, so that the process ends and the parent learns of it.
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
