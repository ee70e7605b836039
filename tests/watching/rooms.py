"""Rooms, which tests watch."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import anyio
import attrs

from trio_durable import (
    DurableObject,
    ObjectKey,
    Objects,
    Snapshot,
    Watch,
    definition_of,
    handler,
)
from trio_durable._api.registry import object_type_of


class Room(DurableObject, hibernate_after=10, shutdown_after=20):
    lines: list[str] = attrs.field(factory=list)

    @handler
    def say(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return list(self.lines)

    @handler
    def clear(self) -> None:
        self.ctx.delete()

    @handler
    async def look_at(self, other: str) -> None:
        async with self.ctx.runtime.watch(Room, other) as snapshots:
            await anext(snapshots)


def row_of(lines: list[str]) -> bytes:
    """A room as it is stored."""
    codec = object_type_of(definition_of(Room)).codec
    return codec.encode(ObjectKey("Room", "lobby"), Room(lines=lines))


class Seat:
    """A watcher of one room, and all that it has seen."""

    def __init__(self, objects: Objects, object_id: str = "lobby") -> None:
        self.watch: Watch[Room] = objects.watch(Room, object_id)
        self.snapshots: list[Snapshot[Room]] = []

    @property
    def seen(self) -> list[tuple[int, list[str]]]:
        """The revisions and lines of its snapshots."""
        return [(each.revision, each.state.lines) for each in self.snapshots]

    async def sit(self) -> None:
        """Take snapshots until the watch ends."""
        async with self.watch as snapshots:
            async for snapshot in snapshots:
                self.snapshots.append(snapshot)

    async def __aenter__(self) -> Self:
        await self.watch.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.watch.__aexit__(exc_type, exc, traceback)

    async def next(self) -> tuple[int, list[str]]:
        """The next snapshot."""
        with anyio.fail_after(60):
            self.snapshots.append(await anext(self.watch))
        return self.seen[-1]
