"""The process is killed while alarms fire: in the end each has had its effect exactly once.

A child sets alarms, lets them fire, and says what it was told; the parent kills it after a drawn
number of its lines, again and again on the same file, and looks into the file between two kills as
another program would. What is due while no process lives, the next one finds. A last one lets all
that is left come due.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from .child import run_child

CHILD = Path(__file__).with_name("alarms_child.py")
KILLS = int(os.environ.get("TRIO_DURABLE_KILLS", "5"))
"""Per backend; more of them for a search through the night."""


@attrs.define
class Heard:
    """What the children said, over all of them."""

    begun: dict[str, str] = attrs.field(factory=dict)
    """By token: the ledger of what was going to be set."""
    failing: set[str] = attrs.field(factory=set)
    """Set in turns that fail, so never."""
    acknowledged: set[str] = attrs.field(factory=set)
    withdrawn: dict[str, int] = attrs.field(factory=dict)
    """By token: how often it had fired when that was acknowledged."""

    def line(self, line: str) -> None:
        words = line.split()
        match words[0]:
            case "?":
                self.begun[words[1]] = words[2]
            case "!":
                self.failing.add(words[1])
            case "=":
                self.acknowledged.add(words[1])
            case _:
                self.withdrawn[words[1]] = int(words[3])


@attrs.frozen
class Found:
    """What is in the file."""

    states: dict[tuple[str, str], dict[str, Any]]
    """By type and id."""
    alarms: dict[tuple[str, str], dict[str, tuple[int, Any]]]
    """By type and id, and name: the time that each was set for, and the payload."""

    @classmethod
    def read(cls, path: Path) -> Found:
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            connection.execute("BEGIN")
            states = {
                (type_name, object_id): json.loads(state)
                for type_name, object_id, state in connection.execute(
                    "SELECT type_name, object_id, state FROM durable_objects"
                )
            }
            alarms: dict[tuple[str, str], dict[str, tuple[int, Any]]] = {}
            for type_name, object_id, name, due_at, payload in connection.execute(
                "SELECT type_name, object_id, name, due_at, payload FROM durable_alarms"
            ):
                alarms.setdefault((type_name, object_id), {})[name] = due_at, json.loads(payload)
        return cls(states, alarms)

    def of_type(self, name: str) -> dict[str, dict[str, Any]]:
        return {
            object_id: state
            for (type_name, object_id), state in self.states.items()
            if type_name == name
        }

    @property
    def fired(self) -> Counter[str]:
        return Counter(
            token for state in self.of_type("Ledger").values() for token in state["fired"]
        )


def check_tickers(found: Found) -> None:
    for object_id, ticker in found.of_type("Ticker").items():
        assert ticker["wrong"] == []
        count, limit = ticker["count"], ticker["limit"]
        due_at = ticker["start"] + count * ticker["interval"]
        alarms = found.alarms.get(("Ticker", object_id), {})
        if limit is not None and due_at - ticker["interval"] >= limit:
            assert alarms == {}
        else:
            # The state counts the ticks that were; the one alarm is the next of them.
            assert alarms == {"tick": (due_at, count)}


def check_ledgers(found: Found, heard: Heard) -> None:
    total = found.fired
    assert [token for token, times in total.items() if times > 1] == []
    assert total.keys() <= heard.begun.keys()
    # What was cancelled or set anew does not fire afterwards.
    assert [token for token, times in heard.withdrawn.items() if total[token] != times] == []
    for object_id, ledger in found.of_type("Ledger").items():
        assert ledger["wrong"] == []
        fired, planned = set(ledger["fired"]), set(ledger["planned"])
        alarms = found.alarms.get(("Ledger", object_id), {})
        assert planned & heard.failing == set()
        assert all(heard.begun[token] == object_id for token in fired | planned)
        waiting = {payload["token"] for _, payload in alarms.values()}
        assert waiting <= heard.begun.keys()
        # What has had its effect is gone, and what a turn has set is there until then.
        assert waiting & fired == set()
        assert planned <= waiting | fired


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_killed_again_and_again_while_alarms_fire(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "crash.db"
    rng = random.Random(f"{backend} {KILLS}")
    heard = Heard()
    seen: Counter[str] = Counter()
    killed_while_waiting = 0
    said: list[str] = []
    for run in range(KILLS):
        run_child(rng.choice([1, 50, 200, 600, 1500]), heard.line, CHILD, path, backend, run)
        found = Found.read(path)
        check_tickers(found)
        check_ledgers(found, heard)
        assert seen <= found.fired
        seen = found.fired
        killed_while_waiting += sum(map(len, found.alarms.values()))
    run_child(None, said.append, CHILD, path, backend, "last")
    assert said == ["done\n"]
    found = Found.read(path)
    check_tickers(found)
    check_ledgers(found, heard)
    # All that was acknowledged and not withdrawn has had its effect, once; nothing is left.
    assert found.alarms == {}
    lost = heard.acknowledged - heard.withdrawn.keys() - found.fired.keys()
    assert lost == set()
    ticks = sum(ticker["count"] for ticker in found.of_type("Ticker").values())
    assert len(heard.acknowledged) > 100
    assert heard.withdrawn
    print(  # noqa: T201
        f"{backend}: {KILLS} kills, {killed_while_waiting} alarms were set at the time of one; "
        f"{len(heard.acknowledged)} single alarms acknowledged, {found.fired.total()} fired, "
        f"{len(heard.withdrawn)} withdrawn, {ticks} ticks"
    )
