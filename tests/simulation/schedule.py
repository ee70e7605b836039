"""Seeded schedules: event loops in virtual time whose order of ready tasks is drawn from a seed.

Trio draws the order of each batch from a random generator of its own, which can be seeded. asyncio
resumes tasks in the order in which they became ready; `SeededLoop` draws that order. Callbacks
keep theirs: `call_soon` and `call_soon_threadsafe` promise it, and libraries rely on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import anyio
from support.clock import VirtualTimeLoop
from trio._core import _run as trio_run
from trio.testing import MockClock

BACKENDS = ("trio", "asyncio")


class SeededLoop(VirtualTimeLoop):
    """An event loop of asyncio's.

    Args:
        seed: Draws the order of tasks.
        failures: Gets the exceptions of callbacks, and of tasks that no code awaits.
    """

    _ready: deque[asyncio.Handle]  # of BaseEventLoop: the callbacks to run next

    def __init__(self, seed: int, failures: list[BaseException]) -> None:
        super().__init__()
        self._rng = Random(f"{seed} schedule")
        self._failures = failures
        self._numbers: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._next = count()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note the exception."""
        self._failures.append(context.get("exception") or RuntimeError(context["message"]))

    def _run_once(self) -> None:
        self._shuffle()
        super()._run_once()  # type: ignore[misc]  # typeshed leaves it out

    def _shuffle(self) -> None:
        """Draw which of the ready tasks is resumed at which of their places in the queue."""
        ready = self._ready
        places = [place for place, handle in enumerate(ready) if _task_of(handle) is not None]
        if len(places) < 2:
            return
        # In the order of their first steps: AnyIO cancels tasks in the order of a set, which
        # depends on addresses.
        handles = sorted((ready[place] for place in places), key=self._number)
        self._rng.shuffle(handles)
        for place, handle in zip(places, handles, strict=True):
            ready[place] = handle

    def _number(self, handle: asyncio.Handle) -> int:
        task = _task_of(handle)
        assert task is not None
        number = self._numbers.get(task)
        if number is None:
            number = self._numbers[task] = next(self._next)
        return number


def _task_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """The task that a callback resumes."""
    task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return task if isinstance(task, asyncio.Task) else None


def run(backend: str, seed: int, main: Callable[..., Awaitable[None]], *args: object) -> None:
    """Run ``main`` in an event loop of its own.

    Args:
        backend: One of `BACKENDS`.
        seed: Draws the order of tasks.
        main: An async function.
        args: Its arguments.

    Raises:
        ExceptionGroup: A callback has raised, or a task that no code awaits.
    """
    failures: list[BaseException] = []
    options: dict[str, Any] = {"clock": MockClock(autojump_threshold=0)}
    if backend == "asyncio":
        options = {"loop_factory": lambda: SeededLoop(seed, failures)}
    with _seeded_trio(seed):
        anyio.run(main, *args, backend=backend, backend_options=options)
    if failures:
        raise BaseExceptionGroup("of callbacks", failures)


@contextmanager
def _seeded_trio(seed: int) -> Iterator[None]:
    trio_run._r.seed(seed)
    with patch.object(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
        yield
