"""Backups and restores that are killed at each line: a program, run by its tests.

    python -m cli.backup_kills backup|restore FOLDER

The folder has ``app.db`` with a log, as a killed process leaves them, and ``old.db``, a backup of
another state. Each line is tried in a forked process with copies of these. The program prints the
number of kills, and ends with an error if one leaves what it must not.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

from trio_durable.storage.sqlite import _backup

Rows = list[tuple[Any, ...]]


def rows(path: Path) -> Rows:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return db.execute(
            "SELECT type, id, revision, state FROM durable_objects_v1 ORDER BY 1, 2"
        ).fetchall()


def killed_at_line(number: int, work: Callable[[], object]) -> bool:
    """Do some work in a forked process that is killed at a line of the module; False if it ends."""
    pid = os.fork()
    if not pid:
        left = number

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename != _backup.__file__:
                return None
            if event == "line":
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            sys.settrace(None)
            sys.stderr.write(f"{error!r}\n")
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def ignore(_done: int, _total: int) -> None:
    """No progress is shown."""


def assert_nothing_else(folder: Path, *names: str) -> None:
    allowed = {f"{name}{suffix}" for name in names for suffix in ("", "-wal", "-shm")}
    assert {path.name for path in folder.iterdir()} <= allowed, list(folder.iterdir())


def backup(source: Path, folder: Path, number: int) -> bool:
    app, copy = folder / "app.db", folder / "copy.db"
    expected = rows(app)
    was_killed = killed_at_line(number, lambda: _backup.back_up(app, copy, ignore))
    if copy.exists():
        assert rows(copy) == expected
        copy.unlink()
    _backup.back_up(app, copy, ignore)
    assert rows(copy) == rows(app) == expected
    assert_nothing_else(folder, "app.db", "old.db", "copy.db")
    return was_killed


def restore(source: Path, folder: Path, number: int) -> bool:
    app, old = folder / "app.db", folder / "old.db"
    both = [rows(source / "expected.db"), rows(old)]
    was_killed = killed_at_line(number, lambda: _backup.restore(old, app, ignore))
    assert rows(app) in both
    assert was_killed or rows(app) == both[1]
    _backup.restore(old, app, ignore)
    assert rows(app) == rows(old) == both[1]
    assert_nothing_else(folder, "app.db", "old.db")
    return was_killed


def main() -> None:
    kind, source = sys.argv[1], Path(sys.argv[2])
    attempt = {"backup": backup, "restore": restore}[kind]
    _backup._PAGES_PER_STEP = 4
    number = 0
    while True:
        number += 1
        folder = source.with_name(f"{kind}-{number}")
        folder.mkdir()
        for name in ("app.db", "app.db-wal", "old.db"):
            shutil.copyfile(source / name, folder / name)
        if not attempt(source, folder, number):
            sys.stdout.write(f"{number - 1}\n")
            return
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
