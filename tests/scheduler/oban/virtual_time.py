"""Virtual time for an event loop of asyncio and a server of PostgreSQL.

Oban's server decides which jobs are due, so a virtual clock of the loop alone has no effect. Here
the time of both is the same number. It stands still while anything runs, and jumps to the next
timer of the loop when nothing can happen before: no callback is ready, no thread has a job, and no
connection waits for the server. A connection that listens for notifications always waits, and
notifications come a moment after the commits that send them, so a jump that follows an answer of
the server gives them a few real milliseconds first. One that comes later is found by the stager at
its next interval.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.generators import notifies

GRACE = 0.003
"""Real seconds for notifications that are under way."""
LISTENING = 0.4
"""Seconds of virtual time for which a connection listens before it does something else."""
PATIENCE = 60.0
"""Real seconds in which a server or a thread has to answer."""

_CLOCK = """
CREATE SEQUENCE {schema}.virtual_now;
CREATE FUNCTION {schema}.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
SELECT timestamptz 'epoch' + last_value * interval '1 microsecond' FROM {schema}.virtual_now
$$
"""


def install_clock(conninfo: str, schema: str) -> None:
    """Make the ``now()`` that sessions have whose search path begins with a schema, and names
    ``pg_catalog`` after it.
    """
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_CLOCK.format(schema=schema).encode())


class ServerClock:
    """The time of a server with the ``now()`` of `install_clock`.

    Args:
        conninfo: The connection string.
        schema: The schema.
        loop: The event loop, whose time it follows.
        start: Microseconds since 1970 UTC at the loop's time zero.
    """

    def __init__(self, conninfo: str, schema: str, loop: VirtualLoop, start: int) -> None:
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self._set = f"SELECT setval('{schema}.virtual_now', %s)".encode()
        self._start = start
        self._loop = loop
        loop.clocks.append(self)
        self.advance()

    def advance(self) -> None:
        """Let the server have the loop's time."""
        self._connection.execute(self._set, [self._start + round(self._loop.time() * 1e6)])

    def close(self) -> None:
        self._loop.clocks.remove(self)
        self._connection.close()


class _JumpingSelector(selectors.DefaultSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self.loop
        events = super().select(0)
        if not events and timeout != 0 and loop.waits_for_others(self.get_map()):
            events = super().select(PATIENCE)
            assert events, "neither the server nor a thread answers"
        if not events and timeout != 0 and loop.has_heard:
            loop.has_heard = False
            events = super().select(GRACE)
        if events:
            loop.has_heard = True
        elif timeout is None:
            events = super().select()
        elif timeout > 0:
            loop.jump(timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio that jumps over time in which nothing happens."""

    def __init__(self) -> None:
        self._now = 0.0
        self.clocks: list[ServerClock] = []
        self.has_heard = False
        """True after an answer since the last jump, so that notifications may be under way."""
        self.jobs = 0
        """The number of threads that have a job."""
        self._listening: set[int] = set()
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        for clock in self.clocks:
            clock.advance()

    def waits_for_others(self, registered: Any) -> bool:
        """True if a thread or a server has something to do.

        Args:
            registered: The selector's files. The loop has one of its own, which wakes it.
        """
        return self.jobs > 0 or len(registered.keys() - self._listening) > 1

    @contextmanager
    def listens(self, file: int) -> Iterator[None]:
        """A block in which a connection waits for notifications."""
        self._listening.add(file)
        try:
            yield
        finally:
            self._listening.discard(file)


def tell_listeners_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let loops know which connections only listen."""
    wait = psycopg.AsyncConnection.wait

    async def wait_or_listen(self: Any, generator: Any, *args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        if generator.__name__ != notifies.__name__ or not isinstance(loop, VirtualLoop):
            return await wait(self, generator, *args, **kwargs)
        # psycopg's own timeout is of real time.
        try:
            with loop.listens(self.fileno()):
                async with asyncio.timeout(LISTENING):
                    return await wait(self, generator, interval=2 * LISTENING)
        except TimeoutError:
            raise psycopg.errors._WaitTimeout from None

    monkeypatch.setattr(psycopg.AsyncConnection, "wait", wait_or_listen)
