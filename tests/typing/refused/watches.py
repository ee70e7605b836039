"""Watches that can't be."""

from __future__ import annotations

from trio_durable import DurableObject, DurableRuntime


class Room(DurableObject):
    topic: str = ""


def watched(runtime: DurableRuntime) -> None:
    room = runtime.get(Room, "lobby")
    room.watch()  # refused
    runtime.watch(room, "lobby")  # refused
    runtime.watch(Room)  # refused
    runtime.watch("Room")  # refused
    runtime.watch(7)  # refused
    runtime.watch_many(["Room"])  # refused
    runtime.watch_many([(Room, 7)])  # refused
