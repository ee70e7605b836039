"""Checks of an SQLite file for ``trio-durable doctor``.

The checks of the files come first, since SQLite's own may not get so far. Nothing is written to the
database. A log that a crash has left is read, and stays: the connection is a read-only one then,
because the last connection to close would otherwise apply the log, which may be that of another
file. SQLite may create the index of such a log, ``-shm``, which holds no data.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from .._records import Finding
from ._database_file import is_owned
from ._lock import holder_of
from ._migrations import APPLICATION_ID, SCHEMA_VERSION, Schema
from ._mounts import mount_of
from ._row_checks import SHOWN_ROWS, alarms_without_time, corrupt_rows, marks
from ._tables import UNDECODABLE_MESSAGE, advice_for

_OF_NETWORKS = {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "coda", "ncpfs"}
_OF_CLUSTERS = {"beegfs", "ceph", "gfs2", "glusterfs", "gpfs", "lustre", "ocfs2", "orangefs"}
_OF_GUESTS = {"9p", "prl_fs", "vboxsf", "vmhgfs"}
_SHARED = _OF_NETWORKS | _OF_CLUSTERS | _OF_GUESTS
"""File systems on which several machines, or a guest and its host, share files."""
_VOLATILE = {"tmpfs", "ramfs"}

_LARGE_LOG = 64 * 1024 * 1024
_LITTLE_SPACE = 256 * 1024 * 1024
_NO_SPACE = 16 * 1024 * 1024


class Examination:
    """The checks of one file.

    Args:
        path: The database, without symbolic links.
        connect: Opens an ordinary connection.
        busy_timeout: How long SQLite waits for locks, in seconds.
        thorough: Check the indexes and every row, too.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], sqlite3.Connection],
        busy_timeout: float,
        thorough: bool,
    ) -> None:
        self._path = path
        self._connect = connect
        self._busy_timeout = busy_timeout
        self._thorough = thorough
        self._is_in_use = False
        self._unread = ""
        """Why the contents aren't checked."""

    def findings(self) -> Iterator[Finding]:
        """Run the checks, one after the other."""
        for name, check in (
            ("file", self._file),
            ("names", self._names),
            ("file system", self._file_system),
            ("permissions", self._permissions),
            ("lock", self._lock),
            ("free space", self._free_space),
            ("log", self._log),
        ):
            try:
                finding = check()
            except OSError as error:
                finding = Finding(
                    name, "problem", f"{error}", "make the file and its folder accessible"
                )
            if finding is not None:
                yield finding
                if name == "file" and finding.status == "problem":
                    return
        if self._unread:
            yield Finding(
                "contents",
                "warning",
                f"not checked: {self._unread}",
                "see above; then run this again",
            )
            return
        yield from self._contents()

    # --- the files -------------------------------------------------------------------------------

    def _file(self) -> Finding:
        path, folder = self._path, self._path.parent
        if not folder.is_dir():
            return Finding(
                "file", "problem", f"there is no folder {folder}", "check the path, or make it"
            )
        if not path.exists():
            left = [each.name for each in (self._beside("-wal"), self._beside("-shm")) if each]
            if left:
                return Finding(
                    "file",
                    "problem",
                    f"there is no file {path}, but {' and '.join(left)}, which would be applied to "
                    "a new file of that name",
                    f"if the file was moved, move it back; otherwise delete {' and '.join(left)}, "
                    "and then restore a backup",
                )
            return Finding(
                "file", "problem", f"there is no file {path}", "check the path; a runtime makes it"
            )
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Finding(
                "file", "problem", f"{path} is no regular file", "name a file, or a new one"
            )
        return Finding("file", "ok", f"{path} has {_size(status.st_size)}")

    def _names(self) -> Finding:
        mount = mount_of(self._path)
        if mount is not None and mount.point == self._path:
            return Finding(
                "names",
                "warning",
                "the file itself is mounted, and its log isn't in that mount: it may be lost with "
                "the container, and with it the latest commits",
                "mount the folder of the file instead",
            )
        links = self._path.stat().st_nlink
        if links > 1:
            return Finding(
                "names",
                "warning",
                f"the file has {links} names (hard links), and each has a log of its own: after a "
                "crash, the latest commits are found under one of them alone",
                f"keep one name; `find / -xdev -samefile {self._path}` lists them",
            )
        return Finding("names", "ok", "the file has one name")

    def _file_system(self) -> Finding | None:
        mount = mount_of(self._path)
        if mount is None:
            return None
        name, kind = "file system", mount.kind
        if kind in _SHARED:
            return Finding(
                name,
                "problem",
                f"the file is on {kind}, where locks, and the shared memory of SQLite's log, "
                "can't be relied on",
                "move it to a local disk, or use PostgreSQL",
            )
        if kind.startswith("fuse"):
            return Finding(
                name,
                "warning",
                f"the file is on {kind}, whose syncs and locks depend on the program "
                "that serves it",
                "move it to a local disk, unless you know that program",
            )
        if kind in _VOLATILE:
            return Finding(
                name,
                "warning",
                f"the file is on {kind}, in memory: it is lost when the machine stops",
                "move it to a disk",
            )
        return Finding(name, "ok", f"{kind}, mounted at {mount.point}")

    def _permissions(self) -> Finding:
        name, path = "permissions", self._path
        files = [path, *filter(None, map(self._beside, ("-wal", "-shm", "-lock")))]
        for each, mode in (
            (path.parent, os.R_OK | os.W_OK | os.X_OK),
            *((file, os.R_OK | os.W_OK) for file in files),
        ):
            if not os.access(each, mode):
                return Finding(
                    name,
                    "problem",
                    f"this user may not read and write {each}",
                    f"make it accessible, or run this as the user of the runtime: {_user(path)}",
                )
        owner = path.stat().st_uid
        others = [each for each in files if each.stat().st_uid != owner]
        if others:
            return Finding(
                name,
                "warning",
                f"{path.name} belongs to {_user(path)}, but {others[0].name} to "
                f"{_user(others[0])}: a runtime of one of them may not write it",
                f"give all of them one owner: chown {_user(path)} "
                + " ".join(each.name for each in others),
            )
        for each in (path, path.parent):
            mode = each.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return Finding(
                    name,
                    "warning",
                    f"every user may write to {each}",
                    f"take that away: chmod o-w {each}",
                )
        return Finding(name, "ok", f"this user may read and write; the owner is {_user(path)}")

    def _lock(self) -> Finding:
        lock = self._beside("-lock")
        is_held, pid = (False, None) if lock is None else holder_of(lock)
        is_locked = is_owned(self._path)
        self._is_in_use = is_held or bool(is_locked)
        if is_held:
            process = f"process {pid}" if pid else "another process"
            return Finding("lock", "ok", f"a runtime of {process} has the file open")
        if is_locked:
            self._unread = "a runtime has the file open under another name, which has its log"
            return Finding("lock", "ok", "a runtime has the file open, under another name")
        if is_locked is None:
            return Finding(
                "lock",
                "warning",
                "no runtime has this name open, and this system can't lock the file itself",
                "open the file under one name only: hard links and bind mounts of it are not seen",
            )
        return Finding("lock", "ok", "no runtime has the file open")

    def _free_space(self) -> Finding:
        name, free = "free space", shutil.disk_usage(self._path.parent).free
        text = f"{_size(free)} are free on the disk"
        if free < _NO_SPACE:
            return Finding(name, "problem", text, "free some space: commits fail without it")
        if free < max(_LITTLE_SPACE, self._path.stat().st_size):
            return Finding(
                name, "warning", text, "free some space: the log and a copy of the file need it"
            )
        return Finding(name, "ok", text)

    def _log(self) -> Finding:
        journal = self._beside("-journal")
        if journal is not None and journal.stat().st_size:
            self._unread = f"there is {journal.name}, which reading may apply"
            return Finding(
                "log",
                "warning",
                f"there is {journal.name}, which another program writes, or has left in a crash",
                "let that program end; if it has, open the file with it once more",
            )
        log = self._beside("-wal")
        size = 0 if log is None else log.stat().st_size
        if size > _LARGE_LOG:
            return Finding(
                "log",
                "warning",
                f"the write-ahead log has {_size(size)}",
                "end long reads of the file, such as a slow backup or a forgotten shell; the log "
                "then shrinks with the next commits"
                if self._is_in_use
                else "open a runtime, which applies it",
            )
        if size and not self._is_in_use:
            return Finding(
                "log",
                "ok",
                f"a process that ended without closing has left {_size(size)}, which the next "
                "runtime applies",
            )
        return Finding("log", "ok", f"the write-ahead log has {_size(size)}")

    # --- the contents ----------------------------------------------------------------------------

    def _contents(self) -> Iterator[Finding]:
        name = "header"
        try:
            with closing(self._open()) as connection:
                connection.execute("PRAGMA query_only = ON")
                connection.text_factory = _readable
                schema = Schema(connection)
                finding = _header(schema)
                yield finding
                if finding.status == "problem":
                    return
                name = "schema"
                finding = _schema(schema)
                yield finding
                is_current = finding.status == "ok"
                name = "journal mode"
                yield _journal_mode(connection)
                name = "integrity"
                yield _integrity(connection, thorough=self._thorough)
                if is_current:
                    name = "alarms"
                    yield alarms_without_time(connection, schema)
                    if not self._is_in_use:
                        name = "marks"
                        yield marks(connection, schema)
                    if self._thorough:
                        name = "rows"
                        yield corrupt_rows(connection, schema)
        except sqlite3.Error as error:
            text = str(error)
            yield Finding(name, "problem", text, advice_for(text) or "check the file and its disk")
        except UnicodeDecodeError:
            yield Finding(name, "problem", UNDECODABLE_MESSAGE, "restore a backup")

    def _open(self) -> sqlite3.Connection:
        log = self._beside("-wal")
        if self._is_in_use or log is None or not log.stat().st_size:
            return self._connect()
        return sqlite3.connect(
            f"{self._path.as_uri()}?mode=ro",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
        )

    def _beside(self, suffix: str) -> Path | None:
        """The file with this suffix beside the database, if there is one."""
        file = self._path.with_name(self._path.name + suffix)
        return file if file.exists() else None


def _header(schema: Schema) -> Finding:
    name, application_id, version = "header", schema.application_id(), schema.user_version()
    if schema.is_foreign():
        return Finding(
            name,
            "problem",
            "the file holds tables, but no durable objects",
            "check the path; a runtime would add its own tables",
        )
    if schema.is_new():
        return Finding(
            name, "warning", "the file is empty", "check the path; a runtime makes the tables"
        )
    text = f"application_id {application_id:#x}, user_version {version}"
    if application_id == APPLICATION_ID:
        return Finding(name, "ok", f"{text}: a file of trio_durable")
    if application_id or version or schema.has_other_tables():
        return Finding(name, "ok", f"{text}: a file that another program has marked or uses, too")
    return Finding(name, "ok", f"{text}: a file of an earlier release; the next runtime marks it")


def _schema(schema: Schema) -> Finding:
    unknown = schema.unknown()
    if unknown:
        return Finding(
            "schema",
            "problem",
            f"a newer release has migrated the file (unknown here: {', '.join(unknown)})",
            "upgrade this installation",
        )
    pending = [
        f"{name} of tenant {tenant}" if tenant else name for tenant, name in schema.pending()
    ]
    if pending:
        return Finding(
            "schema",
            "warning",
            f"migrations are pending: {', '.join(pending)}",
            "apply them with `trio-durable migrate`, or open a runtime",
        )
    return Finding("schema", "ok", f"version {SCHEMA_VERSION}, that of this release")


def _journal_mode(connection: sqlite3.Connection) -> Finding:
    mode: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode == "wal":
        return Finding("journal mode", "ok", "wal")
    return Finding(
        "journal mode",
        "warning",
        f"{mode}, as another program has set it",
        "leave it at wal; a runtime sets it when it opens the file",
    )


def _integrity(connection: sqlite3.Connection, *, thorough: bool) -> Finding:
    check = "integrity_check" if thorough else "quick_check"
    rows = connection.execute(f"PRAGMA {check}({SHOWN_ROWS})")
    found = [" ".join(text.removeprefix("*** in database main ***").split()) for (text,) in rows]
    if found == ["ok"]:
        return Finding("integrity", "ok", f"SQLite's {check} found nothing wrong")
    return Finding(
        "integrity",
        "problem",
        f"the file is damaged: {'; '.join(found)}",
        "stop the runtime, keep a copy of the file with its -wal, and restore a backup; without "
        "one, try `sqlite3 damaged.db .recover`",
    )


def _readable(text: bytes) -> str:
    return text.decode(errors="backslashreplace")


def _size(count: int) -> str:
    """A number of bytes for people."""
    amount, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


def _user(path: Path) -> str:
    """The owner's name; the number of one without a name."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError):
        return str(path.stat().st_uid)
