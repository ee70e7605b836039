"""The log is extended by zeros before it grows, and is brought into the file after the replies."""

from __future__ import annotations

import errno
import logging
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from trio_durable import SQLiteStorage
from trio_durable.storage import Commit, StorageFault, Writer
from trio_durable.storage.sqlite import _log, _storage
from trio_durable.storage.sqlite._log import Log, LogFile

from .files import NOW, connection_of, execute, key, writing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the log is SQLite's alone there")

FRAME = 24 + 4096
HEADER = 32


def size_of(pages: int) -> int:
    return HEADER + pages * FRAME


@pytest.fixture
def log(path: Path) -> Path:
    return path.with_name("objects.db-wal")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is long with few pages."""
    monkeypatch.setattr(_log, "FILL_FROM_PAGES", 8)
    monkeypatch.setattr(_log, "CHECKPOINT_PAGES", 100)
    monkeypatch.setattr(_log, "FILLED_PAGES", 110)
    monkeypatch.setattr(_log, "LATER_PAGES", 20)


@pytest.fixture
def made(path: Path) -> Path:
    """A file that was there before, so that opening it writes nothing."""
    SQLiteStorage(path).open_writer().close()
    return path


class Work:
    """Commits of one object, whose revisions say how many there were."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.revision = 0

    def commit(self, times: int = 1, *, maintain: bool = True) -> None:
        for _ in range(times):
            state = b'{"n":%d}' % self.revision
            assert self.writer.commit([Commit(key("a"), self.revision, state)], NOW) == ()
            self.revision += 1
            if maintain:
                self.writer.maintain()

    def until(self, is_so: Callable[[], bool], most: int = 300) -> None:
        for _ in range(most):
            if is_so():
                return
            self.commit()
        raise AssertionError


def revision_in(path: Path) -> int:
    """The number of commits that a process finds which opens the file now."""
    found = execute(path, "SELECT max(revision) FROM durable_objects")[0][0]
    assert found is None or isinstance(found, int)
    return found or 0


def after_a_kill(path: Path, folder: Path) -> int:
    """The same, if the process that has the file open were killed now."""
    folder.mkdir(exist_ok=True)
    copy = folder / path.name
    for suffix in ("-wal", "-shm", ""):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
    copy.write_bytes(path.read_bytes())
    copy.with_name(f"{copy.name}-wal").write_bytes(path.with_name(f"{path.name}-wal").read_bytes())
    return revision_in(copy)


class FaultyFile(LogFile):
    """A file of a log whose writes the test counts, cuts short and fails."""

    full_after: int | None = None
    """The disk is full after so many writes."""
    short: int | None = None
    """At most so many bytes are written at once."""
    free: int | None = None
    written: list[Callable[[], object]]
    """Called after each write."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writes = 0
        self.written = []
        files.append(self)

    @property
    def free_bytes(self) -> int:
        return super().free_bytes if self.free is None else self.free

    def write_zeros(self, offset: int, length: int) -> int:
        assert offset == self.size, "not at the end of the file"
        if self.full_after is not None and self.writes >= self.full_after:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.writes += 1
        done = super().write_zeros(offset, min(length, self.short or length))
        for call in self.written:
            call()
        return done


files: list[FaultyFile] = []


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> list[FaultyFile]:
    """The files of the logs that are opened in a test."""
    monkeypatch.setattr(_log, "LogFile", FaultyFile)
    files.clear()
    return files


# --- filling -------------------------------------------------------------------------------------


def test_a_log_that_grows_is_filled_to_the_size_that_it_will_have(
    path: Path, log: Path, unstamped: None
) -> None:
    with writing(SQLiteStorage(path)) as writer:
        checkpoints, work = Checkpoints(writer), Work(writer)
        work.until(lambda: log.stat().st_size >= size_of(_log.FILL_FROM_PAGES - 1))
        work.commit(maintain=False)
        before = log.read_bytes()
        writer.maintain()
        after = log.read_bytes()
        assert len(after) == size_of(_log.FILLED_PAGES)
        assert after[: len(before)] == before
        assert not after[len(before) :].strip(b"\0")
        work.commit(20)
        assert log.stat().st_size == len(after)
        assert checkpoints.count == 0  # the zeros are no pages
    assert not log.exists()  # SQLite removes it, as any
    assert revision_in(path) == work.revision


def test_a_file_with_few_changes_takes_no_space_in_advance(path: Path, log: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        Work(writer).commit(3)
        assert log.stat().st_size < size_of(_log.FILL_FROM_PAGES)


def test_normal_durability_syncs_no_growth_so_nothing_is_filled(
    path: Path, log: Path, small: None
) -> None:
    with writing(SQLiteStorage(path, durability="normal")) as writer:
        Work(writer).commit(10)
        assert size_of(10) < log.stat().st_size < size_of(_log.FILLED_PAGES)


def test_large_pages_are_filled_up_to_a_bound(
    path: Path, log: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_log, "MAX_FILLED_BYTES", 4_000_000)
    with closing(connected(path)) as other:
        other.execute("PRAGMA page_size = 65536")
        other.execute("CREATE TABLE theirs (x)")
    with writing(SQLiteStorage(path)) as writer:
        Work(writer).commit(10)
        assert log.stat().st_size == HEADER + 4_000_000 // (24 + 65536) * (24 + 65536)


def test_every_commit_survives_a_kill_at_any_moment_of_filling(
    made: Path, tmp_path: Path, small: None, faulty: list[FaultyFile], log: Path
) -> None:
    seen: list[int] = []
    with writing(SQLiteStorage(made)) as writer:
        (file,) = faulty
        file.short = 13 * 1021  # within pages and frames

        work = Work(writer)

        def kill() -> None:
            assert after_a_kill(made, tmp_path / "again") == work.revision
            seen.append(log.stat().st_size)

        file.written.append(kill)
        for _ in range(40):  # beyond the zeros of the first writes, too
            work.commit()
            kill()
    assert len(set(seen)) > 30
    assert seen[-1] == size_of(_log.FILLED_PAGES)


def test_nobody_else_writes_while_a_log_is_filled(
    path: Path, small: None, faulty: list[FaultyFile]
) -> None:
    refused: list[str] = []
    with writing(SQLiteStorage(path)) as writer, closing(connected(path)) as other:
        (file,) = faulty

        def write() -> None:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            refused.append("")

        file.written.append(write)
        work = Work(writer)
        work.commit()
        assert refused
        other.execute("CREATE TABLE theirs (x)")
        work.commit()
    assert execute(path, "SELECT count(*) FROM theirs") == [(0,)]


def connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=0)


def test_a_log_isnt_filled_while_another_program_writes(
    made: Path, log: Path, small: None, faulty: list[FaultyFile]
) -> None:
    with writing(SQLiteStorage(made, busy_timeout=0)) as writer, closing(connected(made)) as other:
        work = Work(writer)
        work.until(lambda: log.stat().st_size >= size_of(_log.FILL_FROM_PAGES - 2))
        work.commit(3, maintain=False)
        other.execute("BEGIN IMMEDIATE")
        writer.maintain()
        other.execute("ROLLBACK")
        assert faulty[0].writes == 0
        work.commit()


@pytest.mark.parametrize("full_after", [0, 3])
def test_a_full_disk_is_as_full_as_before(
    path: Path, log: Path, small: None, faulty: list[FaultyFile], full_after: int
) -> None:
    with writing(SQLiteStorage(path)) as writer:
        (file,) = faulty
        file.full_after, file.short = full_after, 5000
        work = Work(writer)
        work.commit(maintain=False)
        before = log.read_bytes()
        writer.maintain()
        assert log.read_bytes() == before
        assert file.writes == full_after
        file.full_after = None
        work.commit(10)
        assert file.writes == full_after, "once is enough"
    assert revision_in(path) == work.revision


def test_the_last_space_of_a_disk_isnt_taken(
    path: Path, log: Path, small: None, faulty: list[FaultyFile]
) -> None:
    with writing(SQLiteStorage(path)) as writer:
        (file,) = faulty
        file.free = 2_000_000
        Work(writer).commit(10)
        assert file.writes == 0


def test_zeros_make_no_frame_whole_that_recovery_has_dropped(
    made: Path, tmp_path: Path, small: None, faulty: list[FaultyFile], log: Path
) -> None:
    """The log ends within a frame, whose missing bytes are zeros."""
    with writing(SQLiteStorage(made)) as writer, closing(connected(made)) as other:
        Work(writer).commit(9, maintain=False)
        other.execute("CREATE TABLE theirs (x)")
        other.execute("INSERT INTO theirs VALUES (256)")  # two bytes, the last ones of the page
        database, content = made.read_bytes(), log.read_bytes()
    assert content.endswith(b"\1\0")
    again = tmp_path / "again.db"
    again.write_bytes(database)
    torn = again.with_name("again.db-wal")
    torn.write_bytes(content[:-1])
    with writing(SQLiteStorage(again)) as writer:
        assert execute(again, "SELECT count(*) FROM theirs") == [(0,)]
        writer.maintain()
        assert faulty[-1].writes == 0
        after_a_kill(again, tmp_path / "more")
        assert execute(tmp_path / "more" / "again.db", "SELECT count(*) FROM theirs") == [(0,)]


# --- checkpoints ---------------------------------------------------------------------------------


class Checkpoints:
    """The checkpoints that a connection makes by a statement."""

    def __init__(self, writer: Writer) -> None:
        self.count = 0
        connection_of(writer).set_trace_callback(self._trace)

    def _trace(self, sql: str) -> None:
        self.count += "wal_checkpoint" in sql


def test_a_commit_makes_no_checkpoint_and_maintenance_does(
    made: Path, log: Path, small: None, unstamped: None
) -> None:
    with writing(SQLiteStorage(made, durability="normal")) as writer:
        work = Work(writer)
        before = made.read_bytes()
        work.commit(3 * _log.CHECKPOINT_PAGES, maintain=False)
        assert made.read_bytes() == before
        writer.maintain()
        assert made.read_bytes() != before
        assert writer.commit([], NOW) == ()
        size = log.stat().st_size
        work.commit(2 * _log.CHECKPOINT_PAGES)
        assert log.stat().st_size == size  # it was begun again


def test_a_log_that_is_maintained_keeps_its_size(
    made: Path, log: Path, small: None, unstamped: None
) -> None:
    with writing(SQLiteStorage(made, durability="normal")) as writer:
        checkpoints, work = Checkpoints(writer), Work(writer)
        for _ in range(5 * _log.CHECKPOINT_PAGES):
            work.commit()
            assert log.stat().st_size <= size_of(_log.FILLED_PAGES)
    assert 4 <= checkpoints.count <= 10  # a commit has one page or two


def test_without_maintenance_sqlite_makes_checkpoints(
    made: Path, log: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_log, "OWN_CHECKPOINT_PAGES", 150)
    with writing(SQLiteStorage(made, durability="normal")) as writer:
        Work(writer).commit(500, maintain=False)
        assert log.stat().st_size <= size_of(160)


def test_the_log_of_a_long_reader_is_bounded_once_it_has_ended(
    made: Path, log: Path, small: None, unstamped: None
) -> None:
    with (
        writing(SQLiteStorage(made, durability="normal")) as writer,
        closing(connected(made)) as other,
    ):
        checkpoints, work = Checkpoints(writer), Work(writer)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM durable_objects").fetchone()
        work.commit(4 * _log.CHECKPOINT_PAGES)
        long = log.stat().st_size
        assert long > size_of(3 * _log.CHECKPOINT_PAGES)
        pages = long // FRAME
        assert pages // (2 * _log.LATER_PAGES) <= checkpoints.count <= pages // _log.LATER_PAGES
        other.execute("COMMIT")
        work.commit(4 * _log.CHECKPOINT_PAGES)
        assert log.stat().st_size <= long + size_of(2 * _log.LATER_PAGES)
        before = checkpoints.count
        work.commit(_log.CHECKPOINT_PAGES)
        assert checkpoints.count <= before + 2  # as many as ever


def test_a_long_log_that_a_killed_process_has_left_is_checkpointed(
    made: Path, tmp_path: Path, small: None, unstamped: None
) -> None:
    with writing(SQLiteStorage(made, durability="normal")) as writer:
        Work(writer).commit(3 * _log.CHECKPOINT_PAGES, maintain=False)
        again = tmp_path / "again.db"
        again.write_bytes(made.read_bytes())
        again.with_name("again.db-wal").write_bytes(made.with_name("objects.db-wal").read_bytes())
    with writing(SQLiteStorage(again, durability="normal")) as writer:
        checkpoints, work = Checkpoints(writer), Work(writer)
        work.revision = 3 * _log.CHECKPOINT_PAGES
        work.commit(_log.LATER_PAGES)
        assert checkpoints.count >= 1


def test_a_checkpoint_that_fails_is_tried_later_and_fails_nothing(
    made: Path, small: None, unstamped: None, caplog: pytest.LogCaptureFixture
) -> None:
    with writing(SQLiteStorage(made, durability="normal")) as writer:
        found = log_of(writer)
        connection = _FailingCheckpoints(connection_of(writer))
        found._connection = connection  # type: ignore[assignment]
        work = Work(writer)
        with caplog.at_level(logging.WARNING, "trio_durable.storage"):
            work.commit(2 * _log.CHECKPOINT_PAGES)
        assert connection.failed > 1
        (record,) = caplog.records  # once for all that fail for one reason
        assert "a checkpoint failed" in record.message
        assert "disk I/O error" in record.message
        connection.fails = False
        work.commit(2 * _log.CHECKPOINT_PAGES)
        assert connection.succeeded
        assert made.stat().st_size
    assert revision_in(made) == work.revision


def log_of(writer: Writer) -> Log:
    log: Log = writer._log  # type: ignore[attr-defined]
    return log


class _FailingCheckpoints:
    """A connection whose checkpoints fail."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.fails = True
        self.failed = self.succeeded = 0

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str) -> sqlite3.Cursor:
        if "wal_checkpoint" in sql:
            if self.fails:
                self.failed += 1
                raise sqlite3.OperationalError("disk I/O error")
            self.succeeded += 1
        return self._connection.execute(sql)


def test_a_file_that_was_replaced_gets_no_checkpoint(
    made: Path, small: None, unstamped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(SQLiteStorage(made, durability="normal")) as writer:
        work = Work(writer)
        work.commit()
        work.commit(2 * _log.CHECKPOINT_PAGES, maintain=False)
        checkpoints = Checkpoints(writer)
        writer._watch._due = 0.0  # type: ignore[attr-defined]  # it checks after the next commit
        made.rename(made.with_name("moved.db"))
        with pytest.raises(StorageFault):
            work.commit()
        writer.maintain()
        assert checkpoints.count == 0
        made.with_name("moved.db").rename(made)
        with suppress(StorageFault):
            writer.commit([], NOW)


def test_a_log_that_cant_be_looked_at_is_sqlites_own(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> LogFile:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(_log, "LogFile", refuse)
    with writing(SQLiteStorage(made, durability="normal")) as writer:
        Work(writer).commit(3)
        ((pages,),) = connection_of(writer).execute("PRAGMA wal_autocheckpoint").fetchall()
    assert pages == 1000


def test_the_constants_fit_each_other() -> None:
    whole = size_of(_log.OWN_CHECKPOINT_PAGES)
    assert _log.FILL_FROM_PAGES < _log.CHECKPOINT_PAGES < _log.FILLED_PAGES
    assert _log.FILLED_PAGES < _log.OWN_CHECKPOINT_PAGES
    # Else SQLite would cut the log, and it would grow again.
    assert size_of(_log.FILLED_PAGES) <= _log.MAX_FILLED_BYTES < whole <= _storage.LOG_LIMIT
