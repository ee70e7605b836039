"""The lock of an SQLite file: one runtime per file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trio_durable import DurableRuntime, SQLiteStorage, StorageInUse
from trio_durable.storage import Commit
from trio_durable.storage.sqlite._writer import SQLiteWriter

from .files import NOW, Counter, key, posix_only, serving, writing


def test_in_use_names_this_process(path: Path) -> None:
    with writing(SQLiteStorage(path)), pytest.raises(StorageInUse) as caught:
        SQLiteStorage(path).open_writer()
    assert caught.value.pid == os.getpid()
    assert "of this process" in str(caught.value)
    SQLiteStorage(path).open_writer().close()


def test_a_second_runtime_is_refused_and_the_first_goes_on(path: Path) -> None:
    async def scenario(runtime: DurableRuntime, _: sqlite3.Connection) -> None:
        counter = runtime.get(Counter, "a")
        assert await counter.add() == 1
        with pytest.raises(StorageInUse):
            async with DurableRuntime(path):
                pytest.fail("two runtimes on one file")
        assert await counter.add() == 2

    serving(path, scenario)


def test_two_spellings_of_one_path_meet_at_one_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "objects.db"
    (tmp_path / "folder-link").symlink_to(folder)
    (tmp_path / "link.db").symlink_to(path)
    monkeypatch.chdir(folder)
    spellings = [
        SQLiteStorage("objects.db"),
        SQLiteStorage("../folder/./objects.db"),
        SQLiteStorage(tmp_path / "folder-link" / "objects.db"),
        SQLiteStorage(tmp_path / "link.db"),
        SQLiteStorage(path),
    ]
    # A relative path means the folder that was current when it was given.
    monkeypatch.chdir(tmp_path)
    for holder in spellings:
        with writing(holder):
            for other in spellings:
                with pytest.raises(StorageInUse):
                    other.open_writer()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["folder", "folder-link", "link.db"]


HOLDER = """
import os, sys
from trio_durable import SQLiteStorage

writer = SQLiteStorage(sys.argv[1]).open_writer()
if "fork" not in sys.argv or os.fork() == 0:
    # Said by the child itself, so that it is known to have come out of its fork.
    print(os.getpid(), flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds the file until it's killed, and the pid it was told."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def test_in_use_names_the_other_process_and_ends_with_its_kill(path: Path) -> None:
    with holding(path) as (process, _):
        with pytest.raises(StorageInUse) as caught:
            SQLiteStorage(path).open_writer()
        assert caught.value.pid == process.pid
        process.kill()
        process.wait()
        SQLiteStorage(path).open_writer().close()


@posix_only
def test_a_forked_child_does_not_keep_the_lock(path: Path) -> None:
    with holding(path, "fork") as (process, child):
        with pytest.raises(StorageInUse) as caught:
            SQLiteStorage(path).open_writer()
        assert caught.value.pid == process.pid
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        SQLiteStorage(path).open_writer().close()

        # Its end of the pipe is the last one now, so it ends by itself when that closes.


@posix_only
def test_a_forked_child_that_ends_does_not_release_the_lock(path: Path) -> None:
    code = """
import os, sys
from trio_durable import SQLiteStorage, StorageInUse

writer = SQLiteStorage(sys.argv[1]).open_writer()
if (child := os.fork()) == 0:
    os._exit(0)
os.waitpid(child, 0)
try:
    SQLiteStorage(sys.argv[1]).open_writer()
except StorageInUse as error:
    print(error.pid == os.getpid())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


@posix_only
def test_a_lock_that_cannot_be_noted_is_let_go(path: Path) -> None:
    """The disk is full while opening; once there is space the same process can open."""
    code = """
import resource, sys
from trio_durable import SQLiteStorage, StorageUnavailable

resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    SQLiteStorage(sys.argv[1]).open_writer()
except StorageUnavailable as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
SQLiteStorage(sys.argv[1]).open_writer().close()
print("opened")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "StorageUnavailable\nopened\n", done.stderr


def test_the_lock_file_stays(path: Path) -> None:
    """Removing it would race with the next holder."""
    SQLiteStorage(path).open_writer().close()
    assert path.with_name("objects.db-lock").exists()


def test_the_lock_outlives_the_connection(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next holder finds the file closed, and its log checkpointed."""
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([Commit(key("a"), 0, b"{}")], NOW)
        order: list[str] = []
        assert isinstance(writer, SQLiteWriter)
        release = writer._lock.release

        def released() -> None:
            order.append("wal" if path.with_name("objects.db-wal").exists() else "closed")
            release()

        monkeypatch.setattr(writer._lock, "release", released)
    assert order == ["closed"]
