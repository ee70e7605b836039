"""The process is killed at named points of the library's work: what was acknowledged is there.

Clients do one thing after the other, so that after a kill there can only be what a client has done
by its last acknowledgement, or that and its next thing; to the letter, on the same file again and
again. Alarms have had their effect once, or are still there to have it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from trio_durable import DurableRuntime, InlineRunner, SQLiteStorage
from trio_durable.storage import ObjectRow

from . import killed
from .history import ALL, old_file, opened
from .workload import integrity

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and fork")

KILLS = int(os.environ.get("TRIO_DURABLE_KILLS", "1"))
"""Per point; more of them for a search through the night."""


@attrs.define
class Heard:
    """What the processes said, over all of them."""

    acknowledged: dict[str, int] = attrs.field(factory=dict)
    """By client, how many of its calls."""
    tokens: set[str] = attrs.field(factory=set)

    def line(self, line: str, scripts: dict[str, killed.Script]) -> None:
        kind, *words = line.split()
        if kind == "+":
            self.tokens.add(words[0])
        else:
            client, number, reply = words
            assert int(number) == self.acknowledged.get(client, 0) + 1
            assert int(reply) == scripts[client].reply(int(number))
            self.acknowledged[client] = int(number)


class Processes:
    """Starts processes that die."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._runs = 0

    def kill_at(self, path: Path, point: str, number: int) -> tuple[int, Heard]:
        """Let one work on a file until it dies there; which run it was, and what it said."""
        run = self._runs
        self._runs += 1
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path), run, point, number]) + "\n")
        self._process.stdin.flush()
        status, lines = json.loads(self._process.stdout.readline())
        assert status == -signal.SIGKILL, f"{point} was not passed {number} times"
        heard = Heard()
        scripts = {script.client: script for script in killed.scripts(run)}
        for line in lines:
            heard.line(line, scripts)
        return run, heard


@pytest.fixture
def processes(folder: Path) -> Iterator[Processes]:
    errors = folder / "errors"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, killed.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        yield Processes(process)
    assert errors.read_text() == ""


@attrs.frozen
class Found:
    """What is in a file."""

    objects: dict[tuple[str, str, str], ObjectRow]
    """By tenant, type and id."""
    alarms: dict[str, set[str]]
    """By id of the object, the names."""

    @classmethod
    def read(cls, path: Path) -> Found:
        with opened(SQLiteStorage(path)) as (_, reader):
            rows, alarms = [], dict[str, set[str]]()
            for tenant in ("", *reader.list_tenants(None, ALL)):
                rows += reader.browse_objects(None, None, ALL, tenant)
                for row in reader.browse_alarms(None, 0, None, None, ALL, tenant):
                    alarms.setdefault(row.alarm.key.object_id, set()).add(row.alarm.key.name)
        assert integrity(path) == []
        check_tables(path)
        objects = {(row.key.tenant, row.key.type_name, row.key.object_id): row for row in rows}
        assert len(objects) == len(rows)
        return cls(objects, alarms)

    def pages(self, script: killed.Script) -> killed.Pages:
        """The pages of a client."""
        found = {}
        for (tenant, type_name, page), row in self.objects.items():
            if (tenant, type_name) == (script.tenant, "Page") and page.startswith(
                f"{script.client}-"
            ):
                state = json.loads(row.state)
                assert state["total"] == len(state["names"])
                assert state["last"] == state["names"][-1]
                found[page] = state["names"]
        return found


def check_tables(path: Path) -> None:
    """There are the tables of the tenants that there are, and no others."""
    with closing(sqlite3.connect(path)) as connection:
        tenants = {name for (name,) in connection.execute("SELECT name FROM durable_tenants")}
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'tenant_%s'")
        noted = connection.execute(
            "SELECT DISTINCT migration_set FROM _sqlite_migrations WHERE migration_set LIKE '%:%'"
        )
        assert {name for (name,) in tables if name.endswith(("_objects", "_alarms"))} == {
            f"tenant_{tenant}_{table}"
            for tenant in tenants
            for table in ("durable_objects", "durable_alarms")
        }
        assert {name for (name,) in noted} == {f"trio_durable:{tenant}" for tenant in tenants}


def check_clients(found: Found, run: int, heard: Heard) -> None:
    """Each client's pages are as at its last acknowledgement, or a step further."""
    for script in killed.scripts(run):
        number = heard.acknowledged.get(script.client, 0)
        assert found.pages(script) in script.after(number), (script.client, number)


def check_chimes(found: Found, tokens: set[str]) -> None:
    """Each alarm that was set has gone off once, or is there to go off."""
    planned: set[str] = set()
    for (_, type_name, chime), row in found.objects.items():
        if type_name == "Chime":
            state = json.loads(row.state)
            assert len(state["fired"]) == len(set(state["fired"]))
            waiting = found.alarms.get(chime, set())
            assert waiting.isdisjoint(state["fired"])
            assert waiting.union(state["fired"]) == set(state["planned"])
            planned.update(state["planned"])
    assert tokens <= planned


@pytest.mark.parametrize("work", killed.WORKS)
def test_killed_at_every_point(folder: Path, processes: Processes, work: str) -> None:
    path = folder / "objects.db"
    rng = random.Random(work)
    tokens: set[str] = set()
    acknowledged = 0
    before: dict[tuple[str, str, str], ObjectRow] = {}
    for point in killed.WORKS[work]:
        for _ in range(KILLS):
            run, heard = processes.kill_at(
                path, point, 1 if work == "closing" else rng.choice([1, 2, 3, 5, 8, 13])
            )
            found = Found.read(path)
            check_clients(found, run, heard)
            tokens |= heard.tokens
            check_chimes(found, tokens)
            # What the processes before have left is there still.
            pages = {key: row for key, row in before.items() if key[1] == "Page"}
            assert pages.items() <= found.objects.items()
            before = found.objects
            acknowledged += sum(heard.acknowledged.values())
    assert acknowledged
    let_all_alarms_go_off(path)
    found = Found.read(path)
    assert found.alarms == {}
    check_chimes(found, tokens)


def let_all_alarms_go_off(path: Path) -> None:
    """As the next process does, in virtual time."""

    async def main() -> None:
        async with DurableRuntime(
            path, objects=[killed.Page, killed.Chime], runner=InlineRunner, polling_interval=10
        ):
            await trio.sleep(60)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# --- opening -------------------------------------------------------------------------------------


OPENINGS = [
    ("new", "opening behind a statement", range(1, 71, 2)),
    ("new", "opening amid a statement", range(1, 41, 8)),
    ("new", "opening done", [1]),
    ("old", "opening behind a statement", range(1, 55, 4)),
    ("old", "opening amid a statement", range(1, 41, 8)),
    ("old", "opening done", [1]),
]
"""Each with how often the point is passed before the process dies."""


@pytest.mark.parametrize(("kind", "point", "numbers"), OPENINGS)
def test_killed_while_a_file_is_opened(
    folder: Path, processes: Processes, kind: str, point: str, numbers: Sequence[int]
) -> None:
    """A file that is made, or migrated, is made wholly by the next one who opens it."""
    current = current_schema(folder)
    for number in numbers:
        path = folder / f"{number}.db"
        if kind == "old":
            old_file(path)
        processes.kill_at(path, point, number)
        found = Found.read(path)
        assert len(found.objects) == (9 if kind == "old" else 0)
        with closing(sqlite3.connect(path)) as connection:
            assert schema_of(connection) == current


def schema_of(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """What the tables are, and which migrations are noted."""
    return [
        *connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name"),
        *connection.execute("SELECT migration_set, name FROM _sqlite_migrations ORDER BY name"),
    ]


def current_schema(folder: Path) -> list[tuple[str, str]]:
    """Of a file that was made at one go."""
    path = folder / "current.db"
    SQLiteStorage(path).open_writer().close()
    with closing(sqlite3.connect(path)) as connection:
        return schema_of(connection)
