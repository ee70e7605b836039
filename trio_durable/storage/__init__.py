"""Where objects are kept: the contract, and the storages that come with the library."""

from ._contract import (
    NO_TIME,
    AlarmChanges,
    AlarmRow,
    AlarmStatus,
    Commit,
    DueAlarm,
    Durability,
    Hints,
    NewAlarm,
    ObjectRow,
    Postponement,
    Reader,
    SpoiltRow,
    Storage,
    StorageFault,
    StoredAlarm,
    StoredObject,
    TypeSummary,
    Writer,
    new_epoch,
)
from ._forwarding import ForwardingReader, ForwardingWriter
from .memory import MemoryStorage
from .sqlite import SQLiteStorage

__all__ = [
    "NO_TIME",
    "AlarmChanges",
    "AlarmRow",
    "AlarmStatus",
    "Commit",
    "DueAlarm",
    "Durability",
    "ForwardingReader",
    "ForwardingWriter",
    "Hints",
    "MemoryStorage",
    "NewAlarm",
    "ObjectRow",
    "Postponement",
    "Reader",
    "SQLiteStorage",
    "SpoiltRow",
    "Storage",
    "StorageFault",
    "StoredAlarm",
    "StoredObject",
    "TypeSummary",
    "Writer",
    "new_epoch",
]
