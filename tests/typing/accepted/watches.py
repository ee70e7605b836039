"""Watches, by a class and an id or by a handle."""

from __future__ import annotations

from typing import assert_type

from trio_durable import DurableObject, DurableRuntime, Handle, Tenant, Watch, handler


class Room(DurableObject):
    topic: str = ""

    @handler
    def rename(self, topic: str) -> None:
        self.topic = topic


class Hall(DurableObject):
    """One with names that a handle might have had for itself."""

    watch: str = "night"


class Guard(DurableObject):
    @handler
    def watch(self, hours: int) -> str:
        return f"{hours} hours"


async def watched(runtime: DurableRuntime, tenant: Tenant, by_name: Handle) -> None:
    room, hall = runtime.get(Room, "lobby"), runtime.get(Hall, "lobby")
    assert_type(runtime.watch(Room, "lobby"), Watch[Room])
    assert_type(runtime.watch("Room", "lobby"), Watch[DurableObject])
    assert_type(runtime.watch(room), Watch[Room])
    assert_type(tenant.watch(room), Watch[Room])
    assert_type(runtime.watch(by_name), Watch[DurableObject])
    assert_type(runtime.watch_many([(Room, "a"), (Hall, "b")]), Watch[DurableObject])
    assert_type(runtime.watch_many([room, hall, by_name]), Watch[DurableObject])
    runtime.watch_many([room, (Hall, "b"), ("Room", "c")])
    runtime.watch_many([room, room])
    runtime.watch_many(("Room", each) for each in "ab")
    async with runtime.watch(room) as snapshots:
        async for snapshot in snapshots:
            assert_type(snapshot.state, Room)
            assert_type(snapshot.state.topic, str)


async def of_a_user(runtime: DurableRuntime) -> None:
    assert_type(await runtime.get(Guard, "g").watch(8), str)
    assert_type(runtime.get(Hall, "h").watch, str)
