"""The process that the demo kills: accounts and diaries in a `DurableRuntime`.

The demo runs it as ``python -m trio_durable.cli.demo.worker FILE ACCOUNTS DIARIES SECONDS``. It
waits until the overdue alarms have fired and the waiting messages are handled, and writes a report:
one line of JSON, see `Objects.report`. Then it serves requests:

- Input is a sequence of words of four bytes. The number of an account requests a transfer to
  another account. The number of a diary with the bit `ALARM` requests an alarm, due at a random
  time within SECONDS.
- Output is a sequence of pairs: a word from the input, and the latency in microseconds. It
  acknowledges the request: from now on its change must never be lost.

When its input ends, it unblocks all accounts, retries the dead letters, waits for the last alarms
and messages, writes a second report, closes the runtime and exits.
"""

from __future__ import annotations

import json
import logging
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
from .protocol import (
    ALARM,
    AMOUNT,
    BLOCKED_EVERY,
    CALLS_PER_TASK,
    OPENING,
    account_id,
    account_number,
    payee,
)

MAX_DELAY_SECONDS = 10
"""The delay after which an alarm counts as lost, and messages as stuck."""


class Blocked(Exception):
    """The account takes no money."""


class Account(DurableObject):
    """A balance, and numbers of transfers that disagree with it if half a transfer is stored."""

    sent: int = 0
    received: int = 0
    balance: int = OPENING
    blocked: bool = False

    @handler
    def transfer(self, accounts: int) -> None:
        """Take AMOUNT from here, and send it to the account whose turn it is, in one commit."""
        self._take()
        self._send(accounts)

    @handler
    async def transfer_slowly(self, accounts: int) -> None:
        """The same, with a checkpoint in the middle, at which the process is often killed."""
        self._take()
        await trio.lowlevel.checkpoint()
        self._send(accounts)

    @handler(expected=Blocked)
    def deposit(self, amount: int) -> None:
        """Take in the money of a message. The same commit removes the message."""
        if self.blocked:
            raise Blocked(self.ctx.object_id)
        self.received += 1
        self.balance += amount

    @handler
    def block(self, blocked: bool) -> None:
        """Make messages to this account dead letters from now on, or don't."""
        self.blocked = blocked

    @handler(readonly=True)
    def transfers(self) -> int:
        """The number of transfers from here."""
        return self.sent

    def _take(self) -> None:
        self.sent += 1
        self.balance -= AMOUNT

    def _send(self, accounts: int) -> None:
        to = payee(account_number(self.ctx.object_id), self.sent, accounts)
        self.ctx.send(Account.deposit, account_id(to), AMOUNT)


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
        self.runtime = runtime
        self.accounts = [runtime.get(Account, account_id(n)) for n in range(accounts)]
        self.diaries = [runtime.get(Diary, f"diary-{n}") for n in range(diaries)]

    async def block(self, blocked: bool) -> None:
        """Block one of BLOCKED_EVERY accounts, or unblock them."""
        async with trio.open_nursery() as calls:
            for account in self.accounts[::BLOCKED_EVERY]:
                calls.start_soon(account.block, blocked)

    async def retry_dead_letters(self) -> None:
        """Let the messages to accounts that were blocked be delivered again."""
        await self.runtime.retry_messages(Account)

    async def waiting(self) -> int:
        """The number of messages that wait."""
        return sum(counts.waiting for counts in await self.runtime.count_messages())

    async def wait_for_messages(self) -> None:
        """Wait until no message waits, or until their number stays the same for too long."""
        last, since = await self.waiting(), time()
        while last and time() < since + MAX_DELAY_SECONDS:
            await trio.sleep(0.05)
            left = await self.waiting()
            if left != last:
                last, since = left, time()

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
            if not missing or time() > max(began, *missing) + MAX_DELAY_SECONDS:
                return
            await trio.sleep(0.05)

    async def report(self) -> None:
        """Write one line of JSON with all data.

        Its items are the time, the number of transfers from each account, the number of waiting
        messages, and the alarms of each diary.
        """
        transfers = [0] * len(self.accounts)

        async def read(number: int) -> None:
            """Read one account."""
            transfers[number] = await self.accounts[number].transfers()

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
        sys.stdout.write(json.dumps([time(), transfers, await self.waiting(), reminders]) + "\n")
        sys.stdout.flush()


async def serve(path: str, accounts: int, diaries: int, within: float) -> None:
    """Write a report, then carry out requests."""
    # Dead letters are meant to be here, and the parent counts them.
    logging.getLogger("trio_durable.messages").setLevel(logging.CRITICAL)
    async with DurableRuntime(path) as runtime, trio.open_nursery() as nursery:
        objects = Objects(runtime, accounts, diaries)
        await objects.block(True)
        await objects.wait_for_alarms(due_before=time())
        await objects.wait_for_messages()
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
                    await objects.accounts[request].transfer(accounts)
                else:
                    await objects.accounts[request].transfer_slowly(accounts)
                acknowledgements.send(request, (perf_counter_ns() - began) // 1000)

        async def receive() -> bytes:
            """Read requests; nothing once the parent has closed the pipe."""
            # Abandoned on cancellation: if a transfer fails, the process ends at once.
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
        await objects.block(False)
        await objects.retry_dead_letters()
        await objects.wait_for_alarms(due_before=math.inf)
        await objects.wait_for_messages()
        await objects.report()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
