"""The process is killed at any moment: what was acknowledged is there, what wasn't is whole or not.

A child runs callers on a file and says what it was told; the parent kills it after a drawn number
of its lines, again and again on the same file, and reads the file between two kills as another
program would. Between the last line that the parent read and the kill the child goes on, so that
the moment of death is any.
"""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from .child import run_child

CHILD = Path(__file__).with_name("calls_child.py")
KILLS = int(os.environ.get("TRIO_DURABLE_KILLS", "8"))
"""Per backend; more of them for a search through the night."""


@attrs.frozen
class Row:
    revision: int
    total: int
    names: list[str]
    last: str


@attrs.define
class Heard:
    """What the children said, over all of them."""

    begun: set[str] = attrs.field(factory=set)
    """Calls that were made and may have an effect."""
    failing: set[str] = attrs.field(factory=set)
    """Calls whose handler raises, so that they may have none."""
    acknowledged: dict[str, tuple[str, int]] = attrs.field(factory=dict)
    """By name: the object, and which place among its notes the reply gave."""

    def line(self, line: str) -> None:
        words = line.split()
        if words[0] == "?":
            self.begun.add(words[1])
        elif words[0] == "!":
            self.failing.add(words[1])
        else:
            _, name, object_id, position = words
            assert name not in self.acknowledged
            self.acknowledged[name] = (object_id, int(position))


def read(path: Path) -> dict[str, Row]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT object_id, revision, state FROM durable_objects")
        return {object_id: Row(revision, **fields(state)) for object_id, revision, state in rows}


def fields(state: str) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(state)
    assert members.pop("$as") == {}
    return members


def check(before: dict[str, Row], after: dict[str, Row], heard: Heard) -> None:
    counted = Counter(name for row in after.values() for name in row.names)
    assert [name for name, times in counted.items() if times > 1] == []
    places = {
        name: (object_id, place)
        for object_id, row in after.items()
        for place, name in enumerate(row.names, 1)
    }
    # Every acknowledged effect is there, where its reply said, and nothing that nobody asked for.
    lost = {name: told for name, told in heard.acknowledged.items() if places.get(name) != told}
    assert lost == {}
    assert counted.keys() & heard.failing == set()
    assert {re.sub("[ab]$", "", name) for name in counted} <= heard.begun
    for object_id, row in after.items():
        # A turn is there wholly or not at all.
        assert row.total == len(row.names)
        assert row.last == row.names[-1]
        # What was stored once stays, and the new is added behind it.
        old = before.get(object_id, Row(0, 0, [], ""))
        assert row.names[: len(old.names)] == old.names
        # Each commit counts one and holds one note or more.
        assert old.revision <= row.revision
        assert row.revision - old.revision <= len(row.names) - len(old.names)
        assert (row.revision == old.revision) == (row.names == old.names)
    assert before.keys() <= after.keys()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_killed_again_and_again(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "crash.db"
    rng = random.Random(f"{backend} {KILLS}")
    heard = Heard()
    rows: dict[str, Row] = {}
    for run in range(KILLS):
        # Sometimes amid the first loads, sometimes in the thick of it.
        run_child(rng.choice([1, 20, 100, 400, 1500]), heard.line, CHILD, path, backend, run)
        found = read(path)
        check(rows, found, heard)
        rows = found
    assert len(heard.acknowledged) > 100
    assert heard.failing


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_the_next_process_goes_on_where_the_killed_one_was(tmp_path: Path) -> None:
    """Positions of replies go on without a gap over all the processes that ever ran."""
    path = tmp_path / "crash.db"
    heard = Heard()
    for run in range(2):
        run_child(200, heard.line, CHILD, path, "trio", run)
    for row in read(path).values():
        runs = [int(name.split(".")[0]) for name in row.names]
        assert runs == sorted(runs)
        assert set(runs) == {0, 1}
