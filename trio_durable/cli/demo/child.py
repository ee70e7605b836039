"""The child process, as the demo sees it: started, asked, listened to, and killed."""

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

from .protocol import AMOUNT

# -m puts the current folder first among those to import from: let that be the one that this
# library was imported from, and not the user's.
_HOME = Path(__file__).parents[3]


class WorkerFailed(Exception):
    """The child ended by itself, which nobody asked it to do."""


@attrs.frozen
class Reminder:
    """An alarm that was set, as the file has it."""

    set_by: int
    """The id of the process."""
    due_at: float
    fired: list[tuple[int, float]]
    """Process and time, of each time that it was handled."""


@attrs.frozen
class Report:
    """What a child found in the file, once it had let fire what was overdue."""

    at: float
    deposits: list[int]
    """By account."""
    torn: int
    """Accounts that show half a deposit."""
    reminders: list[list[Reminder]]
    """By diary."""

    @classmethod
    def of(cls, line: bytes) -> Report:
        """The report that a child wrote."""
        at, accounts, diaries = json.loads(line)
        return cls(
            at,
            [deposits for deposits, _ in accounts],
            sum(balance != deposits * AMOUNT for deposits, balance in accounts),
            [[Reminder(*each) for each in reminders] for reminders in diaries],
        )

    @property
    def all_reminders(self) -> Iterable[Reminder]:
        """Of all diaries."""
        return chain.from_iterable(self.reminders)


class Worker:
    """The child process. Starting it waits until it has reported what it found in the file."""

    def __init__(self, path: Path, accounts: int, diaries: int, within: float) -> None:
        arguments = [str(path), str(accounts), str(diaries), str(within)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker", *arguments],
            cwd=_HOME,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Control-C is for this process, which kills the other one itself.
            start_new_session=True,
        )
        self.killed = False
        self._rest = b""
        try:
            self.found = Report.of(self._read_line())
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
        """Ask for deposits on accounts; or, where `ALARM` is added, for alarms of diaries."""
        assert self._process.stdin is not None
        # If it is dead, that is noticed when there is nothing more to read.
        with contextlib.suppress(OSError):
            self._process.stdin.write(array("I", requests).tobytes())

    def acknowledged(self) -> array[int]:
        """Pairs of a request and microseconds; none when the child has ended."""
        data = self._rest + self._read()
        whole = len(data) // 8 * 8
        self._rest = data[whole:]
        return array("I", data[:whole])

    def kill(self) -> None:
        """SIGKILL. What it wrote before can still be read."""
        self.killed = True
        self._process.kill()

    def finish(self) -> Report:
        """Let it wait for the last alarms, look around again, close its runtime and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        report = Report.of(self._read_line())
        if self._process.wait(timeout=30) != 0:
            raise WorkerFailed(f"it ended with status {self._process.returncode}")
        return report

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(1 << 16) or b""

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            part = self._read()
            if not part:
                raise WorkerFailed("it ended before it had reported")
            line += part
        return line
