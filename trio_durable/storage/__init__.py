"""Where objects are kept: the contract, and the storages that come with the library."""

from ._contract import Commit, Reader, Storage, StorageFault, StoredObject, Writer
from .memory import MemoryStorage
from .sqlite import Durability, SQLiteStorage

__all__ = [
    "Commit",
    "Durability",
    "MemoryStorage",
    "Reader",
    "SQLiteStorage",
    "Storage",
    "StorageFault",
    "StoredObject",
    "Writer",
]
