"""Threads that stop before each statement, and a scheduler that lets one of them go on at a time.

A thread stops at `Connection.wait`, which psycopg waits in for each answer of the server. It goes
on when the scheduler says so, until its next statement, or until the server lets it wait for a lock
of a transaction that another thread holds open. So the order of all statements is that of the
scheduler, and the same each time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from trio_durable.storage.postgres._connection import Connection

_LOOK_SECONDS = 0.002
_BOUND_SECONDS = 30.0
_WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND pid = ANY (%s)"


class Abandoned(BaseException):
    """The test has ended while a thread stood before a statement."""


class Actor:
    """A thread of a member, such as the one of its writer, which does one task at a time."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self._scheduler = scheduler
        self.name = name
        self.task: Callable[[], None] | None = None
        self.has_stopped = False
        """It stands before a statement."""
        self.pid = 0
        """The server's process that it has spoken to last."""
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        return self.task is None

    @property
    def is_moving(self) -> bool:
        """It runs, or waits for the server."""
        return self.task is not None and not self.has_stopped

    def _run(self) -> None:
        scheduler = self._scheduler
        scheduler.actors_by_thread[threading.get_ident()] = self
        while True:
            with scheduler.changed:
                scheduler.changed.wait_for(lambda: self.task is not None or scheduler.is_over)
                task = self.task
            if task is None:
                return
            try:
                task()
            except Abandoned:
                return
            except BaseException as error:  # noqa: BLE001  # raised in the test
                self.errors.append(error)
            with scheduler.changed:
                self.task = None
                scheduler.changed.notify_all()

    def stop(self, connection: Connection) -> None:
        """Stand before a statement until the scheduler says that it may be sent."""
        scheduler = self._scheduler
        with scheduler.changed:
            self.has_stopped = True
            self.pid = connection.pgconn.backend_pid
            scheduler.changed.notify_all()
            scheduler.changed.wait_for(lambda: not self.has_stopped or scheduler.is_over)
            if scheduler.is_over:
                raise Abandoned


class Scheduler:
    """Lets threads go on, one at a time.

    Args:
        admin: A connection that sees who waits for locks.
    """

    def __init__(self, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._admin = admin
        self.changed = threading.Condition()
        self.actors: list[Actor] = []
        self.actors_by_thread: dict[int, Actor] = {}
        self.is_over = False

    def add(self, name: str) -> Actor:
        actor = Actor(self, name)
        self.actors.append(actor)
        return actor

    def start(self, actor: Actor, task: Callable[[], None]) -> None:
        """Let an idle thread begin a task, up to its first statement."""
        assert actor.is_idle
        with self.changed:
            actor.task = task
            self.changed.notify_all()
        self.settle()

    def step(self, actor: Actor) -> None:
        """Let a thread send the statement that it stands before."""
        with self.changed:
            actor.has_stopped = False
            self.changed.notify_all()
        self.settle()

    def settle(self) -> None:
        """Return when each thread is idle, stands before a statement, or waits for a lock."""
        rounds = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda: not self._moving(), _LOOK_SECONDS)
                moving = self._moving()
            for actor in self.actors:
                if actor.errors:
                    raise actor.errors.pop()
            if not moving:
                return
            pids = [actor.pid for actor in moving]
            waiting = {pid for (pid,) in self._admin.execute(_WAITING, (pids,))}
            with self.changed:
                if waiting.issuperset(pids) and moving == self._moving():
                    return
            rounds += 1
            assert rounds < _BOUND_SECONDS / _LOOK_SECONDS, "a thread doesn't come to rest"

    def _moving(self) -> list[Actor]:
        return [actor for actor in self.actors if actor.is_moving]

    def end(self) -> None:
        """Let all threads end, wherever they stand."""
        with self.changed:
            self.is_over = True
            self.changed.notify_all()


@contextmanager
def scheduler_of(
    admin: psycopg.Connection[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scheduler]:
    """A scheduler of the threads that are added to it. All others run as ever."""
    scheduler = Scheduler(admin)
    wait = Connection.wait

    def stopping(self: Connection, *args: Any, **kwargs: Any) -> Any:
        actor = scheduler.actors_by_thread.get(threading.get_ident())
        if actor is not None and not scheduler.is_over:
            actor.stop(self)
        return wait(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "wait", stopping)
        try:
            yield scheduler
        finally:
            scheduler.end()
