"""Where objects are kept: the contract, and the storages that come with the library."""

from ._contract import (
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
    "Storage",
    "StorageFault",
    "StoredAlarm",
    "StoredObject",
    "TypeSummary",
    "Writer",
    "new_epoch",
]
