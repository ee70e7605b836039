"""The command that copies an SQLite file while the app runs."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from trio_durable.storage import StorageFault
from trio_durable.storage.sqlite import _backup
from trio_durable.storage.sqlite._backup import back_up

from .serving import eventually
from .stored_data import writer_of
from .support import assert_refused, contents, environment, python, run


def rows(path: Path, table: str = "durable_objects") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()


def test_a_backup_is_a_whole_storage_of_its_own(db: Path, folder: Path) -> None:
    (folder / "to").mkdir()
    result = run("backup", "app.db", "to/copy.db")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("Backed up ")
    assert result.stderr.endswith(" bytes, to to/copy.db.\n")
    assert contents(folder / "to").keys() == {"copy.db"}
    assert rows(folder / "to" / "copy.db") == rows(db) != []
    listed = run("ls", "-s", "app.db", "--json").stdout
    assert run("ls", "-s", "to/copy.db", "--json").stdout == listed
    assert run("doctor", "to/copy.db").exit_code == 0


def test_writes_during_a_backup_neither_wait_nor_get_in(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(db)
    done: list[int] = []
    monkeypatch.setattr(_backup, "_PAGES_PER_STEP", 1)

    def write(copied: int, total: int) -> None:
        done.append(copied)
        with closing(sqlite3.connect(db, timeout=0)) as other, other:
            other.execute("UPDATE durable_objects SET revision = revision + 1")

    back_up(db, db.parent / "copy.db", write)
    # It has begun once, however often there was a write between.
    assert done == sorted(set(done))
    assert len(done) > 3
    assert rows(db.parent / "copy.db") == before != rows(db)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_backup_that_is_cut_off_leaves_nothing(db: Path, error: BaseException) -> None:
    before = contents(db.parent).keys()

    def stop(copied: int, total: int) -> None:
        raise error

    with pytest.raises(type(error)):
        back_up(db, db.parent / "copy.db", stop)
    assert {name for name in contents(db.parent) if "copy" in name} == set()
    assert before <= contents(db.parent).keys()


def test_a_copy_without_all_rows_is_no_backup(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([{"durable_objects": 4}, {"durable_objects": 3}])
    monkeypatch.setattr(_backup, "_counts", lambda db: next(counts))
    with pytest.raises(StorageFault, match=r"3\} rows, but the storage has .*4\}"):
        back_up(db, db.parent / "copy.db", lambda done, total: None)
    assert not (db.parent / "copy.db").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("app.db", "app.db"), "app.db: it already exists; choose another name"),
        (("app.db", "."), ".: it already exists"),
        (("app.db", "no/copy.db"), "no/copy.db: there is no folder no; create it first"),
        (("none.db", "copy.db"), "none.db"),
        (("postgresql:///app", "copy.db"), "for PostgreSQL use pg_dump, or `trio-durable export`"),
    ],
)
def test_what_cannot_be_backed_up_is_refused(
    db: Path, folder: Path, args: tuple[str, ...], says: str
) -> None:
    with closing(sqlite3.connect(db)) as log:
        log.execute("SELECT count(*) FROM durable_objects").fetchone()
        assert_refused(folder, says, "backup", *args)


def assert_was_committed(state: str, revision: int) -> None:
    """The state of a walker after so many steps."""
    fields = json.loads(state)
    assert (fields["steps"], fields["squares"]) == (revision, revision**2)


def test_a_backup_under_load_has_committed_states_of_one_moment(folder: Path) -> None:
    """Another process changes all objects, the first one first, for as long as it lives."""
    with busy_app(folder) as revisions:
        began = revisions()

        def progress(_copied: int, _total: int) -> None:
            if not changed:
                eventually(lambda: revisions() != began)
                changed.append(True)

        changed: list[bool] = []
        back_up(folder / "app.db", folder / "copy.db", progress)
        ended = revisions()
    assert changed
    copied = rows(folder / "copy.db", "durable_objects_v1")
    assert len(copied) == len(began) == WALKERS
    for kind, object_id, revision, _, state in copied:
        assert kind == "Walker"
        assert_was_committed(state, revision)
        assert began[object_id] <= revision <= ended[object_id]
    # They change one after the other, so those of one moment differ by one step at most.
    in_order = [revision for _, _, revision, *_ in copied]
    assert in_order == sorted(in_order, reverse=True)
    assert in_order[0] - in_order[-1] <= 1
    assert run("doctor", "copy.db").exit_code == 0
    with writer_of(folder / "copy.db"):
        pass


WALKERS = 200
BUSY = f"""
import itertools, trio
from trio_durable import DurableObject, DurableRuntime, handler

class Walker(DurableObject):
    steps: int = 0
    squares: int = 0

    @handler
    def step(self) -> None:
        self.steps += 1
        self.squares = self.steps**2

async def main():
    async with DurableRuntime("app.db"):
        for each in itertools.count():
            for number in range({WALKERS}):
                await Walker.step(f"{{number:03}}")
            if not each:
                print("all are there", flush=True)

trio.run(main)
"""


@contextmanager
def busy_app(folder: Path) -> Iterator[Callable[[], dict[str, int]]]:
    """A process that changes objects. Yields a function that returns their revisions."""

    def revisions() -> dict[str, int]:
        with closing(sqlite3.connect(folder / "app.db")) as db:
            return dict(db.execute("SELECT id, revision FROM durable_objects_v1"))

    command = [sys.executable, "-c", BUSY]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"all are there\n"
            yield revisions
        finally:
            process.kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("kind", ["backup", "restore"])
def test_a_kill_at_any_line_leaves_a_whole_file_or_none(
    db: Path, folder: Path, tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    assert run("backup", "app.db", "source/old.db").exit_code == 0
    with closing(sqlite3.connect(db)) as other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        for _ in range(2):  # the first one in the file, and the second in its log
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            other.execute("UPDATE durable_objects SET revision = revision + 1")
            other.commit()
        for name in ("app.db", "app.db-wal"):  # as a killed process leaves them
            shutil.copyfile(name, source / name)
    for name in ("app.db", "app.db-wal"):
        shutil.copyfile(source / name, source / name.replace("app", "expected"))
    assert rows(source / "expected.db") != rows(source / "old.db")
    ran = python("-m", "cli.backup_kills", kind, str(source), cwd=Path(__file__).parents[1])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(ran.stdout) > 30


# --- restore -------------------------------------------------------------------------------------


@pytest.fixture
def copy(db: Path) -> Path:
    assert run("backup", "app.db", "copy.db").exit_code == 0
    return db.parent / "copy.db"


def test_a_backup_takes_the_place_of_the_storage(db: Path, copy: Path) -> None:
    before = rows(db)
    with closing(sqlite3.connect(db)) as other, other:
        other.execute("DELETE FROM durable_objects")
    saved = copy.read_bytes()
    result = run("restore", "copy.db", "app.db", "--yes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("Restored ")
    assert rows(db) == before != []
    assert copy.read_bytes() == saved
    assert run("doctor", "app.db").exit_code == 0
    assert not [name for name in contents(db.parent) if name.startswith(".app")]


def test_a_log_of_the_old_storage_is_not_applied_to_the_backup(db: Path, copy: Path) -> None:
    before = rows(db)
    other = sqlite3.connect(db)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("DELETE FROM durable_objects")
    other.commit()
    log = Path(f"{db}-wal").read_bytes()
    other.close()
    Path(f"{db}-wal").write_bytes(log)  # as a killed process leaves it
    assert run("restore", "copy.db", "app.db", "--yes").exit_code == 0
    assert rows(db) == before


def test_a_storage_that_is_lost_or_damaged_is_restored(db: Path, copy: Path) -> None:
    before = rows(db)
    db.write_bytes(b"SQLite format 3\0 and nothing else")
    assert run("restore", "copy.db", "app.db", "--yes").exit_code == 0
    assert rows(db) == before
    db.unlink()
    assert run("restore", "copy.db", "app.db").exit_code == 0  # nothing to ask for
    assert rows(db) == before


def test_no_storage_is_replaced_while_an_app_has_it_open(db: Path, copy: Path) -> None:
    with writer_of(db):
        assert_refused(db.parent, "is in use", "restore", "copy.db", "app.db", "--yes")


def test_no_storage_is_replaced_while_another_program_reads_it(
    db: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_backup, "_BUSY_SECONDS", 0)
    before = rows(db)
    with closing(sqlite3.connect(db)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM durable_objects").fetchone()
        refused = run("restore", "copy.db", "app.db", "--yes")
    assert refused.exit_code == 2
    assert "database is locked; end the programs that have it open" in refused.stderr
    assert rows(db) == before


def test_the_copy_of_a_process_that_lives_is_left_alone(db: Path, copy: Path) -> None:
    def back_up_meanwhile(copied: int, total: int) -> None:
        if not (db.parent / "two.db").exists():
            back_up(db, db.parent / "two.db", lambda done, total: None)
            (db.parent / "two.db").rename(db.parent / "three.db")
            back_up(db, db.parent / "two.db", lambda done, total: None)
            (db.parent / "two.db").rename(db.parent / "four.db")

    back_up(db, db.parent / "two.db", back_up_meanwhile)
    for name in ("two.db", "three.db", "four.db"):
        assert rows(db.parent / name) == rows(db)


def test_restoring_asks(db: Path, copy: Path) -> None:
    result = run("restore", "copy.db", "app.db", stdin="n\n")
    assert result.exit_code == 1
    assert "Nothing was replaced." in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("nothing.db", "app.db"), "there is no such file"),
        (("app.db", "app.db"), "app.db is the storage itself"),
        (("copy.db", "no/app.db"), "there is no folder"),
        (("copy.db", "postgresql://x/y"), "for PostgreSQL use pg_restore"),
    ],
)
def test_restores_that_are_refused(db: Path, copy: Path, args: tuple[str, ...], says: str) -> None:
    assert_refused(db.parent, says, "restore", *args, "--yes")


def test_a_damaged_backup_replaces_nothing(db: Path, copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    copy.write_bytes(content)
    before = db.read_bytes()
    refused = run("restore", "copy.db", "app.db", "--yes")
    assert refused.exit_code == 2
    assert db.read_bytes() == before
