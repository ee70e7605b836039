"""Storages of objects and alarms: the contract, and the implementations in the library.

`PostgresStorage` is in `trio_durable.storage.postgres`, because it needs psycopg.
"""

from ._contract import (
    CorruptRow,
    Durability,
    Hints,
    Reader,
    SpoiltRow,
    Storage,
    StorageFault,
    Writer,
)
from ._forwarding import ForwardingReader, ForwardingWriter
from ._records import (
    NO_TIME,
    AlarmChanges,
    AlarmRow,
    AlarmStatus,
    Commit,
    DueAlarm,
    NewAlarm,
    ObjectRow,
    Postponement,
    StoredAlarm,
    StoredObject,
    TypeSummary,
    new_epoch,
)
from .memory import MemoryStorage
from .sqlite import SQLiteStorage

__all__ = [
    "NO_TIME",
    "AlarmChanges",
    "AlarmRow",
    "AlarmStatus",
    "Commit",
    "CorruptRow",
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
