"""A reader of an SQLite file with no writer."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from trio_durable import SQLiteStorage, StorageInUse, StorageUnavailable
from trio_durable.storage import StoredObject

from .files import NOW, execute, key, theirs


def test_a_reader_without_a_file_makes_none(path: Path) -> None:
    for attempt in (SQLiteStorage(path).open_reader, SQLiteStorage(path).pending_migrations):
        with pytest.raises(StorageUnavailable, match="there is no such file"):
            attempt()
    nowhere = SQLiteStorage(path.parent / "nowhere" / "objects.db")
    with pytest.raises(StorageUnavailable, match="there is no such file"):
        nowhere.open_reader()
    assert list(path.parent.iterdir()) == []


def test_a_reader_of_what_is_no_database(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 100)
    for attempt in (SQLiteStorage(path).open_reader, SQLiteStorage(path).pending_migrations):
        with pytest.raises(StorageUnavailable, match="it is not an SQLite file"):
            attempt()
    assert path.read_bytes() == b"Dear diary, " * 100
    with pytest.raises(StorageUnavailable):
        SQLiteStorage(path.parent).open_reader()


def test_a_reader_of_a_file_that_nobody_has_opened_to_write(path: Path) -> None:
    path.touch()
    storage = SQLiteStorage(path)
    with pytest.raises(StorageUnavailable, match="it holds no durable objects; check the path"):
        storage.open_reader()
    assert storage.pending_migrations() == [
        "m001_objects",
        "m002_alarms",
        "m003_tenants",
        "m004_crashes",
        "m005_messages",
        "m006_recurrences",
        "m007_views",
    ]
    assert path.read_bytes() == b""


@pytest.mark.parametrize("migrated", [False, True], ids=["plain", "migrated"])
def test_a_file_that_others_have_made_is_taken_by_writers_only(path: Path, migrated: bool) -> None:
    execute(path, "CREATE TABLE theirs (x)")
    if migrated:
        execute(path, "CREATE TABLE _sqlite_migrations (migration_set, name, applied_at)")
        execute(path, "INSERT INTO _sqlite_migrations VALUES ('others', 'm001_objects', '')")
    before = path.read_bytes()
    storage = SQLiteStorage(path)
    with pytest.raises(StorageUnavailable, match="it holds no durable objects; check the path"):
        storage.open_reader()
    with pytest.raises(StorageUnavailable, match="no durable objects; check the path"):
        storage.pending_migrations()
    assert path.read_bytes() == before
    path.unlink()
    execute(path, "CREATE TABLE theirs (x)")
    storage.open_writer().close()
    assert storage.pending_migrations() == []
    storage.open_reader().close()


def test_a_reader_that_is_refused_leaves_nothing_open(path: Path) -> None:
    path.touch()
    storage = SQLiteStorage(path)
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            storage.open_reader()
    storage.open_writer().close()
    assert sorted(f.name for f in path.parent.iterdir()) == ["objects.db", "objects.db-lock"]


BESIDE = """
import sys
from trio_durable import ObjectKey, SQLiteStorage
from trio_durable.storage import Commit

writer = SQLiteStorage(sys.argv[1]).open_writer()
print("open", flush=True)
for n, line in enumerate(sys.stdin):
    tenant, _, done = line.strip().partition(" ")
    if done:
        writer.drop_tenant(tenant)
    else:
        writer.commit([Commit(ObjectKey("Counter", f"{n}", tenant), 0, b"1")], n)
    print(n, flush=True)
"""


def test_a_reader_beside_a_writer_in_another_process(path: Path) -> None:
    storage = SQLiteStorage(path)
    with subprocess.Popen(
        [sys.executable, "-c", BESIDE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"

        def tell(line: str) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert process.stdout.readline()

        with closing(storage.open_reader()) as reader:
            with pytest.raises(StorageInUse) as caught:
                storage.open_writer()
            assert caught.value.pid == process.pid
            assert storage.pending_migrations() == []
            tell("")
            assert [row.key for row in reader.browse_objects(None, None, 10)] == [key("0")]
            assert reader.list_tenants(None, 10) == []
            assert reader.browse_objects(None, None, 10, "acme") == []
            # Seen though this reader has known that it wasn't there.
            tell("acme")
            assert reader.list_tenants(None, 10) == ["acme"]
            assert reader.load([theirs("acme", "1")]) == [StoredObject(1, b"1")]
            assert [row.key for row in reader.browse_objects(None, None, 10, "acme")] == [
                theirs("acme", "1")
            ]
            tell("acme gone")
            assert reader.list_tenants(None, 10) == []
            assert reader.load([theirs("acme", "1")]) == [None]
            assert reader.summarize(NOW, "acme") == []
            tell("acme")
            assert reader.list_ids("Counter", None, 10, "acme") == ["3"]
        process.stdin.close()
