"""Processes are killed while accounts transfer by messages: none is lost, doubled, overtaken.

Processes make transfers; the test kills one after the other, and reads the storage between two
kills as another program would, in one snapshot, while the others go on. What the accounts have,
what waits, and what is dead adds up to the same sum each time. A loss and a double could cancel
out, so each account also notes the numbers of what it has received. When no more transfers begin,
what waits is delivered by the processes that are left, though the others have died before they
said that there is something.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.postgres import url_of

from .messages_child import ACCOUNTS, BALANCE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")

CHILD = Path(__file__).with_name("messages_child.py")
KILLS = int(os.environ.get("TRIO_DURABLE_KILLS", "0"))
"""Per test; more of them for a search through the night."""
EACH = [(where, backend) for where in ("file", "database") for backend in ("trio", "asyncio")]
"""Without a search, each test runs on one half of these, and they share them out."""
PATIENCE = 60.0
"""Seconds for whatever should take milliseconds, on a busy machine."""

Query = Callable[[str], list[Any]]
Snapshot = Callable[[], AbstractContextManager[Query]]


def check(query: Query) -> dict[str, int]:
    """Check a snapshot; return the number of messages of each kind."""
    accounts: dict[str, dict[str, Any]] = {
        object_id: json.loads(state)
        for object_id, state in query("SELECT object_id, state FROM durable_objects")
    }
    waiting, dead = (
        [json.loads(arguments)[0] for (arguments,) in query(f"SELECT arguments FROM {table}")]
        for table in ("durable_messages", "durable_dead_messages")
    )
    balances = sum(account["balance"] for account in accounts.values())
    balances += (ACCOUNTS - len(accounts)) * BALANCE
    moving = sum(message["amount"] for message in (*waiting, *dead))
    assert balances + moving == ACCOUNTS * BALANCE
    for object_id, account in accounts.items():
        assert account["wrong"] == [], object_id
    received = sum(len(account["received"]) for account in accounts.values())
    return {"waiting": len(waiting), "dead": len(dead), "pairs": received}


class Processes:
    """Processes that make transfers on one storage."""

    child = CHILD

    def __init__(self, folder: Path, storage: str, backend: str, *options: str) -> None:
        self._log = folder / "errors"
        self._log.touch()
        self._arguments = storage, backend, options
        self._started = 0
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._readers: dict[subprocess.Popen[str], threading.Thread] = {}
        self.running: list[subprocess.Popen[str]] = []
        self.acknowledged = 0

    def start(self) -> None:
        storage, backend, options = self._arguments
        self._started += 1
        command = [sys.executable, str(self.child), storage, backend, str(self._started), *options]
        with self._log.open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.running.append(process)
        reader = self._readers[process] = threading.Thread(target=self._read, args=(process,))
        reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._heard.put(line)

    def hear(self, lines: int) -> None:
        """Wait until so many more transfers are acknowledged."""
        for _ in range(lines):
            try:
                line = self._heard.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(self.errors() or "no transfer is acknowledged") from None
            assert line.startswith("= ")
        self.acknowledged += lines

    def errors(self) -> str:
        """What they have written to standard error."""
        return self._log.read_text()

    def kill(self, process: subprocess.Popen[str]) -> None:
        self.running.remove(process)
        assert process.poll() is None, self.errors()
        process.kill()
        process.wait()
        self._readers.pop(process).join()

    def stop_transfers(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGUSR1)

    def close(self) -> None:
        for process in list(self.running):
            process.kill()
            process.wait()
            self._readers[process].join()
        self.running.clear()


@contextmanager
def of_file(path: Path) -> Iterator[Query]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        yield lambda query: connection.execute(query).fetchall()


@contextmanager
def of_database(conninfo: str) -> Iterator[Query]:
    with psycopg.connect(conninfo) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        yield lambda query: connection.execute(query.encode()).fetchall()


def delivered(snapshot: Snapshot) -> None:
    """Wait until no message waits."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with snapshot() as query:
            found = check(query)
        if not found["waiting"]:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def transfer(processes: Processes, snapshot: Snapshot, members: int, kills: int, seed: str) -> None:
    """Let processes transfer, and kill them one by one."""
    rng = random.Random(seed)
    found: list[dict[str, int]] = []
    try:
        for _ in range(members):
            processes.start()
        for _ in range(kills):
            processes.hear(rng.choice([20, 100, 300, 600]))
            processes.kill(rng.choice(processes.running))
            with snapshot() as query:
                found.append(check(query))
            processes.start()
        if members > 1:
            processes.hear(50)
            processes.kill(processes.running[-1])
            processes.stop_transfers()
        else:
            processes.hear(150)
            processes.stop_transfers()
        delivered(snapshot)
    finally:
        processes.close()
    logging.getLogger(__name__).info("%s acknowledged, %s", processes.acknowledged, found)
    assert processes.errors() == ""
    with snapshot() as query:
        last = check(query)
    assert last["dead"] > 0
    assert last["pairs"] > 50


@pytest.fixture
def where(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Snapshot]:
    """A storage, and how to read it."""
    if request.param == "file":
        path = tmp_path / "bank.db"
        return str(path), lambda: of_file(path)
    conninfo: str = request.getfixturevalue("postgres")
    return url_of(conninfo), lambda: of_database(conninfo)


@pytest.mark.parametrize(("where", "backend"), EACH if KILLS else EACH[::3], indirect=["where"])
def test_money_is_neither_lost_nor_doubled(
    tmp_path: Path, where: tuple[str, Snapshot], backend: str
) -> None:
    storage, snapshot = where
    processes = Processes(tmp_path, storage, backend)
    transfer(processes, snapshot, 1, KILLS or 1, f"{backend} {KILLS}")


@pytest.mark.parametrize(("where", "backend"), EACH if KILLS else EACH[1:3], indirect=["where"])
def test_money_is_neither_lost_nor_doubled_between_processes(
    tmp_path: Path, where: tuple[str, Snapshot], backend: str
) -> None:
    storage, snapshot = where
    processes = Processes(tmp_path, storage, backend, "cluster")
    transfer(processes, snapshot, 3, KILLS or 1, f"{backend} {KILLS}")
