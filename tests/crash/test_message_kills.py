"""The process is killed while accounts transfer by messages: none is lost, doubled, overtaken.

A child makes transfers; the parent kills it again and again on the same file, and reads the file
between two kills as another program would. What the accounts have, what waits, and what is dead
adds up to the same sum each time. A loss and a double could cancel out, so each account also notes
the numbers of what it has received.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .child import run_child
from .messages_child import ACCOUNTS, BALANCE

CHILD = Path(__file__).with_name("messages_child.py")
KILLS = int(os.environ.get("TRIO_DURABLE_KILLS", "6"))
"""Per backend; more of them for a search through the night."""


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def check(path: Path) -> dict[str, int]:
    """Check a file; return the number of messages of each kind."""
    accounts: dict[str, dict[str, Any]] = {
        object_id: json.loads(state)
        for object_id, state in rows(path, "SELECT object_id, state FROM durable_objects")
    }
    waiting = [
        json.loads(arguments)[0]
        for (arguments,) in rows(path, "SELECT arguments FROM durable_messages")
    ]
    dead = [
        json.loads(arguments)[0]
        for (arguments,) in rows(path, "SELECT arguments FROM durable_dead_messages")
    ]
    balances = sum(account["balance"] for account in accounts.values())
    balances += (ACCOUNTS - len(accounts)) * BALANCE
    moving = sum(message["amount"] for message in (*waiting, *dead))
    assert balances + moving == ACCOUNTS * BALANCE
    for object_id, account in accounts.items():
        assert account["wrong"] == [], object_id
    received = sum(len(account["received"]) for account in accounts.values())
    return {"waiting": len(waiting), "dead": len(dead), "pairs": received}


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_money_is_neither_lost_nor_doubled(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "bank.db"
    rng = random.Random(f"{backend} {KILLS}")
    heard: list[str] = []
    found: list[dict[str, int]] = []
    for run in range(KILLS):
        run_child(rng.choice([20, 100, 300, 600]), heard.append, CHILD, path, backend, run)
        found.append(check(path))
    logging.getLogger(__name__).info("%s", found)
    assert len(heard) > 100
    assert found[-1]["dead"] > 0
    assert found[-1]["pairs"] > 100
