"""A process that is meant to be killed: accounts transfer money by messages.

    python messages_child.py STORAGE BACKEND RUN [cluster]

Each acknowledged transfer is ``= NUMBER`` on standard output, at once and unbuffered. Some
transfers are delayed, some fail at their first attempts, and some become dead letters. It runs
until it is killed. After SIGUSR1 it begins no more transfers, but delivers those that wait.

A member of a cluster goes on if another process of it dies, which may have handled the call.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import sys
from datetime import timedelta

import anyio
import attrs

from trio_durable import (
    CallTimeout,
    DurableObject,
    DurableRuntime,
    OwnerLost,
    Retry,
    StorageUnavailable,
    handler,
)

CALLERS = 8
ACCOUNTS = 50
BALANCE = 1_000


class Refused(Exception):
    pass


class Account(DurableObject, call_timeout=60):
    balance: int = BALANCE
    sent: dict[str, int] = attrs.field(factory=dict)
    """The number of the last transfer to each other account that isn't delayed."""
    received: dict[str, int] = attrs.field(factory=dict)
    """The number of the last such transfer from each other account that has taken effect."""
    wrong: list[str] = attrs.field(factory=list)
    """Transfers that came twice, or after later ones."""

    @handler
    def transfer(self, to: str, amount: int, delay: float) -> None:
        self.balance -= amount
        me = self.ctx.object_id
        if delay:
            later = self.ctx.outgoing(after=timedelta(seconds=delay))
            later.send(Account.receive, to, me, 0, amount)
            return
        self.sent[to] = number = self.sent.get(to, 0) + 1
        self.ctx.send(Account.receive, to, me, number, amount)

    @handler(retry=Retry(initial=0.01, maximum=0.02, attempts=3), expected=Refused)
    def receive(self, sender: str, number: int, amount: int) -> None:
        message = self.ctx.message
        assert message is not None
        if amount % 50 == 0:
            raise Refused
        if amount % 7 == 0 and message.attempt == 1:
            raise ValueError("not at the first attempt")
        if number and number <= self.received.get(sender, 0):
            self.wrong.append(f"{sender} {number}")
        self.balance += amount
        if number:
            self.received[sender] = number


async def caller(runtime: DurableRuntime, rng: random.Random) -> None:
    for number in itertools.count():
        sender, to = rng.sample(range(ACCOUNTS), 2)
        delay = rng.choice([0, 0, 0, 0.02])
        account = runtime.get(Account, f"a{sender}")
        try:
            await account.transfer(f"a{to}", rng.randint(1, 200), delay)
        except (OwnerLost, CallTimeout, StorageUnavailable):
            if not is_member:
                raise
        else:
            os.write(1, f"= {number}\n".encode())


async def main(storage: str, run: str) -> None:
    with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
        async with DurableRuntime(
            storage, objects=[Account], polling_interval=0.5, cluster=is_member
        ) as runtime:
            async with anyio.create_task_group() as tasks:
                for number in range(CALLERS):
                    tasks.start_soon(caller, runtime, random.Random(f"{run} {number}"))
                async for _ in signals:
                    tasks.cancel_scope.cancel()
            await anyio.sleep_forever()


is_member = "cluster" in sys.argv[4:]


if __name__ == "__main__":
    logging.getLogger("trio_durable").setLevel(logging.CRITICAL)
    anyio.run(main, sys.argv[1], sys.argv[3], backend=sys.argv[2])
