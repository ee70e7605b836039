"""A recurring alarm outlives a release that doesn't know it. Each release is a process."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

CHILD = Path(__file__).with_name("release_child.py")
SECOND = 1_000_000


def ran(path: Path, release: str) -> list[str]:
    """What a release has said."""
    command = [sys.executable, str(CHILD), str(path), release]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_no_firing_is_lost_by_an_older_release(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    times = [int(line.split()[1]) for line in ran(path, "new")]
    (warning,) = ran(path, "old")
    assert "recurring alarm 'digest' of type 'Report' has no handler" in warning
    with closing(sqlite3.connect(path)) as connection:
        columns = "name, due_at, failures, last_error, recurrence IS NULL"
        found = connection.execute(f"SELECT {columns} FROM durable_alarms").fetchall()
    assert found == [("digest", times[-1] + SECOND, 0, None, 0)]
    times += [int(line.split()[1]) for line in ran(path, "new")]
    assert len(times) >= 4
    assert times == [times[0] + n * SECOND for n in range(len(times))]
