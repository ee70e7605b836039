"""Faults on a line: the tracer that finds the lines, and what it does when one is reached.

The line tracer of Python is called before each line, and what it raises is raised there. It belongs
to the thread that set it, so a storage's threads aren't traced.

The end of a ``with`` is left out, and so is the line of a ``try``. There a tracer can raise before
``__exit__`` is called, or outside the ``try``; nothing else can, since the
interpreter looks for signals elsewhere. `LEFT_OUT` has the functions that are
called by code which no exception may reach.
"""

from __future__ import annotations

import linecache
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import attrs

import trio_durable

PACKAGE = str(Path(trio_durable.__file__).parent) + "/"
ROOMS = ("_activations/", "_persistence/", "_runtime/", "_eventloop/", "scheduler/")
LEFT_OUT = {
    # Trio's scheduler calls it, and ends its run if it raises, as with its own functions there.
    "TrioWaiter._abort",
}
ACTIONS = ("exception", "memory", "exit", "cancel", "reenter")


class Injected(BaseException):
    """Raised by no code but this, and caught by no ``except Exception``."""


@attrs.frozen(order=True)
class Point:
    """A line, and how many times it has run before."""

    module: str
    line: int
    earlier: int
    function: str = attrs.field(eq=False, order=False, default="")

    def __str__(self) -> str:
        again = f" (after {self.earlier})" if self.earlier else ""
        return f"{self.module}:{self.line} {self.function}{again}"


class Tracer:
    """Notes each line that runs, or acts once on one of them.

    Args:
        point: The line to act on; None to note them all.
        act: Called before that line runs. It may raise.
    """

    def __init__(self, point: Point | None, act: Callable[[], None]) -> None:
        self.points: list[Point] = []
        self.is_reached = False
        self._point = point
        self._act = act
        self._counts: Counter[tuple[str, int]] = Counter()
        self._last_lines: dict[int, int] = {}
        """The last line of each frame, by the frame's identity."""

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Trace the calling thread. What stops the tracer is its fault, so that is one at most."""
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(None)

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE) and file[len(PACKAGE) :].startswith(ROOMS):
            if frame.f_code.co_qualname in LEFT_OUT:
                return None
            # Its first line, or the line in which it is resumed.
            self._last_lines[id(frame)] = frame.f_lineno
            return self._traced
        return None

    def _traced(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event != "line" or self.is_reached:
            return self._traced
        code = frame.f_code
        module, line = code.co_filename[len(PACKAGE) :], frame.f_lineno
        last, self._last_lines[id(frame)] = self._last_lines.get(id(frame), 0), line
        text = linecache.getline(code.co_filename, line).strip()
        if text == "try:" or (last >= line and text.startswith(("with ", "async with "))):
            return self._traced
        earlier = self._counts[module, line]
        self._counts[module, line] = earlier + 1
        if self._point is None:
            self.points.append(Point(module, line, earlier, code.co_qualname))
        elif self._point == Point(module, line, earlier):
            self.is_reached = True
            sys.settrace(None)
            self._act()
        return self._traced


def first_and_last(points: list[Point]) -> list[Point]:
    """Of each line the first time it ran and the last, in order."""
    last = {(point.module, point.line): point for point in points}
    return sorted({point for point in points if not point.earlier} | set(last.values()))
