"""The bank as the file has it, and its comparison with the acknowledgements.

The parent process reads the file itself, while no child runs. So it sees the commits of a killed
child before the next child delivers any of the messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import attrs
import orjson

from ..._messages.message import waiting_of
from ...storage import StoredMessage
from ..storage.open import open_reader, resolve_storage
from ..storage.paging import iter_dead_messages, iter_messages, iter_objects
from .child import Run
from .worker import ACCOUNTS, account_number

OPENING = 1_000
"""The balance of an account before its first transfer."""
TOTAL = OPENING * ACCOUNTS


@attrs.frozen
class Ring:
    """A timer as it is stored."""

    due: float
    rang: list[float]
    """The times at which it rang, in seconds since the epoch."""


@attrs.frozen
class Bank:
    """The contents of the file."""

    in_accounts: int
    """The sum of all balances."""
    in_messages: int
    """The sum of the amounts in messages, dead letters among them."""
    payments: Counter[int]
    """The number of transfers from each account."""
    timers: list[Ring]

    @property
    def missing(self) -> int:
        """The money that is neither in an account nor on its way; negative if there is too much."""
        return TOTAL - self.in_accounts - self.in_messages


def read_bank(path: Path) -> Bank:
    """Read the file of a child that has ended."""
    in_accounts = TOTAL  # an account that was never changed isn't stored
    payments: Counter[int] = Counter()
    with open_reader(resolve_storage(str(path))) as reader:
        for row in iter_objects(reader, "Account"):
            state = orjson.loads(row.state)
            in_accounts += state["balance"] - OPENING
            payments[account_number(row.key.object_id)] = state["payments"]
        in_messages = sum(map(_amount, iter_messages(reader, "Account")))
        in_messages += sum(_amount(dead.message) for dead in iter_dead_messages(reader, "Account"))
        timers = [_ring(orjson.loads(row.state)) for row in iter_objects(reader, "Timer")]
    return Bank(in_accounts, in_messages, payments, timers)


def _amount(message: StoredMessage) -> int:
    arguments = cast("dict[str, Any]", waiting_of(message).arguments)
    return int(arguments["amount"])


def _ring(state: dict[str, Any]) -> Ring:
    due, *rang = (
        datetime.fromisoformat(each).timestamp() for each in [state["due"], *state["rang"]]
    )
    return Ring(due, rang)


@attrs.frozen
class Kill:
    """A process of the bank that was killed, and the file that it left."""

    run: Run
    bank: Bank
    lost: int
    """The number of acknowledged changes that aren't stored."""


class Ledger:
    """Compares the acknowledgements of each process with the changes in the file."""

    def __init__(self) -> None:
        self._before = Bank(TOTAL, 0, Counter(), [])

    def audit(self, run: Run, bank: Bank) -> Kill:
        """Compare with the file after a process has ended."""
        stored = bank.payments - self._before.payments
        lost = (run.payments - stored).total()
        lost += max(0, run.timers - (len(bank.timers) - len(self._before.timers)))
        self._before = bank
        return Kill(run, bank, lost)


@attrs.frozen
class TimerAudit:
    """The timers of all processes, at the end."""

    started: int
    while_down: int
    """The number of timers that came due while no process ran, and rang later."""
    missing: int
    """The number of timers that never rang."""
    twice: int
    """The number of timers that rang more than once."""
    early: int


def audit_timers(timers: Sequence[Ring], runs: Sequence[Run]) -> TimerAudit:
    """Audit the timers, by the times at which processes ran."""
    downtimes = [(run.ended_at, after.opened_at) for run, after in pairwise(runs)]
    return TimerAudit(
        started=len(timers),
        while_down=sum(
            ended <= timer.due < opened for timer in timers for ended, opened in downtimes
        ),
        missing=sum(not timer.rang for timer in timers),
        twice=sum(len(timer.rang) > 1 for timer in timers),
        early=sum(any(rang < timer.due for rang in timer.rang) for timer in timers),
    )
