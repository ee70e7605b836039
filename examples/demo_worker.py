"""The process that the demo kills: a few thousand accounts in a `DurableRuntime`.

Run by `examples.demo` as ``python -m examples.demo_worker FILE ACCOUNTS``. It writes one line of
JSON first, what it found in the file: a pair of deposits and balance per account. Then it serves:

- in come numbers of accounts, four bytes each: a deposit is requested,
- out go pairs of such numbers, an account's and how many microseconds the deposit took: it was
  acknowledged, so it must never be lost.

When its input ends it closes the runtime and exits; but mostly it doesn't come to that.
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from time import perf_counter_ns

import trio

from trio_durable import DurableObject, DurableRuntime, handler

AMOUNT = 5
CALLS_PER_TASK = 8


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


class Acknowledgements:
    """Sends them to the parent process, all of one pass of the event loop at once."""

    def __init__(self) -> None:
        self._waiting = array("I")
        self._token = trio.lowlevel.current_trio_token()

    def send(self, account: int, microseconds: int) -> None:
        """Tell the parent that a deposit is durable."""
        if not self._waiting:
            self._token.run_sync_soon(self._flush)
        self._waiting.append(account)
        self._waiting.append(microseconds)

    def _flush(self) -> None:
        # The parent keeps the requests under way so few that their acknowledgements fit into the
        # pipe; this doesn't block.
        os.write(sys.stdout.fileno(), self._waiting.tobytes())
        self._waiting = array("I")


async def serve(path: str, accounts: int) -> None:
    """Report what the file holds, then carry out what is requested."""
    async with DurableRuntime(path) as runtime, trio.open_nursery() as nursery:
        handles = [runtime.get(Account, f"account-{number}") for number in range(accounts)]
        found: list[tuple[int, int]] = [(0, 0)] * accounts

        async def look(number: int) -> None:
            found[number] = await handles[number].totals()

        async with trio.open_nursery() as lookers:
            for number in range(accounts):
                lookers.start_soon(look, number)
        print(json.dumps(found), flush=True)

        acknowledgements = Acknowledgements()

        async def deposit(requests: array[int]) -> None:
            for number in requests:
                began = perf_counter_ns()
                if number % 4:
                    await handles[number].deposit()
                else:
                    await handles[number].deposit_slowly()
                acknowledgements.send(number, (perf_counter_ns() - began) // 1000)

        async def receive() -> bytes:
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
                nursery.start_soon(deposit, requests[start : start + CALLS_PER_TASK])


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], int(sys.argv[2]))
