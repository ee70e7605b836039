"""One contender in a process of its own: ``python -m benchmarks.compare.child NAME FOLDER EFFORT``.

Prints one line of JSON, a list of `Stretch`. The parent's side is `put_through` and `count_syncs`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import orjson
from cattrs.preconf.orjson import make_converter

from benchmarks import loops

from . import syncs
from .catalogue import Entry, entry_named
from .driver import Effort, drive
from .results import Stretch, WorkloadName

_TIMEOUT = 180
_GRACE = 10
_converter = make_converter()


class ContenderFailed(Exception):
    """It broke; the message is the end of what it said."""


def put_through(
    entry: Entry, folder: Path, effort: Effort, tracer: Sequence[str] = ()
) -> list[Stretch]:
    """Put a contender through the workloads once, in a fresh interpreter and an empty folder.

    Raises:
        ContenderFailed: It broke, or took too long.
    """
    # The path of a server's socket, which is in there, may not be long.
    with tempfile.TemporaryDirectory(prefix="", dir=folder) as own_folder:
        plan = orjson.dumps(attrs.asdict(effort)).decode()
        command = [sys.executable, "-m", __spec__.name, entry.name, own_folder, plan]
        # In a session of its own, so that all it has started can be ended with it.
        with subprocess.Popen(
            [*tracer, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, complaints = process.communicate(timeout=_TIMEOUT)
            except subprocess.TimeoutExpired:
                _end(process)
                raise ContenderFailed(f"it took longer than {_TIMEOUT} s") from None
            except BaseException:
                _end(process)
                raise
    if process.returncode:
        raise ContenderFailed((complaints.strip() or f"exit status {process.returncode}")[-2000:])
    # Others print, too.
    return _converter.loads(said.splitlines()[-1], list[Stretch])


def _end(process: subprocess.Popen[str]) -> None:
    """End it, with a chance to stop the servers that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE)
        os.killpg(process.pid, signal.SIGKILL)


def count_syncs(entry: Entry, folder: Path, effort: Effort) -> dict[WorkloadName, float]:
    """How often a contender has the disk sync, per 1,000 operations of each workload.

    Raises:
        ContenderFailed: As `put_through` does.
    """
    log = folder / f"{entry.name}.strace"
    stretches = put_through(entry, folder, effort, syncs.tracer(log))
    times = syncs.times(log.read_text())
    return {
        stretch.workload: syncs.within(times, stretch.began, stretch.ended)
        / stretch.operations
        * 1000
        for stretch in stretches
    }


def main() -> None:
    """Measure what the command line names."""
    name, folder, plan = sys.argv[1:]
    contender = entry_named(name).load()
    effort = _converter.loads(plan, Effort)
    stretches = loops.run(contender.loop, partial(drive, contender, Path(folder), effort))
    print()
    print(_converter.dumps(stretches).decode())


if __name__ == "__main__":
    main()
