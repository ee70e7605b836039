"""SQLite as a storage."""

from ._storage import SQLiteStorage

__all__ = ["SQLiteStorage"]
