"""Where objects are kept: the contract, and the storages that come with the library."""

from ._contract import (
    AlarmChanges,
    Commit,
    DueAlarm,
    NewAlarm,
    Postponement,
    Reader,
    Storage,
    StorageFault,
    StoredAlarm,
    StoredObject,
    Writer,
)
from .memory import MemoryStorage
from .sqlite import Durability, SQLiteStorage

__all__ = [
    "AlarmChanges",
    "Commit",
    "DueAlarm",
    "Durability",
    "MemoryStorage",
    "NewAlarm",
    "Postponement",
    "Reader",
    "SQLiteStorage",
    "Storage",
    "StorageFault",
    "StoredAlarm",
    "StoredObject",
    "Writer",
]
