"""Storage in an SQLite file: opening it, and its durability.

The journal is a write-ahead log. ``synchronous=FULL`` syncs the log at every commit. ``NORMAL``
syncs it at the next checkpoint, so that a power loss, but not a crash of the process, may undo the
latest commits. Either way a commit survives as a whole or not at all.

A failed fsync can't be retried: the kernel has dropped the dirty pages, and the next fsync succeeds
without them. With ``FULL`` that is harmless, since a failed commit isn't part of the log and the
next commit overwrites it. If the process ends before that, the failed commit may be in the file
when it is opened again, as a whole, as if the process had crashed before the reply. With ``NORMAL``
a checkpoint relies on older parts of the log, so a failed fsync followed by a power loss may
corrupt the file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from ..._durations import Duration, seconds
from ..._errors import SchemaTooNew, StorageUnavailable
from .._contract import Durability, Reader, Storage, Writer
from .._faults import StorageFault
from .._moves import Move
from .._records import Finding
from . import _moves as moves
from ._database_file import DatabaseFile, identity_of
from ._lock import FileLock
from ._log import Log, open_log
from ._migrations import Schema, is_partial, warn_of_tenant
from ._names import TableNames
from ._reader import SQLiteReader
from ._tables import UNDECODABLE_MESSAGE, TenantTables, advice_for
from ._transaction import transaction
from ._watch import FileWatch
from ._writer import SQLiteWriter

_MIN_SQLITE = (3, 38)
"""SQLite 3.38 introduced the ``->>`` operator."""

LOG_LIMIT = 16 * 1024 * 1024
"""Size in bytes to which SQLite truncates a larger log when it begins it again. Without a long
reader that is after every 1000 pages, some 4 MB."""


class SQLiteStorage(Storage):
    """Objects in the SQLite file at ``path``.

    One runtime at a time may write; any number of processes may read at the same time. Hard links
    and bind mounts of a file count as the same file on Linux. A file that is removed, replaced or
    overwritten while it is open is noticed within a second, and from then on nothing is
    acknowledged.

    Args:
        path: The file, which is created if it doesn't exist. Its folder must exist.
        durability: ``"full"`` syncs every commit to the disk; ``"normal"`` may lose the latest
            commits in a power loss, but not in a crash of the process.
        busy_timeout: How long to wait while another process has the file locked, a ``timedelta``
            or seconds.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        busy_timeout: Duration = 2.0,
    ) -> None:
        if durability not in ("full", "normal"):
            raise ValueError(f'durability must be "full" or "normal", not {durability!r}')
        # Resolved, because two spellings of one path must share one lock file.
        self._path = Path(os.path.realpath(path))
        self._durability = durability
        self._busy_timeout = seconds(busy_timeout, "busy_timeout")
        self._file: DatabaseFile | None = None  # the writer's, which the reader shares

    @property
    def location(self) -> str:
        """The path."""
        return str(self._path)

    @property
    def keeps_messages(self) -> bool:
        """Always True."""
        return True

    def open_writer(self) -> Writer:
        """See `Storage.open_writer`."""
        self._require_sqlite()
        if not self._path.parent.is_dir():
            raise StorageUnavailable(
                self.location, f"there is no folder {self._path.parent}; make it first"
            )
        self._refuse_a_folder()
        with ExitStack() as undo:
            lock = self._lock()
            undo.callback(lock.release)
            # Before SQLite opens the file, since recovering it is a change, too.
            self._file = self._open_file()
            undo.callback(self._file.release)
            self._refuse_logs_of_other_names(self._file)
            connection = self._connect()
            undo.callback(connection.close)
            schema = self._prepare(connection)
            watch = self._watch(self._file)
            log = self._open_log(connection)
            writer = SQLiteWriter(connection, schema, lock, watch, log)
            undo.pop_all()
            return writer

    def _lock(self) -> FileLock:
        try:
            return FileLock(self._path.with_name(self._path.name + "-lock"), self.location)
        except OSError as error:
            raise StorageUnavailable(
                self.location, f"its lock file can't be opened ({error}); make the folder writable"
            ) from error

    def _open_file(self) -> DatabaseFile:
        try:
            return DatabaseFile(self._path)
        except OSError as error:
            raise StorageUnavailable(
                self.location,
                f"it can't be opened for writing ({error.strerror}); check the path and its "
                "permissions: make the file and its folder writable",
            ) from error

    def _refuse_logs_of_other_names(self, file: DatabaseFile) -> None:
        # No runtime has the file open under any name, so such a log is left from a crash. Here its
        # commits would be missing, and applied later it would damage the file.
        try:
            logs = [name.with_name(f"{name.name}-wal") for name in file.other_names(self._path)]
            left = [log for log in logs if log.exists() and log.stat().st_size]
        except OSError as error:
            raise StorageUnavailable(
                self.location, f"its folder can't be read ({error.strerror}); make it readable"
            ) from error
        if left:
            raise StorageUnavailable(
                self.location,
                f"the file has another name, whose log {left[0]} may have commits that are not in "
                f"the file; open {left[0].name.removesuffix('-wal')} first, and keep one name only",
            )

    def _watch(self, file: DatabaseFile | None = None) -> FileWatch:
        try:
            watch = FileWatch(self._path, file or self._file_of_writer())
            watch.check_all()
        except StorageFault as fault:
            raise StorageUnavailable(self.location, str(fault)) from fault
        except OSError as error:
            raise StorageUnavailable(
                self.location, f"it can't be checked ({error.strerror})"
            ) from error
        return watch

    def _open_log(self, connection: sqlite3.Connection) -> Log | None:
        # With "normal" a commit syncs nothing, so the growth of the log costs next to nothing.
        with self._opening():
            return open_log(connection, self._path, fills=self._durability == "full")

    def open_reader(self) -> Reader:
        """See `Storage.open_reader`."""
        connection = self._connect_to_existing()
        try:
            with self._opening():
                connection.execute("PRAGMA query_only = ON")
                schema = self._checked_schema(connection)
                if schema.is_new():
                    raise StorageUnavailable(
                        self.location, "it holds no durable objects; check the path"
                    )
                if any(not tenant for tenant, _ in schema.pending()):
                    raise StorageUnavailable(
                        self.location,
                        "its tables are of an older release; bring them up to date with "
                        "`trio-durable migrate`",
                    )
                return SQLiteReader(connection, schema, self._watch())
        except BaseException:
            connection.close()
            raise

    def _file_of_writer(self) -> DatabaseFile | None:
        """The writer's descriptor, if the path still leads to its file."""
        file = self._file
        if file is None or not file.is_open or identity_of(os.stat(self._path)) != file.identity:
            return None
        return file

    def pending_migrations(self) -> list[str]:
        """See `Storage.pending_migrations`."""
        with closing(self._connect_to_existing()) as connection, self._opening():
            schema = self._checked_schema(connection)
            # Only a runtime adds its tables to a foreign file: a mistyped path must not.
            if schema.is_foreign():
                raise StorageUnavailable(
                    self.location,
                    "it holds tables, but no durable objects; check the path (a runtime would add "
                    "its own tables)",
                )
            return [
                f"{name} of tenant {tenant}" if tenant else name
                for tenant, name in schema.pending()
            ]

    def list_moves(self) -> list[Move]:
        """See `Storage.list_moves`."""
        with closing(self._connect_to_existing()) as connection, self._opening():
            return moves.list_moves(connection)

    def reopen(self, tenant: str = "") -> bool:
        """See `Storage.reopen`."""
        lock = self._lock()
        try:
            with closing(self._connect_to_existing()) as connection, self._opening():
                return moves.take_back(connection, tenant)
        finally:
            lock.release()

    def diagnose(self, thorough: bool = False) -> Iterator[Finding]:
        """See `Storage.diagnose`."""
        try:
            self._require_sqlite()
        except StorageUnavailable as error:
            yield Finding("sqlite", "problem", error.problem, "install a newer Python")
            return
        # Imported here, because only the command needs it.
        from ._doctor import Examination

        yield Finding("sqlite", "ok", f"SQLite {sqlite3.sqlite_version}")
        yield from Examination(self._path, self._connect, self._busy_timeout, thorough).findings()

    def _require_sqlite(self) -> None:
        if sqlite3.sqlite_version_info < _MIN_SQLITE:
            raise StorageUnavailable(
                self.location,
                f"this Python has SQLite {sqlite3.sqlite_version}; 3.38 or newer is needed",
            )

    def _connect_to_existing(self) -> sqlite3.Connection:
        self._require_sqlite()
        if not self._path.exists():  # SQLite would create it
            raise StorageUnavailable(self.location, "there is no such file; check the path")
        self._refuse_a_folder()
        return self._connect()

    def _refuse_a_folder(self) -> None:
        if self._path.is_dir():
            raise StorageUnavailable(self.location, "it is a folder; name a file in it")

    def _checked_schema(self, connection: sqlite3.Connection) -> Schema:
        schema = Schema(connection)
        unknown = schema.unknown()
        if unknown:
            raise SchemaTooNew(self.location, "", tuple(unknown))
        schema.moves = {move.tenant: move for move in moves.list_moves(connection)}
        return schema

    def _connect(self) -> sqlite3.Connection:
        with self._opening():
            return sqlite3.connect(self._path, timeout=self._busy_timeout, isolation_level=None)

    def _prepare(self, connection: sqlite3.Connection) -> Schema:
        with self._opening():
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StorageUnavailable(
                    self.location, f"SQLite keeps its journal in {mode} mode here; WAL is needed"
                )
            connection.execute(f"PRAGMA synchronous = {self._durability}")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
            schema = self._checked_schema(connection)
            if "" in schema.moves:
                raise schema.moves[""].refusal(self.location)
            schema.apply()
            with transaction(connection):
                schema.mark()
            for tenant in ("", *schema.tenants()):
                try:
                    # Fail now if the file isn't writable, and not at the first commit. Beginning a
                    # write transaction doesn't show it.
                    connection.execute(f"DELETE FROM {TableNames(tenant).objects} WHERE 0")
                    tables = TenantTables(connection, tenant)
                    tables.alarms.give_back()
                    tables.alarms.warn_of_alarms_without_time()
                    tables.messages.count_crashes()
                except sqlite3.Error as error:
                    if not tenant or not is_partial(error):
                        raise
                    warn_of_tenant(tenant, error)
            return schema

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            advice = advice_for(text)
            problem = f"{text}; {advice}" if advice else text
            raise StorageUnavailable(self.location, problem) from error
        except UnicodeDecodeError as error:
            raise StorageUnavailable(self.location, UNDECODABLE_MESSAGE) from error
