"""The child process of the demo, from the parent's side."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

# Python's option -m puts the current folder first in sys.path. The child runs in the folder that
# this library was imported from, so that no module of the user's folder hides another.
_HOME = Path(__file__).parents[3]


class WorkerFailed(Exception):
    """The child process ended on its own."""


@attrs.frozen
class Reminder:
    """A stored alarm, and when it fired."""

    set_by: int
    """The id of the process that set it."""
    due_at: float
    fired: list[tuple[int, float]]
    """Process id and time of each delivery."""


@attrs.frozen
class Report:
    """The objects of a child, after the overdue alarms have fired."""

    at: float
    transfers: list[int]
    """The number of transfers from each account."""
    waiting: int
    """The number of messages that wait."""
    reminders: list[list[Reminder]]
    """The alarms of each diary."""

    @classmethod
    def parse(cls, line: bytes) -> Report:
        """Parse the line that a child wrote."""
        at, transfers, waiting, diaries = json.loads(line)
        reminders = [[Reminder(*each) for each in diary] for diary in diaries]
        return cls(at, transfers, waiting, reminders)

    @property
    def all_reminders(self) -> Iterable[Reminder]:
        """The alarms of all diaries."""
        return chain.from_iterable(self.reminders)


class Worker:
    """A running child process. The constructor waits for its first report."""

    def __init__(self, path: Path, accounts: int, diaries: int, within: float) -> None:
        arguments = [str(path), str(accounts), str(diaries), str(within)]
        self._process = subprocess.Popen(  # noqa: S603  # this interpreter, no shell
            [sys.executable, "-m", f"{__package__}.worker", *arguments],
            cwd=_HOME,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Control-C interrupts this process only, which then kills the child.
            start_new_session=True,
        )
        self.killed = False
        self._rest = b""
        try:
            self.found = Report.parse(self._read_line())
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process:  # closes the pipes and waits
            self._process.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def request(self, requests: Sequence[int]) -> None:
        """Request transfers by account number, or alarms by diary number with the bit `ALARM`."""
        assert self._process.stdin is not None
        # A dead child is detected at the end of its output.
        with contextlib.suppress(OSError):
            self._process.stdin.write(array("I", requests).tobytes())

    def acknowledged(self) -> array[int]:
        """Acknowledged requests, each followed by its latency in µs; empty at the end of output."""
        data = self._rest + self._read()
        whole = len(data) // 8 * 8
        self._rest = data[whole:]
        return array("I", data[:whole])

    def kill(self) -> None:
        """Send SIGKILL. Output from before the kill can still be read."""
        self.killed = True
        self._process.kill()

    def finish(self) -> Report:
        """Close the child's input; it delivers what is left, reports again, and exits."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        report = Report.parse(self._read_line())
        if self._process.wait(timeout=30) != 0:
            raise WorkerFailed(f"the child process ended with status {self._process.returncode}")
        return report

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(1 << 16) or b""

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            part = self._read()
            if not part:
                raise WorkerFailed("the child process ended without a report")
            line += part
        return line
