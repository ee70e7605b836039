"""Processes are killed while recurring alarms fire: none ends, none has a firing twice.

Each object notes its firings in the commits that set the next ones. So what one snapshot has, read
between two kills as another program would, must agree to the microsecond: an alarm that delivers
all that it has missed is set for the second after the last one that the state knows.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .recurring_child import METERS, SECOND, dies
from .test_message_kills import EACH, KILLS, PATIENCE, Processes, Query, Snapshot, where

__all__ = ["where"]  # a fixture

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")

CHILD = Path(__file__).with_name("recurring_child.py")
LETTERS = "firing"
"""The mark of dead letters."""


def check(query: Query) -> dict[str, int]:
    """Check a snapshot; return some numbers, and the earliest time of a firing to come."""
    meters: dict[str, dict[str, Any]] = {
        object_id: json.loads(state)
        for object_id, state in query("SELECT object_id, state FROM durable_objects")
    }
    alarms: dict[str, dict[str, tuple[int, bool, str | None]]] = {key: {} for key in meters}
    for object_id, name, due_at, available_at, mark in query(
        "SELECT object_id, name, due_at, available_at, recurrence FROM durable_alarms"
    ):
        found = alarms.setdefault(object_id, {})
        found[name] = due_at, available_at is not None, mark
    earliest, dead = time.time_ns() // 1000, 0
    for object_id, found in alarms.items():
        meter = meters.get(object_id)
        if meter is None:
            # It has been started, or had its alarm turned on, and nothing has changed its state.
            live = {name for name, row in found.items() if row[1]}
            assert live - {"flaky"} in (set(), {"tick", "skipping"})
            continue
        assert meter["wrong"] == [], object_id
        letters = {name: row for name, row in found.items() if row[2] == LETTERS}
        dead += len(letters)
        for name, (due_at, is_live, _) in letters.items():
            assert name.startswith("flaky@")
            assert not is_live
            assert dies(due_at)
        expected = {"tick", "skipping", "flaky"}
        if "flaky" not in found:
            # It was deleted since, and not begun again.
            expected.discard("flaky")
            assert "flaky" not in meter["last"]
            assert not meter["is_off"]
        assert found.keys() - letters.keys() == expected, object_id
        for name in expected:
            due_at, is_live, mark = found[name]
            assert mark is not None
            is_off = name == "flaky" and meter["is_off"]
            assert (mark == "stopped", is_live) == (is_off, not is_off), (object_id, name)
            if not is_off and name in meter["last"]:
                assert due_at > meter["last"][name]
        due_at, last = found["tick"][0], meter["last"].get("tick")
        assert last is None or due_at == last + SECOND, object_id
        earliest = min(earliest, due_at)
    ticks = sum(meter["ticks"] for meter in meters.values())
    return {"meters": len(meters), "ticks": ticks, "dead": dead, "earliest": earliest}


class Meters(Processes):
    child = CHILD


def caught_up(snapshot: Snapshot) -> dict[str, int]:
    """Wait until all firings of the past have been delivered."""
    begun = time.time_ns() // 1000
    deadline = time.monotonic() + PATIENCE
    while True:
        with snapshot() as query:
            found = check(query)
        if found["earliest"] > begun:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def fire(processes: Processes, snapshot: Snapshot, members: int, kills: int, seed: str) -> None:
    """Let alarms fire, and kill the processes one by one."""
    rng = random.Random(seed)
    most = 0
    try:
        for _ in range(members):
            processes.start()
        for _ in range(kills):
            processes.hear(rng.choice([METERS, 3 * METERS, 5 * METERS]))
            processes.kill(rng.choice(processes.running))
            with snapshot() as query:
                found = check(query)
            most = max(most, found["dead"])
            processes.start()
        processes.hear(2 * METERS)
        last = caught_up(snapshot)
        assert all(each.poll() is None for each in processes.running)
    finally:
        processes.close()
    assert processes.errors() == ""
    assert last["meters"] > METERS // 2
    assert last["ticks"] > METERS
    assert max(most, last["dead"]) > 0


@pytest.mark.parametrize(("where", "backend"), EACH if KILLS else EACH[::3], indirect=["where"])
def test_recurring_alarms_neither_end_nor_double(
    tmp_path: Path, where: tuple[str, Snapshot], backend: str
) -> None:
    storage, snapshot = where
    fire(Meters(tmp_path, storage, backend), snapshot, 1, KILLS or 1, f"{backend} {KILLS}")


@pytest.mark.parametrize(("where", "backend"), EACH if KILLS else EACH[1:3], indirect=["where"])
def test_recurring_alarms_neither_end_nor_double_as_their_owners_die(
    tmp_path: Path, where: tuple[str, Snapshot], backend: str
) -> None:
    storage, snapshot = where
    processes = Meters(tmp_path, storage, backend, "cluster")
    fire(processes, snapshot, 3, KILLS or 1, f"{backend} {KILLS}")
