"""The names of one SQLite file, hard links and bind mounts, share one lock."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from trio_durable import SQLiteStorage, StorageInUse, StorageUnavailable
from trio_durable.storage import Commit
from trio_durable.storage.sqlite._database_file import identity_of, is_owned

from .files import NOW, key, writing

HOLDER = """
import os, sys
from trio_durable import SQLiteStorage

writer = SQLiteStorage(sys.argv[1]).open_writer()
if "fork" in sys.argv and os.fork() == 0:
    os._exit(0)
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(path: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[None]:
    """A process that holds the file."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", HOLDER, str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "open\n"
            yield
        finally:
            process.kill()


@pytest.fixture
def link(path: Path) -> Path:
    """Another name of the file, in another folder."""
    SQLiteStorage(path).open_writer().close()
    folder = path.parent / "elsewhere"
    folder.mkdir()
    link = folder / "other.db"
    link.hardlink_to(path)
    return link


def descriptors_of(path: Path) -> int:
    """The number of descriptors that this process has of a file."""
    wanted, found = identity_of(os.stat(path)), 0
    for name in os.listdir("/dev/fd"):
        try:
            found += identity_of(os.fstat(int(name))) == wanted
        except OSError:  # the listing's own
            continue
    return found


def test_a_hard_link_is_in_use_by_this_process(path: Path, link: Path) -> None:
    with writing(SQLiteStorage(path)):
        for _ in range(2):
            with pytest.raises(StorageInUse) as caught:
                SQLiteStorage(link).open_writer()
            assert caught.value.pid == os.getpid()
    with writing(SQLiteStorage(link)), pytest.raises(StorageInUse):
        SQLiteStorage(path).open_writer()


def test_a_hard_link_is_in_use_by_another_process_until_that_ends(path: Path, link: Path) -> None:
    with holding(path):
        assert is_owned(link)
        with pytest.raises(StorageInUse) as caught:
            SQLiteStorage(link).open_writer()
        assert str(caught.value) == (
            f"{link} is in use by a runtime of another process (the file is locked under another "
            "name, a hard link or a bind mount); stop its process first"
        )
    assert is_owned(link) is False
    SQLiteStorage(link).open_writer().close()


def test_a_forked_child_that_ends_does_not_release_the_inode(path: Path, link: Path) -> None:
    with holding(path, "fork"), pytest.raises(StorageInUse):
        SQLiteStorage(link).open_writer()


FORKED = """
import os, signal, sys, threading
from trio_durable import SQLiteStorage
from trio_durable.storage.sqlite import _database_file

# Another thread opens a file right now. The child hasn't that thread.
thread = threading.Thread(target=_database_file._registry_guard.acquire)
thread.start()
thread.join()
child = os.fork()
if child == 0:
    signal.alarm(30)
    SQLiteStorage(sys.argv[1]).open_writer().close()
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""


def test_a_child_that_is_forked_while_a_file_is_opened_can_open_it(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"


KILLED = """
import os, sys
from trio_durable import ObjectKey, SQLiteStorage
from trio_durable.storage import Commit

writer = SQLiteStorage(sys.argv[1]).open_writer()
writer.commit([Commit(ObjectKey("Counter", "a"), 0, b"{}")], 1)
os._exit(0)
"""


def test_the_log_that_a_crash_left_beside_another_name_is_not_passed_over(path: Path) -> None:
    SQLiteStorage(path).open_writer().close()
    link = path.with_name("other.db")
    link.hardlink_to(path)
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=True)
    for _ in range(2):
        with pytest.raises(StorageUnavailable) as caught:
            SQLiteStorage(link).open_writer()
        assert "whose log " in str(caught.value)
        assert str(caught.value).endswith("; open objects.db first, and keep one name only")
    assert not link.with_name("other.db-wal").exists()
    SQLiteStorage(path).open_writer().close()
    storage = SQLiteStorage(link)
    with writing(storage), closing(storage.open_reader()) as reader:
        assert reader.load([key("a")])[0] is not None


def test_a_folder_that_can_not_be_read_may_have_such_a_log(
    path: Path, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(StorageUnavailable, match="its folder can't be read"):
            SQLiteStorage(path).open_writer()
        link.unlink()
        SQLiteStorage(path).open_writer().close()  # one name, so there is nothing to look for


BIND = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"')


def test_a_bind_mount_is_the_same_file(path: Path) -> None:
    """A container has only the file, and neither its folder nor the lock file."""
    SQLiteStorage(path).open_writer().close()
    folder = path.parent / "container"
    folder.mkdir()
    mount = folder / "objects.db"
    mount.touch()
    if (
        not shutil.which("unshare")
        or subprocess.run([*BIND, path, mount, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this user can't mount")
    with (
        holding(mount, prefix=(*BIND, str(path), str(mount))),
        pytest.raises(StorageInUse, match="locked under another name"),
    ):
        SQLiteStorage(path).open_writer()
    SQLiteStorage(path).open_writer().close()


def test_the_inode_is_locked_although_the_lock_file_is_removed(path: Path) -> None:
    with holding(path):
        path.with_name("objects.db-lock").unlink()
        with pytest.raises(StorageInUse):
            SQLiteStorage(path).open_writer()


def test_a_runtime_of_an_earlier_release_is_seen_by_its_lock_file(path: Path) -> None:
    SQLiteStorage(path).open_writer().close()
    with path.with_name("objects.db-lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageInUse):
            SQLiteStorage(path).open_writer()


def test_a_system_without_such_locks_has_the_lock_file(
    path: Path, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert is_owned(path) is None
    with writing(SQLiteStorage(path)) as writer:
        assert writer.commit([Commit(key("a"), 0, b"{}")], NOW) == ()
        for name in (path, link):  # in this process, the inode is enough
            assert is_owned(name)
            with pytest.raises(StorageInUse):
                SQLiteStorage(name).open_writer()


# --- SQLite's own locks --------------------------------------------------------------------------

LOCKED = """
import fcntl, os, struct, sys
flock = struct.Struct("@hhqqi4x")
with open(sys.argv[1], "r+b") as file:
    asked = flock.pack(fcntl.F_WRLCK, os.SEEK_SET, 0x40000002, 510, 0)
    print(flock.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)
"""


def is_locked_by_sqlite(path: Path) -> bool:
    """Whether this process has SQLite's shared lock on the file, as another process sees it."""
    assert struct.calcsize("@hhqqi4x") == 32
    return (
        subprocess.run(
            [sys.executable, "-c", LOCKED, str(path)], capture_output=True, text=True, check=True
        ).stdout
        == "True\n"
    )


def test_a_refused_opening_leaves_the_locks_of_sqlite(path: Path, link: Path) -> None:
    """Closing any descriptor of a file drops all POSIX locks that the process has on it."""
    with writing(SQLiteStorage(path)):
        assert is_locked_by_sqlite(path)
        with pytest.raises(StorageInUse):
            SQLiteStorage(link).open_writer()
        assert is_owned(link)
        assert is_locked_by_sqlite(path)
    assert not is_locked_by_sqlite(path)


def test_a_closed_writer_leaves_the_locks_of_others(path: Path) -> None:
    SQLiteStorage(path).open_writer().close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM durable_objects").fetchone()
        for _ in range(3):
            SQLiteStorage(path).open_writer().close()
            assert is_locked_by_sqlite(path)
            assert is_owned(path) is False
            with holding(path):  # the lock has been let go, though the descriptor is open
                assert is_owned(path)
    SQLiteStorage(path).open_writer().close()
    assert descriptors_of(path) == 0


def test_descriptors_are_closed_at_last(path: Path, link: Path) -> None:
    with writing(SQLiteStorage(path)):
        held = descriptors_of(path)
        for _ in range(5):
            with pytest.raises(StorageInUse):
                SQLiteStorage(link).open_writer()
            is_owned(link)
        assert descriptors_of(path) == held
    assert descriptors_of(path) == 0


def test_descriptors_stay_where_they_can_not_be_listed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> list[str]:
        raise FileNotFoundError

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        SQLiteStorage(path).open_writer().close()
    assert descriptors_of(path) == 1
    assert is_owned(path) is False
    assert descriptors_of(path) == 0
