"""The money of the demo: balances, waiting messages and dead letters, as the file has them.

The parent process reads the file itself, while no child runs. So it sees what a killed child has
committed before the next child delivers any of the messages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import attrs
import orjson

from ..._messages.message import waiting_of
from ...storage import StoredMessage
from ..storage.open import open_reader, resolve_storage
from ..storage.paging import iter_dead_messages, iter_messages, iter_objects
from .protocol import AMOUNT, OPENING, account_number

_TYPE = "Account"


@attrs.frozen
class Bank:
    """The contents of the file."""

    in_accounts: int
    """The sum of all balances."""
    in_messages: int
    """The sum of the amounts in messages that wait."""
    in_dead_letters: int
    """The sum of the amounts in messages that have become dead letters."""
    waiting: int
    """The number of messages that wait."""
    torn: int
    """The number of accounts whose balance doesn't agree with their numbers of transfers."""
    sent: list[int]
    """The number of transfers from each account."""
    arrivals: list[int]
    """The number of transfers to each account: received, waiting and dead."""

    @property
    def total(self) -> int:
        """All money."""
        return self.in_accounts + self.in_messages + self.in_dead_letters


def read_bank(path: Path, accounts: int) -> Bank:
    """Read the file of a child that has ended."""
    sent, arrivals = [0] * accounts, [0] * accounts
    in_accounts = OPENING * accounts  # an account that was never changed isn't stored
    torn = waiting = in_messages = in_dead_letters = 0
    with open_reader(resolve_storage(str(path))) as reader:
        for row in iter_objects(reader, _TYPE):
            state = orjson.loads(row.state)
            number = account_number(row.key.object_id)
            sent[number], arrivals[number] = state["sent"], state["received"]
            in_accounts += state["balance"] - OPENING
            torn += state["balance"] != OPENING + AMOUNT * (state["received"] - state["sent"])
        for message in iter_messages(reader, _TYPE):
            arrivals[account_number(message.key.to.object_id)] += 1
            in_messages += _amount(message)
            waiting += 1
        for letter in iter_dead_messages(reader, _TYPE):
            arrivals[account_number(letter.message.key.to.object_id)] += 1
            in_dead_letters += _amount(letter.message)
    return Bank(in_accounts, in_messages, in_dead_letters, waiting, torn, sent, arrivals)


def _amount(message: StoredMessage) -> int:
    arguments = cast("dict[str, Any]", waiting_of(message).arguments)
    return int(arguments["amount"])
