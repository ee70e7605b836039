"""Storage in an SQLite file."""

from ._storage import SQLiteStorage

__all__ = ["SQLiteStorage"]
