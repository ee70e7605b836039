"""Await chain: the frames in which a suspended coroutine waits, from its own to the innermost.

Prior art: `trio.lowlevel.Task.iter_await_frames`, and asyncio's call graphs. An awaitable that
isn't written in Python ends the chain.
"""

from __future__ import annotations

from types import FrameType

import attrs

_LINKS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


@attrs.frozen
class AwaitedFrame:
    """A frame of a suspended coroutine."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} at {self.file}:{self.line}"


def await_chain(awaitable: object) -> list[AwaitedFrame]:
    """The frames of a coroutine, the outermost first; none if it has ended."""
    found: list[AwaitedFrame] = []
    while awaitable is not None:
        for frame_name, next_name in _LINKS:
            if hasattr(awaitable, frame_name):
                frame: FrameType | None = getattr(awaitable, frame_name)
                if frame is not None:
                    code = frame.f_code
                    found.append(AwaitedFrame(code.co_filename, frame.f_lineno, code.co_qualname))
                awaitable = getattr(awaitable, next_name)
                break
        else:
            return found
    return found
