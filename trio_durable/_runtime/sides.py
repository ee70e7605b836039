"""Sides of a storage: its writer and its reader, each opened and closed in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs

from .._errors import StorageUnavailable
from .._eventloop.loop import Loop
from .._eventloop.runner import Runner
from ..storage import Reader, Storage, Writer
from .host import Host

S = TypeVar("S", Writer, Reader)


@attrs.frozen
class WriterSide:
    """The writer, and the thread that it is used in."""

    runner: Runner
    writer: Writer


@attrs.frozen
class ReaderSide:
    """The reader, and the thread that it is used in."""

    runner: Runner
    reader: Reader


async def open_sides(
    loop: Loop, host: Host, storage: Storage, runner_type: type[Runner]
) -> tuple[WriterSide, ReaderSide]:
    """Open both sides of a storage, which the host closes."""
    writer = await _open_side(loop, host, storage, runner_type, "writer", storage.open_writer)
    reader = await _open_side(loop, host, storage, runner_type, "reader", storage.open_reader)
    return WriterSide(*writer), ReaderSide(*reader)


async def _open_side(
    loop: Loop,
    host: Host,
    storage: Storage,
    runner_type: type[Runner],
    name: str,
    open_side: Callable[[], S],
) -> tuple[Runner, S]:
    runner = runner_type(loop, f"trio_durable {name}")
    host.push(runner.stop)
    opened: list[S] = []
    is_given_up = False

    def close() -> None:
        # In the side's thread, after the job that opens it: so it doesn't matter whether something
        # waited for that to the end.
        while opened:
            opened.pop().close()

    async def close_in_thread() -> None:
        # The job stays in the thread's queue when the time is over, and closes the side in the end.
        if is_given_up:
            runner.post(close)
            return
        with host.closing():
            await runner.run(close)

    host.push(close_in_thread)
    with host.opening():
        await runner.run(lambda: opened.append(open_side()))
    if not opened:
        is_given_up = True
        raise StorageUnavailable(storage.location, "it didn't open in time; it was given up")
    return runner, opened[0]
