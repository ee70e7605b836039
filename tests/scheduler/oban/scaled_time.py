"""Time that runs faster, for an event loop and for a server of PostgreSQL.

Oban runs in real time: its server decides what is due. So its tests can't use a virtual clock; here
all clocks are faster than real ones by the same factor.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import time

import psycopg

SCALE = float(os.environ.get("TRIO_DURABLE_OBAN_SCALE", "4"))
"""How much faster time is."""

_NOW = """
CREATE OR REPLACE FUNCTION {schema}.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
SELECT to_timestamp({virtual!r} + {scale!r}
    * (extract(epoch FROM pg_catalog.clock_timestamp())::float8 - {real!r}))
$$
"""


class _ScaledSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout and timeout / SCALE)


class ScaledLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio whose time is faster."""

    def __init__(self) -> None:
        super().__init__(_ScaledSelector())

    def time(self) -> float:
        """Seconds of the faster time."""
        return time.monotonic() * SCALE


def set_server(conninfo: str, schema: str, virtual: float) -> None:
    """Let ``now()`` be a faster time from now on, in sessions whose search path begins with
    ``schema`` and names ``pg_catalog`` after it.

    Args:
        conninfo: The connection string.
        schema: A schema.
        virtual: The time now, in seconds since 1970.
    """
    statement = _NOW.format(schema=schema, virtual=virtual, scale=SCALE, real=time.time())
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(statement.encode())
