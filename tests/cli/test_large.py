"""Read-only commands on 100,000 objects, in pipes: output and memory are bounded.

The states are far larger than the bound, so a command that held all of them would exceed it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from trio_durable import DurableObject, DurableRuntime, ObjectKey, handler
from trio_durable._api.commands import (
    ACTIVATION,
    STATISTICS,
    TURNS,
    TYPES,
    WAITS,
    CommandRequests,
)
from trio_durable.storage import AlarmChanges, Commit, MemoryStorage, NewAlarm

from .serving import eventually
from .stored_data import DAY, NOW, writer_of
from .support import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

TYPE = "large.Cart"
COUNT = 100_000
STATE = b'{"note":"%b"}' % (b"n" * 1500)
MOST_BYTES = 90 * 1024 * 1024
ALARMS = COUNT // 5


class Cart(DurableObject, name=TYPE):
    note: str = ""

    @handler(readonly=True)
    def length(self) -> int:
        return len(self.note)

    @handler
    def change(self, note: str) -> None:
        self.note = note


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "app.db"
    with writer_of(path) as writer:
        for start in range(0, COUNT, 1000):
            batch = []
            for number in range(start, start + 1000):
                new = NewAlarm(NOW + DAY, None) if number % 5 == 0 else None
                alarms = None if new is None else AlarmChanges(changed={"remind": new})
                key = ObjectKey(TYPE, f"c{number:06}")
                batch.append(Commit(key, 0, STATE, alarms=alarms))
            assert not writer.commit(batch, NOW)
    assert COUNT * len(STATE) > 1.5 * MOST_BYTES
    return path


@pytest.fixture(scope="module", params=["stopped", "running"])
def path(request: pytest.FixtureRequest, large: Path) -> Iterator[Path]:
    """The storage of an app that is stopped or that runs."""
    if request.param == "stopped":
        yield large
        return
    with start_blocking_portal("trio") as portal:
        runtime = DurableRuntime(large, objects=[Cart])
        with portal.wrap_async_context_manager(runtime):

            async def is_reachable() -> bool:
                return runtime.statistics().control_problem is None

            eventually(lambda: portal.call(is_reachable))
            yield large


@pytest.mark.parametrize(
    ("command", "status", "lines", "says"),
    [
        ("ls -s app.db", 0, 10, ""),
        (f"ls -s app.db {TYPE}", 0, 110, "There are more: "),
        (f"ls -s app.db {TYPE} -o csv", 0, COUNT + 1, ""),
        (f"ls -s app.db {TYPE} -o json", 0, COUNT, ""),
        (f"ls -s app.db {TYPE} -o jsonl --limit 70000", 0, 70_000, ""),
        ("alarms -s app.db", 0, 110, "There are more: "),
        ("alarms -s app.db --json", 0, ALARMS, ""),
        ("alarms -s app.db --status dead", 0, 0, "No alarms match."),
        ("stats -s app.db", 0, 10, ""),
        ("tenants -s app.db", 0, 0, "There are no tenants."),
        ("messages list -s app.db", 0, 0, "No messages match."),
        ("messages dead -s app.db", 0, 0, "No dead letters match."),
        (f"show -s app.db {TYPE} c099999", 0, 10, ""),
        (f"wait -s app.db {TYPE} c099999", 0, 1, ""),
        (f"watch -s app.db {TYPE} c099999 --count 1", 0, 1, ""),
        ("doctor app.db --thorough", 0, 20, ""),
        ("export -s app.db", 0, COUNT + ALARMS + 2, "Exported 100,000 objects"),
        ("query app.db", 0, 1010, "There are more rows: "),
    ],
    ids=lambda value: value.removesuffix(" app.db") if isinstance(value, str) else "",
)
def test_output_and_memory_are_bounded(
    path: Path, command: str, status: int, lines: int, says: str
) -> None:
    args = command.split()
    if args[0] == "query":
        args.append("SELECT id, revision FROM durable_objects_v1")
    printed, error, code, most = measured(path.parent, *args)
    assert code == status, error
    assert says in error
    assert printed <= lines
    assert most < MOST_BYTES


@pytest.mark.parametrize("command", ["top", "stacks", "nodes"])
def test_requests_of_a_running_app_are_answered(path: Path, command: str) -> None:
    args = ["nodes", "app.db"] if command == "nodes" else [command, "-s", "app.db"]
    printed, error, code, most = measured(path.parent, *args)
    assert code in (0, 2)  # it is stopped
    assert "\n" not in error.strip()
    assert printed <= 10
    assert most < MOST_BYTES


_RUN = """
import re, sys
from pathlib import Path
from trio_durable.cli import main

try:
    main()
finally:
    sys.stdout.flush()
    [kilobytes] = re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    sys.stderr.write(f"\\n{kilobytes}")
"""


def measured(folder: Path, *args: str) -> tuple[int, str, int, int]:
    """Run a command: the lines that it prints, its errors, status, and the most bytes it took.

    The last is what the process says, since `resource` counts those of the process before the
    ``exec``, too.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _RUN, *args],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = sum(1 for _ in process.stdout)
        error, _, kilobytes = process.stderr.read().decode().rpartition("\n")
    return lines, error, process.returncode, int(kilobytes) * 1024


@pytest.mark.anyio
async def test_requests_of_commands_take_as_many_steps_for_many_objects_as_for_few() -> None:
    """The app's event loop does nothing else meanwhile. Each step is a call in Python."""
    steps = []
    async with DurableRuntime(MemoryStorage(), objects=[Cart]) as runtime:
        for count in (10, 2000):
            for number in range(count):
                await runtime.get(Cart, str(number)).change("x")
            requests = CommandRequests(runtime._open(), runtime._registry, runtime.statistics)
            assert runtime.statistics().objects == count
            await anyio.lowlevel.checkpoint()
            steps.append({name: steps_of(requests, name) for name in (STATISTICS, TURNS)})
            steps[-1] |= {name: steps_of(requests, name) for name in (WAITS, TYPES)}
            steps[-1][ACTIVATION] = steps_of(requests, ACTIVATION, TYPE, "7", "")
    few, many = steps
    assert many == few
    assert all(few.values())


def steps_of(requests: CommandRequests, name: str, *arguments: object) -> int:
    steps = 0

    def count(_frame: object, event: str, _value: object) -> None:
        nonlocal steps
        steps += event.endswith("call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        requests.of_process(name, arguments)
    finally:
        sys.setprofile(before)
    return steps
