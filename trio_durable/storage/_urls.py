"""From what a user writes to a storage."""

from __future__ import annotations

import os

from ._contract import Durability, Storage
from .memory import MemoryStorage
from .sqlite import SQLiteStorage


def storage_at(storage: object, durability: Durability) -> Storage:
    """The storage that a path, a URL or a `Storage` names.

    Raises:
        TypeError: ``storage`` is none of these.
        ValueError: It is no path or URL that is known.
        ModuleNotFoundError: What its kind of storage needs isn't installed.
    """
    if isinstance(storage, Storage):
        return storage
    if not isinstance(storage, (str, os.PathLike)):
        raise TypeError(f"storage must be a path, a URL or a Storage, not {type(storage).__name__}")
    path = os.fspath(storage)
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    scheme, separator, rest = path.partition("://")
    if separator and scheme in ("postgresql", "postgres"):
        return _postgres_storage(path, durability)
    if not separator and (path.startswith(("postgresql:", "postgres:")) or "password=" in path):
        # Not a word of it: as the path of a file it would be in every message.
        raise ValueError(
            "this looks like a PostgreSQL connection string; give postgresql://user@host/database, "
            "or PostgresStorage(…), which also takes key=value pairs"
        )
    if separator and scheme != "sqlite":
        raise ValueError(
            f"no storage is known for {scheme}:// URLs; give a path, sqlite:///path, or "
            "postgresql://user@host/database"
        )
    if separator:
        # As elsewhere: three slashes and a relative path, or four and an absolute one.
        if not rest.startswith("/"):
            raise ValueError("an SQLite URL has three slashes before its path: sqlite:///app.db")
        path = rest[1:]
    if not path:
        raise ValueError("the storage path is empty")
    return MemoryStorage() if path == ":memory:" else SQLiteStorage(path, durability=durability)


def _postgres_storage(conninfo: str, durability: Durability) -> Storage:
    # Only now, for nobody else has psycopg, nor needs to wait for it.
    from .postgres import PostgresStorage

    return PostgresStorage(conninfo, durability=durability)
