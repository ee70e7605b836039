"""The process that the demo kills.

The demo runs it as ``python -m trio_durable.cli.demo.worker FILE MODE RUN SECONDS``.

MODE is a kind of transfer, ``awaits`` or ``message``: callers transfer money until they are killed,
and `TIMERS` timers are started that ring within SECONDS. Or it is ``rest``: the process waits until
all messages have arrived and all timers have rung, and exits.

Output begins with the milliseconds that opening the runtime took, as a line. Each byte after it
acknowledges a change: the number of the account that paid, or `TIMER_STARTED`.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter

import trio

from ... import DurableRuntime
from .bank import Account, Timer, transfer_by_awaits

ACCOUNTS = 50
CALLERS = 64
TIMERS = 100
TIMER_STARTED = 255
"""No number of an account."""
MAX_AMOUNT = 25
REST_SECONDS = 30
"""Messages and timers that take longer count as lost."""

TRANSFERS: dict[str, Callable[[str, str, int], Awaitable[None]]] = {
    "awaits": transfer_by_awaits,
    "message": Account.transfer,
}


def account_id(number: int) -> str:
    """The id of an account."""
    return f"account-{number}"


def account_number(object_id: str) -> int:
    """The number of an account, from its id."""
    return int(object_id.removeprefix("account-"))


def timer_id(run: int, number: int) -> str:
    """The id of a timer. Each process starts timers of its own."""
    return f"timer-{run}-{number}"


def acknowledge(change: int) -> None:
    """Tell the parent process that a change was committed."""
    os.write(sys.stdout.fileno(), bytes([change]))


async def transfer_until_killed(transfer: Callable[[str, str, int], Awaitable[None]]) -> None:
    """Transfer random amounts between random accounts, one after the other."""
    while True:
        payer, payee = random.sample(range(ACCOUNTS), 2)
        await transfer(account_id(payer), account_id(payee), random.randint(1, MAX_AMOUNT))
        acknowledge(payer)


async def start_timer(object_id: str, within: float) -> None:
    """Start a timer that rings at a random time."""
    await Timer.start(object_id, random.uniform(0, within))
    acknowledge(TIMER_STARTED)


async def rest(runtime: DurableRuntime) -> None:
    """Wait until nothing is left to be done, for `REST_SECONDS` at most."""
    with trio.move_on_after(REST_SECONDS):
        while not await is_at_rest(runtime):  # noqa: ASYNC110  # counts have no event
            await trio.sleep(0.02)


async def is_at_rest(runtime: DurableRuntime) -> bool:
    """True if no message waits, and each timer has rung."""
    if any(counts.waiting for counts in await runtime.count_messages()):
        return False
    timers = await runtime.list_states(Timer, limit=1_000_000)
    return all(timer.state.rang for timer in timers)


async def serve(path: str, mode: str, run: int, within: float) -> None:
    """Open the runtime, and do the work of a mode."""
    began = perf_counter()
    async with DurableRuntime(path, objects=[Account, Timer]) as runtime:
        sys.stdout.write(f"{(perf_counter() - began) * 1000:.0f}\n")
        sys.stdout.flush()
        if mode == "rest":
            await rest(runtime)
            return
        async with trio.open_nursery() as nursery:
            for number in range(TIMERS):
                nursery.start_soon(start_timer, timer_id(run, number), within)
            for _ in range(CALLERS):
                nursery.start_soon(transfer_until_killed, TRANSFERS[mode])


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
