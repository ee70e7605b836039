"""The command that copies an SQLite file while the app runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from trio_durable.storage import StorageFault
from trio_durable.storage.sqlite import _backup
from trio_durable.storage.sqlite._backup import back_up

from .stored_data import writer_of
from .support import assert_refused, contents, run


def rows(path: Path, table: str = "durable_objects") -> list[tuple[object, ...]]:
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
