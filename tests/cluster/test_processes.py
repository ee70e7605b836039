"""A cluster of real processes on one file: killed, stopped, terminated and forked.

Processes of all event loops, in turn. The bounds of time are those of a busy machine; each is far
below the time after which only silence would tell.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from .members import BACKENDS, POINTS
from .processes import (
    MemberError,
    MemberProcess,
    Processes,
    eventually,
    processes_on,
    server_of_processes,
)

SOON = 1.5
"""Seconds for a take-over. Silence would tell after 5 (`Cluster.ttl`)."""
STEPS_OF_OWNING = list(POINTS)[: list(POINTS).index("first change committed") + 1]
STEPS_OF_LEAVING = list(POINTS)[list(POINTS).index("note removed") :]


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    with server_of_processes() as started:
        yield started


@pytest.fixture
def processes(server: subprocess.Popen[str], tmp_path: Path) -> Iterator[Processes]:
    with processes_on(server, tmp_path / "app.db") as started:
        yield started
    assert "a fault" not in started.log()
    assert "has failed" not in started.log()


def stored(path: Path) -> dict[str, list[str]]:
    """The names of each ledger, as another program reads them."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT object_id, state FROM durable_objects").fetchall()
    return {object_id: json.loads(state)["names"] for object_id, state in rows}


def check(path: Path, outcomes: list[Any]) -> None:
    """Each acknowledged name is there, at its place, and no name is there twice."""
    places = {}
    for names in stored(path).values():
        assert len(set(names)) == len(names)
        places.update({name: place for place, name in enumerate(names, 1)})
    for name, outcome, _ in outcomes:
        if isinstance(outcome, list):
            assert places.get(name) == outcome[0], name


def errors(outcomes: list[Any]) -> set[str]:
    return {outcome for _, outcome, _ in outcomes if isinstance(outcome, str)}


def owner_of(member: MemberProcess) -> int:
    """The pid of the process that has the objects."""
    [owner] = [pid for pid, shards in member.ask("nodes") if shards]
    return int(owner)


# --- death -------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", STEPS_OF_OWNING)
def test_a_successor_may_die_at_each_step_of_taking_over(processes: Processes, point: str) -> None:
    number = list(POINTS).index(point)
    backends = [BACKENDS[(number + n) % 3] for n in range(3)]
    first = processes.start(backends[0])
    heir = processes.start(backends[1], die_at=point, enters=False)
    heir.entered()
    last = processes.start(backends[2])
    last.ask("hold back", True)
    assert last.call("append", "0", "before") == [1, []]
    calls = last.begin("call many", "append", "x", 8, 20)
    first.kill()
    heir.gone()
    began = time.monotonic()
    last.ask("hold back", False)
    outcomes = last.outcome(calls)
    assert time.monotonic() - began < SOON + 1
    assert errors(outcomes) <= {"OwnerLost"}
    assert len([each for each in outcomes if each[1] == "OwnerLost"]) <= 16  # twice in flight
    assert owner_of(last) == last.pid
    check(processes.path, outcomes)


@pytest.mark.parametrize("point", STEPS_OF_LEAVING)
def test_an_owner_may_die_at_each_step_of_leaving(processes: Processes, point: str) -> None:
    number = list(POINTS).index(point)
    first = processes.start(BACKENDS[number % 3], die_at=point)
    second = processes.start(BACKENDS[(number + 1) % 3])
    calls = second.begin("call many", "append", "x", 8, 40)
    eventually(lambda: bool(stored_quietly(processes.path)))
    first.terminate()
    first.gone()
    outcomes = second.outcome(calls)
    # Answers are on their way until the goodbye.
    assert errors(outcomes) <= (set() if point == "lock released" else {"OwnerLost"})
    check(processes.path, outcomes)


def stored_quietly(path: Path) -> dict[str, list[str]]:
    with suppress(sqlite3.OperationalError):
        return stored(path)
    return {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_others_go_on_within_milliseconds(processes: Processes, backend: str) -> None:
    first = processes.start(backend)
    others = [processes.start(each) for each in BACKENDS]
    calls = [each.begin("call many", "append", f"{n}", 4, 300) for n, each in enumerate(others)]
    eventually(lambda: bool(stored_quietly(processes.path)))
    first.kill()
    outcomes = [each for n, other in enumerate(others) for each in other.outcome(calls[n])]
    assert errors(outcomes) <= {"OwnerLost"}
    assert max(seconds for _, _, seconds in outcomes) < SOON
    assert len({owner_of(each) for each in others}) == 1
    check(processes.path, outcomes)


def test_only_a_def_that_reads_is_repeated(processes: Processes) -> None:
    first, second = processes.start("trio"), processes.start("asyncio")
    assert second.call("append", "a", "x") == [1, []]
    first.stop()
    reading = second.begin("call", "read", "a")
    others = [
        second.begin("call", "read_slowly", "a", 0),
        second.begin("call", "append", "a", "y"),
        second.begin("call", "append_slowly", "a", "z", 0),
    ]
    for _ in range(3):
        second.ask("nothing")  # they are sent by then
    first.kill()
    assert second.outcome(reading) == ["x"]
    for number in others:
        with pytest.raises(MemberError) as caught:
            second.outcome(number)
        assert caught.value.kind == "OwnerLost"
    assert second.call("read", "a") == ["x"]


# --- forks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_process_keeps_neither_lock_nor_sockets(
    processes: Processes, backend: str
) -> None:
    first = processes.start(backend)
    second = processes.start("asyncio")
    assert second.call("append", "0", "a") == [1, []]
    sleeper = first.ask("fork", 60)
    try:
        calls = second.begin("call many", "append", "x", 4, 50)
        first.kill()
        outcomes = second.outcome(calls)
        os.kill(sleeper, 0)  # it is alive
    finally:
        os.kill(sleeper, signal.SIGKILL)
    assert errors(outcomes) <= {"OwnerLost"}
    assert max(seconds for _, _, seconds in outcomes) < SOON
    assert owner_of(second) == second.pid
    check(processes.path, outcomes)


# --- a stopped owner ---------------------------------------------------------------------------


def test_a_stopped_owner_is_not_overruled(processes: Processes) -> None:
    first = processes.start("trio")
    second = processes.start("asyncio", settings={"ttl": 1}, runtime={"call_timeout": 3})
    assert second.call("append", "0", "a") == [1, []]
    first.stop()
    sent = second.begin("call", "append", "0", "b")
    began = time.monotonic()
    with pytest.raises(MemberError) as refused:
        processes.start("asyncio+uvloop", enters=False).entered()
    assert refused.value.kind == "StorageInUse"
    assert str(first.pid) in refused.value.text
    assert time.monotonic() - began < 10
    with pytest.raises(MemberError) as caught:
        second.outcome(sent)
    assert caught.value.kind == "OwnerLost"  # silent for its TTL
    with pytest.raises(MemberError) as caught:
        second.call("append", "0", "c")
    assert caught.value.kind == "CallTimeout"
    first.go_on()
    _, before = second.call("append", "0", "d")
    assert before in (["a"], ["b"])  # that which was sent may have run, the other never did
    assert owner_of(second) == first.pid


def test_a_stopped_member_does_not_hold_up_the_others(processes: Processes) -> None:
    first = processes.start("trio", settings={"ttl": 1})
    second, third = processes.start("asyncio"), processes.start("asyncio+uvloop")
    calls = second.begin("call many", "append", "x", 16, 200)
    eventually(lambda: bool(stored_quietly(processes.path)))
    second.stop()
    assert third.call("append", "a", "b") == [1, []]
    eventually(lambda: [pid for pid, _ in third.ask("nodes")] == [first.pid, third.pid])
    second.go_on()
    outcomes = second.outcome(calls)
    assert errors(outcomes) <= {"OwnerLost"}
    check(processes.path, outcomes)


# --- leaving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rest", [("append",), ("append_slowly", 0.01)])
@pytest.mark.parametrize("listen", [None, "tcp://127.0.0.1:0"], ids=["unix", "tcp"])
def test_a_terminated_owner_costs_a_delay_and_no_error(
    processes: Processes, backend: str, rest: tuple[str, ...], listen: str | None
) -> None:
    handler, *arguments = rest
    settings = {"listen": listen}
    first = processes.start(backend, settings=settings)
    others = [processes.start(each, settings=settings) for each in BACKENDS]
    calls = [
        each.begin("call many", handler, f"{n}", 4, 100, *arguments)
        for n, each in enumerate(others)
    ]
    eventually(lambda: bool(stored_quietly(processes.path)))
    first.terminate()
    first.gone()
    outcomes = [each for n, other in enumerate(others) for each in other.outcome(calls[n])]
    assert errors(outcomes) == set()
    assert {owner_of(each) for each in others} <= {each.pid for each in others}
    check(processes.path, outcomes)


def test_administration_under_way_is_answered_before_the_owner_leaves(
    processes: Processes,
) -> None:
    first, second = processes.start("trio"), processes.start("asyncio")
    requests = []
    for n in range(200):
        requests.append(second.begin("put", f"{n % 5}", [f"{n}"]))
        if n == 50:
            first.terminate()
    first.gone()
    for number in requests:
        assert second.outcome(number) is None
    for object_id, [last] in stored(processes.path).items():  # they came in any order
        assert int(last) % 5 == int(object_id)


def test_what_was_answered_is_read_although_the_owner_has_left(processes: Processes) -> None:
    """A process that was stopped finds its connection closed, and answers in front of the end."""
    first = processes.start("trio")
    second = processes.start("trio")
    names = [str(n) * 10_000 for n in range(10)]
    for n, name in enumerate(names):
        second.call("append", f"{n}", name)
    under_way = [second.begin("call", "read_slowly", f"{n}", 0.5) for n in range(len(names))]
    second.ask("nothing")
    second.stop()
    first.terminate()
    first.gone()
    late = [second.begin("call", "append", "late", f"{n}") for n in range(3)]
    second.go_on()
    for name, number in zip(names, under_way, strict=True):
        assert second.outcome(number) == [name]
    for number in late:
        with suppress(MemberError):
            second.outcome(number)


# --- entering ----------------------------------------------------------------------------------


def test_processes_may_enter_at_the_same_time(processes: Processes) -> None:
    for n in range(10):
        entering = [processes.start(each, enters=False) for each in BACKENDS]
        for each in entering:
            each.entered()
        assert len({owner_of(each) for each in entering}) == 1
        for m, each in enumerate(entering):
            assert each.call("append", "a", f"{n}.{m}")[0] == 3 * n + m + 1
        if n % 2:
            for each in entering:
                each.kill()
        else:
            for each in entering:
                each.terminate()
        for each in entering:
            each.gone()


def test_a_client_calls_and_never_owns(processes: Processes) -> None:
    first = processes.start("trio")
    client = processes.start("asyncio", settings={"serve": False}, runtime={"call_timeout": 2})
    assert client.call("append", "a", "x") == [1, []]
    first.kill()
    with pytest.raises(MemberError) as caught:
        owner_of(client)  # a request that may be repeated
    assert caught.value.kind == "CallTimeout"
    second = processes.start("asyncio+uvloop")
    assert client.call("append", "a", "z") == [2, ["x"]]
    assert owner_of(client) == second.pid


# --- files -------------------------------------------------------------------------------------


def test_a_socket_and_a_note_left_by_the_dead_are_replaced(processes: Processes) -> None:
    first = processes.start("trio")
    first.kill()
    first.gone()
    folder = processes.path.parent
    assert (folder / "app.db-socket").exists()
    assert (folder / "app.db-node").exists()
    second = processes.start("asyncio")
    third = processes.start("trio")
    assert third.call("append", "a", "x") == [1, []]
    assert owner_of(third) == second.pid


def test_a_dead_process_whose_socket_something_keeps_is_replaced(processes: Processes) -> None:
    """As a process does that was forked by code which doesn't know of Python's hooks."""
    with socket.socket(socket.AF_UNIX) as kept:
        kept.bind(str(processes.path.with_name("app.db-socket")))
        kept.listen()
        first = processes.start("trio")
        second = processes.start("asyncio")
        assert second.call("append", "a", "x") == [1, []]
        assert owner_of(second) == first.pid


@pytest.mark.parametrize("names", ["node", "socket", "lock", "node socket lock"])
def test_files_that_were_removed_are_restored(processes: Processes, names: str) -> None:
    first, second = processes.start("trio"), processes.start("asyncio")
    assert second.call("append", "a", "x") == [1, []]
    for name in names.split():
        processes.path.with_name(f"app.db-{name}").unlink()
    third = processes.start("asyncio+uvloop")
    assert third.call("append", "a", "y") == [2, ["x"]]
    assert {owner_of(each) for each in (first, second, third)} == {first.pid}
    first.kill()
    assert owner_of(second) == owner_of(third) != first.pid
    assert second.call("append", "a", "z") == [3, ["y"]]
    assert third.call("append", "a", "w") == [4, ["z"]]
