"""Processes that kill themselves at a named point of the library's work, under load.

    python killed.py

Starting Python and importing the library takes longer than the work, so this process does that
once and then forks a child for each line on its standard input, ``[PATH, RUN, POINT, NUMBER]``: the
child works on the file until it passes the point for the n-th time, and dies there of SIGKILL. What
it said to its pipe by then is read to the end and goes to standard output, with how it ended, as
one line: ``[STATUS, LINES]``.

The points are of what wraps the storage and its connection, of an instrument, and of the objects'
own code; the library knows nothing of them. A piece of work of the writer has up to five:

    commit begins              nothing is done yet
    commit before a statement
    commit amid a statement    a few steps of SQLite's machine into it
    commit behind a statement  with COMMIT among them
    commit done                nobody knows of it yet

What clients say: ``= CLIENT NUMBER REPLY`` when a call was acknowledged, and ``+ TOKEN`` when an
alarm was set. What they do is drawn in `Script`, so that whoever reads it knows what comes next.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NoReturn, cast

import anyio
import attrs

from trio_durable import Alarm, DurableObject, DurableRuntime, SQLiteStorage, handler
from trio_durable._keys import AlarmKey
from trio_durable.storage import Commit, ForwardingWriter, Postponement, StoredAlarm, Writer
from trio_durable.telemetry import Hibernated, Instrument, Left, Point

_PATIENCE = 20.0
"""Seconds after which it is clear that the point is never passed."""
_WORKING_TIME = 0.1
"""Seconds after which a process that is to die in closing closes."""
NOT_PASSED = 3
"""The exit code then."""


def points_of(work: str) -> list[str]:
    """The points of a piece of the writer's work."""
    return [
        f"{work} begins",
        f"{work} before a statement",
        f"{work} amid a statement",
        f"{work} behind a statement",
        f"{work} done",
    ]


WORKS = {
    **{
        work: points_of(work)
        for work in ("commit", "acknowledgement", "deletion", "claim", "postpone", "drop_tenant")
    },
    "closing": ["closing begins", "closing done"],
    "turns": ["ctx.commit begins", "ctx.commit done", "delete handled", "alarm handled"],
    "memory": ["hibernation", "eviction"],
}
"""The points, by what is under way."""


class Trap:
    """Kills the process when a point is passed for the n-th time."""

    def __init__(self) -> None:
        self.point = ""
        self.left = 0

    def pass_by(self, point: str) -> None:
        """Note that a point is passed."""
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                time.sleep(0.02)  # what was let out too early is heard by then
                os.kill(os.getpid(), signal.SIGKILL)


trap = Trap()


# --- the storage ---------------------------------------------------------------------------------


class TrappedConnection(sqlite3.Connection):
    """Passes points around and amid its statements, when it is known for what they are."""

    work = ""

    def begin(self, work: str) -> None:
        self.work = work
        trap.pass_by(f"{work} begins")

    def end(self) -> None:
        trap.pass_by(f"{self.work} done")
        self.work = ""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        trap.pass_by(f"{self.work} before a statement")
        cursor = super().execute(sql, parameters)
        trap.pass_by(f"{self.work} behind a statement")
        return cursor

    def amid(self) -> int:
        trap.pass_by(f"{self.work} amid a statement")
        return 0


class TrappedStorage(SQLiteStorage):
    _connection: TrappedConnection | None = None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=2, isolation_level=None, factory=TrappedConnection
        )
        if self._connection is None:  # the first is the writer's
            self._connection = connection
            connection.set_progress_handler(connection.amid, 25)
            connection.begin("opening")
        return connection

    def open_writer(self) -> Writer:
        writer = super().open_writer()
        assert self._connection is not None
        self._connection.end()
        return TrappedWriter(writer, self._connection)


class TrappedWriter(ForwardingWriter):
    def __init__(self, inner: Writer, connection: TrappedConnection) -> None:
        super().__init__(inner)
        self._connection = connection

    @contextlib.contextmanager
    def _working(self, work: str) -> Iterator[None]:
        self._connection.begin(work)
        yield
        self._connection.end()

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        work = "commit"
        if any(commit.delete for commit in batch):
            work = "deletion"
        elif any(commit.alarms and commit.alarms.acknowledged for commit in batch):
            work = "acknowledgement"
        with self._working(work):
            return super().commit(batch, now)

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        with self._working("claim"):
            return super().claim(alarms, claim, now, until)

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        with self._working("postpone"):
            super().postpone(postponements)

    def drop_tenant(self, tenant: str) -> bool:
        with self._working("drop_tenant"):
            return super().drop_tenant(tenant)

    def close(self) -> None:
        trap.pass_by("closing begins")
        super().close()
        trap.pass_by("closing done")


class Watcher(Instrument):
    def on_event(self, event: Point) -> None:
        if isinstance(event, Hibernated):
            trap.pass_by("hibernation")
        elif isinstance(event, Left):
            trap.pass_by("eviction")


# --- what the process does -----------------------------------------------------------------------


class Page(DurableObject, hibernate_after=0.005, shutdown_after=0.02, call_timeout=60):
    """Every turn changes all fields together, so that half a turn would show."""

    names: list[str] = attrs.field(factory=list)
    total: int = 0
    last: str = ""

    @handler
    def note(self, name: str) -> int:
        self.names.append(name)
        self.total += 1
        self.last = name
        return self.total

    @handler
    async def note_twice(self, name: str) -> int:
        """Two commits in one turn, each of which may be the last one."""
        self.note.function(f"{name}a")
        trap.pass_by("ctx.commit begins")
        await self.ctx.commit()
        trap.pass_by("ctx.commit done")
        return self.note.function(f"{name}b")

    @handler
    def erase(self) -> int:
        self.ctx.delete()
        trap.pass_by("delete handled")
        return 0

    @handler
    def fail(self, name: str) -> int:
        self.note.function(name)
        raise ValueError(name)


class Chime(DurableObject, hibernate_after=0.005, call_timeout=60):
    """What was set and what has gone off; each token is an alarm's name."""

    planned: list[str] = attrs.field(factory=list)
    fired: list[str] = attrs.field(factory=list)

    @handler
    def plan(self, token: str, delay: float) -> None:
        self.planned.append(token)
        self.ctx.schedule_alarm(token, after=delay)

    def handle_alarm(self, alarm: Alarm) -> None:
        self.fired.append(alarm.name)
        trap.pass_by("alarm handled")
        if alarm.attempt == 1 and alarm.name.endswith("7"):
            raise ValueError(alarm.name)


Pages = dict[str, list[str]]
"""By id, the names on each page that is there, of one client."""


class Script:
    """What a client does, one call after the other, and what is there after each."""

    def __init__(self, client: str, tenant: str, *, drops: bool) -> None:
        self.client = client
        self.tenant = tenant
        self.drops = drops
        """Whether it is the only client of its tenant, and drops it again and again."""

    def call(self, number: int) -> tuple[str, str, str]:
        """The n-th thing to do, from 1: what, to which page, under which name."""
        cycle = ("note", "note", "note_twice", "drop") if self.drops else _CYCLE
        page = f"{self.client}-{number % 2 if self.drops else 0}"
        return cycle[number % len(cycle)], page, f"{self.client}.{number}"

    def after(self, number: int) -> list[Pages]:
        """What may be there when so many were acknowledged and the next one may have begun."""
        pages: Pages = {}
        for n in range(1, number + 1):
            pages = self._steps(pages, n)[-1]
        return [pages, *self._steps(pages, number + 1)]

    def reply(self, number: int) -> int:
        """What the n-th call returns."""
        what, page, _ = self.call(number)
        return -1 if what == "fail" else len(self.after(number)[0].get(page, ()))

    def _steps(self, pages: Pages, number: int) -> list[Pages]:
        what, page, name = self.call(number)
        names = pages.get(page, [])
        match what:
            case "note":
                return [pages | {page: [*names, name]}]
            case "note_twice":
                first = pages | {page: [*names, f"{name}a"]}
                return [first, pages | {page: [*names, f"{name}a", f"{name}b"]}]
            case "erase":
                return [{other: names for other, names in pages.items() if other != page}]
            case "drop":
                return [{}]
            case _:
                return [pages]


_CYCLE = ("note", "note", "note_twice", "note", "fail", "note_twice", "erase")


def scripts(run: int) -> list[Script]:
    """The clients of one process."""
    return [
        *(Script(f"{run}.{n}", "acme" if n % 3 == 2 else "", drops=False) for n in range(6)),
        *(Script(f"{run}.{n}", f"t{run}-{n}", drops=True) for n in range(6, 8)),
    ]


def say(*words: object) -> None:
    # One write: a kill leaves the line wholly or not at all.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def client(runtime: DurableRuntime, script: Script) -> None:
    for number in itertools.count(1):
        what, page, name = script.call(number)
        objects = runtime.tenant(script.tenant) if script.tenant else runtime
        reply = 0
        match what:
            case "drop":
                await runtime.drop_tenant(script.tenant)
            case "erase":
                reply = await objects.get(Page, page).erase()
            case "fail":
                with contextlib.suppress(ValueError):
                    await objects.get(Page, page).fail(name)
                reply = -1
            case _:
                reply = cast("int", await objects.call(Page, page, what, name))
        say("=", script.client, number, reply)
        if number % 10 == 0:
            await anyio.sleep(0.03)  # so that its page leaves memory


async def ringer(runtime: DurableRuntime, run: int, number: int) -> None:
    for n in itertools.count():
        token = f"{run}.{number}.{n}"
        await runtime.get(Chime, f"chime {run} {n % 3}").plan(token, [0, 0.001, 0.01, 0.5][n % 4])
        say("+", token)


async def work(path: str, run: int, backend_closes: bool) -> None:
    with anyio.move_on_after(_PATIENCE):
        async with DurableRuntime(
            TrappedStorage(path),
            objects=[Page, Chime],
            polling_interval=0.2,
            max_resident=4,
            instruments=[Watcher()],
        ) as runtime:
            with anyio.move_on_after(_WORKING_TIME if backend_closes else _PATIENCE):
                async with anyio.create_task_group() as tasks:
                    for script in scripts(run):
                        tasks.start_soon(client, runtime, script)
                    for number in range(2):
                        tasks.start_soon(ringer, runtime, run, number)


def child(path: str, run: int, point: str, number: int) -> NoReturn:
    logging.getLogger("trio_durable.alarms").disabled = True  # some fail, as they should
    trap.point, trap.left = point, number
    signal.alarm(int(2 * _PATIENCE))  # if it can't even close
    anyio.run(work, path, run, point.startswith("closing"), backend="trio")
    os._exit(NOT_PASSED)


def main() -> None:
    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.dup2(writing, 1)
            child(*json.loads(line))
        os.close(writing)
        with open(reading) as pipe:
            lines = pipe.read().splitlines()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), lines]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
