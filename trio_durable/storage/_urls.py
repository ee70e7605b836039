"""Storage for a path or URL that a user gives. The only module that knows URL schemes."""

from __future__ import annotations

import os
import re

from ._contract import Durability, Storage
from .memory import MemoryStorage
from .sqlite import SQLiteStorage

# `key=value` pairs as libpq reads them, with a keyword that makes no sense in a file's name. libpq
# itself isn't asked, because psycopg may be missing.
_PAIR = r"\s*(\w+)\s*=\s*(?:'(?:[^'\\]|\\.)*'|(?:[^'\s\\]|\\.)*)"
_PAIRS = re.compile(f"{_PAIR}(?:\\s{_PAIR})*\\s*", re.DOTALL)
_KEYWORDS = re.compile(
    r"(?:^|\s)(service|host|hostaddr|port|dbname|user|password|passfile|options|application_name"
    r"|ssl\w+|target_session_attrs|connect_timeout)\s*="
)


def storage_at(storage: object, durability: Durability) -> Storage:
    """Make the storage for a path or a URL; a `Storage` is returned as it is.

    `DurableRuntime` and the command share it, so both take the same paths and URLs. It isn't
    public: users pass the path or URL to either of them.

    Raises:
        TypeError: ``storage`` is neither a path, a URL nor a `Storage`.
        ValueError: The path is empty, or the URL or connection string is malformed or of an unknown
            scheme.
        ModuleNotFoundError: A package that this kind of storage needs isn't installed.
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
    is_text = isinstance(storage, str) and not separator
    if is_text and _KEYWORDS.search(path) and _PAIRS.fullmatch(path):
        return _postgres_storage(path, durability)
    if is_text and (
        path.startswith(("postgresql:", "postgres:")) or re.search(r"\bpassword\s*=", path)
    ):
        # The string may hold a password, so the message quotes none of it. As the path of a file
        # it would appear in every message.
        raise ValueError(
            "this looks like a PostgreSQL connection string, but can't be read as one; give "
            "postgresql://user@host/database, or key=value pairs: host=… dbname=…"
        )
    if separator and scheme != "sqlite":
        raise ValueError(
            f"no storage is known for {scheme}:// URLs; give a path, sqlite:///path, or "
            "postgresql://user@host/database"
        )
    if separator:
        # As in SQLAlchemy: three slashes and a relative path, or four for an absolute one.
        if not rest.startswith("/"):
            raise ValueError("an SQLite URL has three slashes before its path: sqlite:///app.db")
        path = rest[1:]
    if not path:
        raise ValueError('the storage path is empty; give a path, a URL or ":memory:"')
    return MemoryStorage() if path == ":memory:" else SQLiteStorage(path, durability=durability)


def _postgres_storage(conninfo: str, durability: Durability) -> Storage:
    # Imported here, because psycopg is an optional dependency and slow to import.
    from .postgres import PostgresStorage

    return PostgresStorage(conninfo, durability=durability)
