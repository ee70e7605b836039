"""An alarm kills each process that delivers it, until it is a dead letter. No other alarm is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from trio_durable import ObjectKey, SQLiteStorage
from trio_durable.storage import AlarmChanges, Commit, NewAlarm

from .poison_child import CRASHES, INNOCENT

CHILD = Path(__file__).with_name("poison_child.py")


@contextmanager
def child(path: Path, backend: str, way: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(CHILD), str(path), backend, way], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    """The lines of a process until it is calm or dies."""
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line.strip())
        if said[-1] == "calm":
            break
    return said


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("backend", "way", "order"),
    [
        ("trio", "exit", ["poison", *INNOCENT]),
        ("asyncio", "kill", [*INNOCENT, "poison"]),
    ],
)
def test_only_the_alarm_that_kills_is_a_dead_letter(
    tmp_path: Path, backend: str, way: str, order: list[str]
) -> None:
    path = tmp_path / "app.db"
    with closing(SQLiteStorage(path).open_writer()) as writer:
        for due_at, name in enumerate(order):
            alarms = AlarmChanges(changed={"run": NewAlarm(due_at, None)})
            writer.commit([Commit(ObjectKey("Job", name), None, alarms=alarms)], 0)
    deaths = 0
    while True:
        with child(path, backend, way) as process:
            said = lines_of(process)
            if said[-1:] == ["calm"]:
                break
            assert process.wait(10) == (7 if way == "exit" else -9)
            assert "+ poison" in said
            deaths += 1
            assert deaths <= 1 + CRASHES
    # The first process may have died of any of them.
    assert deaths == 1 + CRASHES
    assert "+ poison" not in said
    # Now each process is killed from outside, again and again, while the others run.
    for _ in range(CRASHES + 2):
        with child(path, backend, way) as process:
            assert lines_of(process)[-1:] == ["calm"]
    with child(path, backend, "end") as process:
        said = lines_of(process)
        assert process.wait(10) == 0
    dead = [line for line in said if line.startswith("dead")]
    assert len(dead) == 1
    assert dead[0].startswith("dead poison AlarmCrashed: run on Job('poison') is an alarm, and ")
    assert f"each of its last {CRASHES} deliveries" in dead[0]
    assert [line for line in said if line.startswith("done")] == [
        f"done {name} True" for name in INNOCENT
    ]
