"""Table of objects in an SQLite file: one statement for each operation on a batch.

A batch of saves is a single ``INSERT … SELECT … FROM (VALUES …)`` in autocommit mode. The reason is
the GIL: Python's sqlite3 releases it around every step of a statement, and with a busy event loop
waits up to the interpreter's switch interval (5 ms) to get it back. Executing 64 rows one by one
could wait 64 times; one statement waits once. Reads return one row of JSON for the same reason.

Fencing is part of the statement. If a stored revision isn't the expected one, the save sets it to
NULL, which the table's constraint refuses. If the row was deleted, the save inserts it with a
revision above 1, which a trigger refuses. Either error undoes the whole statement, so a batch with
a stale commit applies nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache

import orjson

from ..._keys import ObjectKey
from .._faults import CorruptRow
from .._records import Commit, ObjectRow, StoredObject
from ._names import TableNames
from ._parameters import PADDING, as_json, as_text, padded, values

_LARGE_STATE_CHARACTERS = 64 * 1024
"""Above this length a state is loaded by itself, because in JSON it is escaped and copied twice."""
_REVISION_LIMIT = 2**62
"""Above every real revision, and low enough that the next one is still an SQLite integer."""

_LOAD = f"""
SELECT json_group_array(json_array(
    k.key, o.revision, CASE WHEN length(o.state) <= {_LARGE_STATE_CHARACTERS} THEN o.state END))
FROM json_each(?) AS k
CROSS JOIN {{objects}} AS o
    ON o.type_name = k.value ->> 0 AND o.object_id = k.value ->> 1
"""
# Casts, so that a corrupt row can be read and shown as well.
_LOAD_ONE = """
SELECT CASE typeof(revision) WHEN 'integer' THEN revision ELSE CAST(revision AS BLOB) END,
    CAST(state AS BLOB)
FROM {objects} WHERE type_name = ? AND object_id = ?
"""

_LIST = """
SELECT json_group_array(object_id) FROM (
    SELECT object_id FROM {objects}
    WHERE type_name = ? AND object_id > ? ORDER BY object_id LIMIT ?)
"""

_BROWSE = """
SELECT type_name, object_id, revision, updated_at, CAST(state AS BLOB) FROM {objects}
WHERE {where} ORDER BY type_name, object_id LIMIT :limit
"""
_SUMMARIZE = """
SELECT type_name, count(*), sum(length(CAST(state AS BLOB))) FROM {objects} GROUP BY type_name
"""

# The numbers of the commits whose expected revision isn't the stored one.
_STALE = """
SELECT json_group_array(k.value ->> 0)
FROM json_each(?) AS k
LEFT JOIN {objects} AS o
    ON o.type_name = k.value ->> 1 AND o.object_id = k.value ->> 2
WHERE ifnull(o.revision, 0) <> k.value ->> 3
"""


@lru_cache(maxsize=256)
def _save_sql(table: str, rows: int) -> str:
    """Save ``rows`` rows of (type_name, object_id, revision, state); fail if one is stale."""
    return f"""
    INSERT INTO {table} (type_name, object_id, revision, updated_at, state)
    SELECT column1, column2, column3 + 1, ?, CAST(column4 AS TEXT)
    FROM ({values(rows, 4)}) WHERE column1 <> '{PADDING}'
    ON CONFLICT (type_name, object_id) DO UPDATE SET
        revision = CASE WHEN revision = excluded.revision - 1 THEN excluded.revision END,
        updated_at = excluded.updated_at,
        state = excluded.state
    """


class NotOnlySaves(Exception):
    """A batch isn't made of saves alone, to the tables of one tenant."""


class ObjectTable:
    """The table of one tenant, on one connection. Methods raise sqlite3's errors."""

    def __init__(self, connection: sqlite3.Connection, names: TableNames) -> None:
        self._execute = connection.execute
        self._tenant = names.tenant
        self._table = names.objects
        self._load = _LOAD.format(objects=names.objects)
        self._load_one = _LOAD_ONE.format(objects=names.objects)

    # --- writing ---------------------------------------------------------------------------------

    def save(self, batch: Sequence[Commit], now: int, *, only: bool = True) -> None:
        """Save the states of a batch.

        Args:
            batch: Commits of distinct objects.
            now: The wall time to store with them.
            only: Check that the batch holds nothing but saves of this tenant. The check is part of
                the loop that collects parameters, so that the common batch is passed once.

        Raises:
            NotOnlySaves: The check failed. Nothing is saved.
            sqlite3.IntegrityError: A commit is stale. Nothing is saved.
        """
        size = padded(len(batch))
        parameters: list[object] = [now]
        tenant = self._tenant
        for commit in batch:
            state = commit.state
            key = commit.key
            if only and (
                state is None
                or commit.delete
                or commit.alarms is not None
                or commit.messages is not None
                or key.tenant != tenant
            ):
                raise NotOnlySaves
            assert state is not None
            parameters += (key.type_name, key.object_id, commit.revision, as_text(state))
        parameters += [PADDING] * (4 * (size - len(batch)))
        self._execute(_save_sql(self._table, size), parameters)

    def stale(self, batch: Iterable[tuple[int, Commit]]) -> set[int]:
        """The numbers of the commits based on another revision, of pairs (number, commit)."""
        expected = [
            [number, c.key.type_name, c.key.object_id, c.revision]
            for number, c in batch
            if c.revision is not None
        ]
        found = self._execute(_STALE.format(objects=self._table), (as_json(expected),))
        return set(orjson.loads(found.fetchone()[0]))

    # --- reading ---------------------------------------------------------------------------------

    def load(self, keys: Sequence[ObjectKey]) -> list[StoredObject | None]:
        """See `Reader.load`."""
        wanted = as_json([[key.type_name, key.object_id] for key in keys])
        try:
            rows = orjson.loads(self._execute(self._load, (wanted,)).fetchone()[0])
        except (sqlite3.OperationalError, orjson.JSONDecodeError):
            # A state isn't UTF-8 text. The other objects must load all the same.
            return [self._load_alone(key) for key in keys]
        found: list[StoredObject | None] = [None] * len(keys)
        for position, revision, state in rows:
            found[position] = (
                self._load_alone(keys[position])
                if state is None
                else _stored(keys[position], revision, state.encode())
            )
        return found

    def _load_alone(self, key: ObjectKey) -> StoredObject | None:
        row = self._execute(self._load_one, (key.type_name, key.object_id)).fetchone()
        return None if row is None else _stored(key, *row)

    def list_ids(self, type_name: str, after: str | None, limit: int) -> list[str]:
        """See `Reader.list_ids`."""
        found = self._execute(_LIST.format(objects=self._table), (type_name, after or "", limit))
        ids: list[str] = orjson.loads(found.fetchone()[0])
        return ids

    def browse(self, type_name: str | None, after: ObjectKey | None, limit: int) -> list[ObjectRow]:
        """See `Reader.browse_objects`."""
        # A condition on the primary key's columns, so that a page starts by an index search.
        where = "type_name = :type AND object_id > :id"
        if type_name is None:
            where = "(type_name, object_id) > (:type, :id)"
            type_name = after.type_name if after else ""
        rows = self._execute(
            _BROWSE.format(objects=self._table, where=where),
            {"type": type_name, "id": after.object_id if after else "", "limit": limit},
        )
        return [
            ObjectRow(ObjectKey(kind, object_id, self._tenant), revision, updated_at, state)
            for kind, object_id, revision, updated_at, state in rows
        ]

    def summarize(self) -> dict[str, tuple[int, int]]:
        """By type: the number of objects, and the total bytes of their states."""
        rows = self._execute(_SUMMARIZE.format(objects=self._table))
        return {type_name: (objects, size) for type_name, objects, size in rows}


def _stored(key: ObjectKey, revision: object, state: bytes) -> StoredObject:
    # With any other value fencing doesn't work, and there is no next revision.
    if type(revision) is not int or not 1 <= revision < _REVISION_LIMIT:
        raise CorruptRow(
            key,
            f"the revision in its row is {revision!r:.40}, not a number of commits; repair the row",
        )
    return StoredObject(revision, state)
