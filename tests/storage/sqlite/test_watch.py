"""A file that is removed, replaced or overwritten while it is open: nothing is acknowledged."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from trio_durable import DurableRuntime, PersistenceError, SQLiteStorage, StorageUnavailable
from trio_durable.storage import Commit, Postponement, Reader, StorageFault, Writer
from trio_durable.storage.sqlite import _watch
from trio_durable.storage.sqlite._database_file import DatabaseFile
from trio_durable.storage.sqlite._watch import FileWatch

from .files import NOW, Counter, alarm_key, execute, key, posix_only, setting, theirs, writing

pytestmark = posix_only

Sides = tuple[Writer, Reader]


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The clock of the checks, with the intervals of a program."""
    time = Time()
    monkeypatch.setattr(_watch, "monotonic", time)
    monkeypatch.setattr(_watch, "CHECK_SECONDS", 1.0)
    return time


@pytest.fixture
def sides(path: Path, time: Time) -> Iterator[Sides]:
    """A writer and a reader of a file with an object, a second later."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        assert writer.commit([Commit(key("a"), 0, b"1"), setting("a", "x")], NOW) == ()
        assert reader.load([key("a")])[0] is not None
        time.now += 1
        yield writer, reader


USES: dict[str, Callable[[Writer, Reader], object]] = {
    "commit": lambda writer, _: writer.commit([Commit(key("b"), 0, b"1")], NOW),
    "stale": lambda writer, _: writer.commit([Commit(key("a"), 7, b"1")], NOW),
    "alarms": lambda writer, _: writer.commit([setting("a", "x", "y")], NOW),
    "claim": lambda writer, _: writer.claim([alarm_key("x")], 1, NOW, NOW + 1),
    "renew": lambda writer, _: writer.renew([(alarm_key("x"), 1)], NOW + 2),
    "postpone": lambda writer, _: writer.postpone(
        [Postponement(alarm_key("x"), 1, NOW + 9, 1, "failed")]
    ),
    "revive": lambda writer, _: writer.revive(alarm_key("x"), NOW),
    "drop_tenant": lambda writer, _: writer.drop_tenant("acme"),
    "load": lambda _, reader: reader.load([key("a")]),
    "load of a tenant": lambda _, reader: reader.load([theirs("acme")]),
    "list_ids": lambda _, reader: reader.list_ids("Counter", None, 9),
    "due_alarms": lambda _, reader: reader.due_alarms(NOW + 1, None, 9, ()),
    "list_alarms": lambda _, reader: reader.list_alarms(key("a")),
    "list_dead_letters": lambda _, reader: reader.list_dead_letters("Counter", None, 9),
    "list_tenants": lambda _, reader: reader.list_tenants(None, 9),
    "browse_objects": lambda _, reader: reader.browse_objects(None, None, 9),
    "browse_alarms": lambda _, reader: reader.browse_alarms(None, NOW, None, None, 9),
    "summarize": lambda _, reader: reader.summarize(NOW),
}

every_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


def remove(path: Path) -> None:
    for name in ("objects.db", "objects.db-wal", "objects.db-shm"):
        path.with_name(name).unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def rename_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name(f"{path.parent.name}-moved"))


def replace(path: Path) -> None:
    new = path.with_name("new.db")
    shutil.copyfile(path, new)
    os.replace(new, path)


LOSSES = [
    (remove, "was removed or renamed while it was open"),
    (rename, "was removed or renamed while it was open"),
    (rename_the_folder, "was removed or renamed while it was open"),
    (replace, "was replaced by another file while it was open"),
]

every_loss = pytest.mark.parametrize(
    ("lose", "says"), LOSSES, ids=[lose.__name__ for lose, _ in LOSSES]
)


@every_use
@every_loss
def test_a_file_that_is_gone_is_not_used(
    path: Path,
    sides: Sides,
    time: Time,
    lose: Callable[[Path], None],
    says: str,
    use: Callable[..., object],
) -> None:
    use(*sides)
    path = path.resolve()
    lose(path)
    time.now += 0.01
    for _ in range(2):
        with pytest.raises(StorageFault, match=says) as caught:
            use(*sides)
        assert str(caught.value).startswith(f"{path} was ")


def test_nothing_more_is_written_once_the_loss_is_known(path: Path, sides: Sides) -> None:
    writer, _ = sides
    rename(path)
    for _ in range(3):
        with pytest.raises(StorageFault):
            writer.commit([Commit(key("b"), 0, b"1")], NOW)
    with pytest.raises(StorageFault):
        writer.commit([Commit(key("c"), 0, b"1")], NOW)
    path.with_name("moved.db").rename(path)
    assert execute(path, "SELECT object_id FROM durable_objects WHERE object_id <> 'a'") == [("b",)]


def test_a_file_that_is_moved_back_is_used_again(path: Path, sides: Sides) -> None:
    writer, reader = sides
    rename(path)
    with pytest.raises(StorageFault):
        writer.commit([Commit(key("a"), 1, b"2")], NOW)
    with pytest.raises(StorageFault):
        reader.load([key("a")])
    path.with_name("moved.db").rename(path)
    assert reader.load([key("a")])[0] is not None
    assert writer.commit([Commit(key("c"), 0, b"1")], NOW) == ()


def test_the_path_is_checked_once_in_a_millisecond(path: Path, sides: Sides, time: Time) -> None:
    writer, reader = sides
    for use in (USES["commit"], USES["load"]):
        use(writer, reader)
        rename(path)
        time.now += 0.0009
        use(writer, reader)
        time.now += 0.0002
        with pytest.raises(StorageFault):
            use(writer, reader)
        path.with_name("moved.db").rename(path)


def test_a_file_that_can_not_be_checked_is_not_used(
    path: Path, sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = sides

    def refuse(*_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        for use in (USES["commit"], USES["load"]):
            with pytest.raises(
                StorageFault, match=r"can't be checked \(Permission denied\), so nothing is ackn"
            ):
                use(writer, reader)
    assert USES["stale"](writer, reader) == {0}
    assert reader.load([key("a")])[0] is not None


# --- the log -------------------------------------------------------------------------------------


def replace_file(path: Path) -> None:
    path.unlink()
    path.touch()


@pytest.mark.parametrize("lose", [Path.unlink, replace_file])
@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_log_that_is_gone_is_noticed_within_a_second(
    path: Path, sides: Sides, time: Time, suffix: str, lose: Callable[[Path], None]
) -> None:
    writer, reader = sides
    companion = path.resolve().with_name(f"objects.db{suffix}")
    for use in (USES["commit"], USES["load"]):
        use(writer, reader)
    lose(companion)
    time.now += 1
    for use in (USES["commit"], USES["load"], USES["claim"]):
        for _ in range(2):
            with pytest.raises(StorageFault) as caught:
                use(writer, reader)
            assert str(caught.value).startswith(f"{companion} was removed or replaced while it was")


def test_what_is_in_a_log_that_is_gone_is_written_when_the_file_is_closed(path: Path) -> None:
    """As the message says."""
    with writing(SQLiteStorage(path)) as writer:
        for revision in range(3):
            assert writer.commit([Commit(key("a"), revision, b"1")], NOW) == ()
        path.with_name("objects.db-wal").unlink()
    assert execute(path, "SELECT revision FROM durable_objects") == [(3,)]


# --- contents of another -------------------------------------------------------------------------


def vacuum_into(path: Path, copy: Path) -> None:
    execute(path, "VACUUM INTO ?", str(copy))


def back_up(path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def copy_file(path: Path, copy: Path) -> None:
    shutil.copyfile(path, copy)


def truncate(path: Path, copy: Path) -> None:
    copy.touch()


def garbage(path: Path, copy: Path) -> None:
    copy.write_bytes(b"x" * path.stat().st_size)


def overwrite(path: Path, copy: Path) -> None:
    """As ``cp`` does: the inode stays."""
    inode = path.stat().st_ino
    path.write_bytes(copy.read_bytes())
    assert path.stat().st_ino == inode


def checkpoint(path: Path) -> None:
    """As another process may, at any time."""
    execute(path, "PRAGMA wal_checkpoint")


def change_each_second(writer: Writer, time: Time, revision: int, times: int) -> int:
    for _ in range(times):
        assert writer.commit([Commit(key("a"), revision, b"%d" % revision)], NOW) == ()
        revision += 1
        time.now += 1.01
    return revision


@pytest.mark.parametrize("make", [vacuum_into, back_up, copy_file, truncate, garbage])
def test_a_backup_that_is_restored_in_place_is_noticed_within_a_second(
    path: Path, sides: Sides, time: Time, make: Callable[[Path, Path], None]
) -> None:
    writer, reader = sides
    revision = change_each_second(writer, time, 1, 3)
    copy = path.with_name("copy.db")
    make(path, copy)
    revision = change_each_second(writer, time, revision, 3)
    checkpoint(path)
    change_each_second(writer, time, revision, 1)
    overwrite(path, copy)
    faults = 0
    for use in (USES["commit"], USES["load"], USES["claim"]) * 2:
        with pytest.raises(StorageFault) as caught:
            use(writer, reader)
        faults += f"{path.resolve()} was overwritten while it was open" in str(caught.value)
    assert faults == 6


@pytest.mark.parametrize("make", [vacuum_into, copy_file])
def test_a_backup_is_noticed_though_the_file_itself_was_restored_from_it(
    path: Path, time: Time, make: Callable[[Path, Path], None]
) -> None:
    """Both begin with the same counter, so the first stamp goes to the file at once."""
    with writing(SQLiteStorage(path)) as writer:
        assert writer.commit([Commit(key("a"), 0, b"1")], NOW) == ()
    copy = path.with_name("copy.db")
    make(path, copy)
    overwrite(path, copy)
    with writing(SQLiteStorage(path)) as writer:
        time.now += 1.01
        change_each_second(writer, time, 1, 1)
        overwrite(path, copy)
        with pytest.raises(StorageFault, match="was overwritten while it was open"):
            change_each_second(writer, time, 2, 1)


def test_what_others_do_through_sqlite_is_no_loss(path: Path, sides: Sides, time: Time) -> None:
    writer, reader = sides
    copy = path.with_name("copy.db")
    revision = 1
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (x)")
        for statement in [
            "INSERT INTO theirs VALUES (zeroblob(100000))",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "DELETE FROM theirs",
            "VACUUM",
            "PRAGMA wal_checkpoint(RESTART)",
            "INSERT INTO theirs VALUES (zeroblob(300000))",
            "PRAGMA user_version = 57",
        ]:
            revision = change_each_second(writer, time, revision, 2)
            other.execute(statement)
            checkpoint(path)
        vacuum_into(path, copy)
        with closing(sqlite3.connect(copy)) as source:
            source.backup(other)  # restored, but not by its file
    checkpoint(path)
    change_each_second(writer, time, revision, 3)
    row = reader.load([key("a")])[0]
    assert row is not None
    assert row.revision == revision + 3


def header_of(counter: int) -> bytes:
    return b"SQLite format 3\0" + bytes(8) + counter.to_bytes(4, "big") + bytes(72)


@pytest.mark.parametrize(
    ("before", "after", "is_lost"),
    [(5, 5, False), (5, 6, False), (5, 4, True), (2**32 - 1, 3, False), (3, 2**32 - 1, True)],
)
def test_the_counter_may_overflow(
    path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int, is_lost: bool
) -> None:
    headers = [header_of(before)]
    monkeypatch.setattr(DatabaseFile, "header", lambda _: headers[0])
    file = DatabaseFile(path)
    try:
        watch = FileWatch(path, file)
        watch.check_all()
        headers[0] = header_of(after)
        if is_lost:
            with pytest.raises(StorageFault, match="overwritten"):
                watch.check_all()
        else:
            watch.check_all()
    finally:
        file.release()


def test_a_header_that_is_just_being_written_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = [header_of(5), header_of(5), header_of(1), header_of(6), header_of(6)]
    monkeypatch.setattr(DatabaseFile, "header", lambda _: headers.pop(0))
    file = DatabaseFile(path)
    try:
        watch = FileWatch(path, file)
        for _ in range(3):
            watch.check_all()
    finally:
        file.release()
    assert headers == []


def test_the_stamp_comes_once_in_a_second(path: Path, sides: Sides, time: Time) -> None:
    writer, _ = sides

    def counter() -> int:
        checkpoint(path)
        return int.from_bytes(path.read_bytes()[24:28], "big")

    revision = change_each_second(writer, time, 1, 2)
    before = counter()
    for _ in range(5):
        time.now += 0.1
        assert writer.commit([Commit(key("a"), revision, b"1")], NOW) == ()
        revision += 1
    assert counter() <= before + 2
    change_each_second(writer, time, revision, 5)
    assert counter() >= before + 5


# --- opening, and the runtime --------------------------------------------------------------------


def test_a_file_that_is_replaced_while_it_is_opened_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SQLiteStorage(path).open_writer().close()
    prepare = SQLiteStorage._prepare

    def prepare_and_lose(self: SQLiteStorage, connection: sqlite3.Connection) -> object:
        schema = prepare(self, connection)
        replace(path)
        return schema

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteStorage, "_prepare", prepare_and_lose)
        with pytest.raises(StorageUnavailable, match="was replaced by another file"):
            SQLiteStorage(path).open_writer()
    SQLiteStorage(path).open_writer().close()  # nothing is locked any more


@every_loss
def test_a_runtime_acknowledges_nothing_any_more(
    path: Path, lose: Callable[[Path], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watch, "PATH_CHECK_SECONDS", 0.0)

    async def main() -> None:
        async with DurableRuntime(path, objects=[Counter]) as runtime:
            assert await runtime.get(Counter, "a").add() == 1
            lose(path)
            for object_id in ("a", "b"):  # one in memory, and one that isn't
                with pytest.raises(PersistenceError, match=says):
                    await runtime.get(Counter, object_id).add()

    trio.run(main)
