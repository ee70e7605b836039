"""Sides of a storage: its writer and its reader, each opened and closed in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
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
    stack: AsyncExitStack, loop: Loop, host: Host, storage: Storage, runner_type: type[Runner]
) -> tuple[WriterSide, ReaderSide]:
    """Open both sides of a storage; ``stack`` closes them."""
    runners = [runner_type(loop, f"trio_durable {side}") for side in ("writer", "reader")]
    for runner in runners:
        stack.callback(runner.stop)
    writer_runner, reader_runner = runners
    writer = await _open_side(host, storage, writer_runner, storage.open_writer)
    stack.push_async_callback(_close_side, host, writer_runner, writer)
    reader = await _open_side(host, storage, reader_runner, storage.open_reader)
    stack.push_async_callback(_close_side, host, reader_runner, reader)
    return WriterSide(writer_runner, writer), ReaderSide(reader_runner, reader)


async def _open_side(host: Host, storage: Storage, runner: Runner, open_side: Callable[[], S]) -> S:
    """Open a side in its thread, and don't leave it open there if nothing waits for it any more."""
    opened: list[S] = []
    is_abandoned = False

    def job() -> None:
        side = open_side()
        if is_abandoned:
            side.close()
        else:
            opened.append(side)

    with host.opening():
        await runner.run(job)
    if not opened:
        is_abandoned = True
        raise StorageUnavailable(storage.location, "it didn't open in time; it was given up")
    return opened[0]


async def _close_side(host: Host, runner: Runner, side: Writer | Reader) -> None:
    # The job stays in the thread's queue when the time is over, and so closes the side in the end.
    with host.closing():
        await runner.run(side.close)
