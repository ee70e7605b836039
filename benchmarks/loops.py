"""The event loops that the library is measured on."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar, get_args

import anyio

T = TypeVar("T")

LoopName = Literal["trio", "asyncio", "uvloop"]
LOOPS: tuple[LoopName, ...] = get_args(LoopName)


def run(loop: LoopName, function: Callable[[], Awaitable[T]]) -> T:
    """Run ``function`` in a fresh event loop and return its result."""
    if loop == "trio":
        return anyio.run(function, backend="trio")
    return anyio.run(function, backend="asyncio", backend_options={"use_uvloop": loop == "uvloop"})


def obstacle(loop: LoopName) -> str | None:
    """The reason that ``loop`` can't be measured here, or None."""
    if loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        return "uvloop isn't installed"
    return None
