"""The table of objects in a PostgreSQL database: one statement for each thing done to many of them.

A save is an upsert whose update is conditional on revision and epoch; what it changed comes back,
so a batch of saves needs no transaction around it, whatever is stale. Only a save that finds its
row gone would insert it anew; that a trigger refuses, for the whole statement.

Rows are locked in the order of their keys, so that batches of several processes, which may save
the same objects, wait for each other but never in a circle.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..._keys import ObjectKey
from .._records import Commit, ObjectRow, StoredObject
from ._arrays import BigintArray, TextArray, text_array
from ._connection import Connection
from ._names import Names

REQUIRE_ALL = "SELECT 1 / (count(*) = %s)::int FROM done"
"""Fails by a division by zero unless so many rows were changed: then all that went to the server
together with this statement is undone there, with no need to look at results in between."""

_KEYS = "unnest(%s::text[], %s::text[])"
_EXPECTED = "unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[])"

_SAVE = """
INSERT INTO {objects} AS o (type_name, object_id, epoch, revision, updated_at, state)
SELECT t, i, e, r + 1, %s, s
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[]) AS k (t, i, r, e, s)
ORDER BY t COLLATE "C", i COLLATE "C"
ON CONFLICT (type_name, object_id) DO UPDATE SET
    revision = excluded.revision, updated_at = excluded.updated_at, state = excluded.state
WHERE o.revision = excluded.revision - 1 AND o.epoch = excluded.epoch
"""
_SAVE_ANY = f"{_SAVE} RETURNING type_name, object_id"
_SAVE_ALL = f"WITH done AS ({_SAVE} RETURNING 1) {REQUIRE_ALL}"

_DELETE_ALL = f"""
WITH wanted AS MATERIALIZED (
    SELECT o.type_name, o.object_id
    FROM {_EXPECTED} AS k (t, i, r, e)
    JOIN {{objects}} AS o ON o.type_name = t AND o.object_id = i AND o.revision = r AND o.epoch = e
    ORDER BY o.type_name, o.object_id FOR UPDATE OF o
), done AS (
    DELETE FROM {{objects}} AS o USING wanted AS w
    WHERE o.type_name = w.type_name AND o.object_id = w.object_id RETURNING 1
) {REQUIRE_ALL}
"""

# Locked, or another process could change the row before what depends on it is committed. What
# isn't there can't be locked.
_FOUND = f"""
WITH found AS MATERIALIZED (
    SELECT k.n, o.revision = k.r AND o.epoch = k.e AS is_fresh
    FROM {_EXPECTED} WITH ORDINALITY AS k (t, i, r, e, n)
    JOIN {{objects}} AS o ON o.type_name = k.t AND o.object_id = k.i
    ORDER BY o.type_name, o.object_id FOR NO KEY UPDATE OF o
)
"""
_REQUIRE_FRESH = f"{_FOUND} SELECT 1 / (count(*) = %s AND bool_and(is_fresh))::int FROM found"
_STALE = f"""
{_FOUND} SELECT w.n FROM unnest(%s::bigint[]) WITH ORDINALITY AS w (r, n) LEFT JOIN found USING (n)
WHERE CASE WHEN w.r = 0 THEN found.n IS NOT NULL ELSE is_fresh IS NOT TRUE END
"""

_REMOVE = f"""
DELETE FROM {{objects}} AS o USING {_KEYS} AS k (t, i) WHERE o.type_name = t AND o.object_id = i
"""

_LOAD = f"""
SELECT k.n, o.revision, convert_to(o.state, 'UTF8'), o.epoch
FROM {_KEYS} WITH ORDINALITY AS k (t, i, n)
JOIN {{objects}} AS o ON o.type_name = k.t AND o.object_id = k.i
"""
_LIST = """
SELECT object_id FROM {objects} WHERE type_name = %s AND object_id > %s ORDER BY object_id LIMIT %s
"""
_BROWSE = """
SELECT type_name, object_id, revision, updated_at, convert_to(state, 'UTF8'), epoch FROM {objects}
WHERE {behind} ORDER BY type_name, object_id LIMIT %s
"""
_SUMMARIZE = """
SELECT type_name, count(*), sum(octet_length(state))::bigint FROM {objects} GROUP BY type_name
"""


class ObjectTable:
    """The table of one tenant. Errors are psycopg's own."""

    def __init__(self, names: Names) -> None:
        self._tenant = names.tenant
        self._save_any = names.query(_SAVE_ANY)
        self._save_all = names.query(_SAVE_ALL)
        self._delete_all = names.query(_DELETE_ALL)
        self._require_fresh = names.query(_REQUIRE_FRESH)
        self._remove = names.query(_REMOVE)
        self._stale = names.query(_STALE)
        self._load = names.query(_LOAD)
        self._list = names.query(_LIST)
        self._browse = names.query(_BROWSE, behind="(type_name, object_id) > (%s, %s)")
        self._browse_type = names.query(_BROWSE, behind="type_name = %s AND object_id > %s")
        self._summarize = names.statement(_SUMMARIZE).encode()

    # --- writing ---------------------------------------------------------------------------------

    def save_any(
        self, connection: Connection, batch: Sequence[Commit], now: int
    ) -> Collection[int]:
        """Save the states of those of a batch that aren't stale; the positions of those that are.

        Raises:
            psycopg.Error: With the state `GONE`, if a row is gone that should be there.
        """
        cursor = connection.execute(self._save_any, _rows(batch, now), binary=True)
        if cursor.rowcount == len(batch):
            return ()
        saved = set(cursor)
        return [
            position
            for position, commit in enumerate(batch)
            if (commit.key.type_name, commit.key.object_id) not in saved
        ]

    def save_all(self, connection: Connection, batch: Sequence[Commit], now: int) -> None:
        """Save the states of a batch; an empty one, where there is none.

        This and what follows fail if one is stale.
        """
        connection.execute(self._save_all, (*_rows(batch, now), len(batch)))

    def delete_all(self, connection: Connection, batch: Sequence[Commit]) -> None:
        """Delete objects at their revisions. Fails if one is stale."""
        connection.execute(self._delete_all, (*_expected(batch), len(batch)))

    def require_fresh(self, connection: Connection, batch: Sequence[Commit]) -> None:
        """Fail if one of these isn't based on what is stored, where something is to be stored.

        All of it is locked, until the transaction ends.
        """
        connection.execute(self._require_fresh, (*_expected(batch), len(batch)))

    def remove(self, connection: Connection, batch: Sequence[Commit]) -> None:
        """Remove what this transaction itself has saved."""
        connection.execute(self._remove, _keys([commit.key for commit in batch]))

    def stale(self, connection: Connection, batch: Sequence[Commit]) -> set[int]:
        """The positions of those that are based on something else than what is stored.

        All that is there is locked, until the transaction ends.
        """
        parameters = (*_expected(batch), BigintArray([commit.revision for commit in batch]))
        return {n - 1 for (n,) in connection.execute(self._stale, parameters)}

    # --- reading ---------------------------------------------------------------------------------

    def load(self, connection: Connection, keys: Sequence[ObjectKey]) -> list[StoredObject | None]:
        """See `Reader.load`."""
        found: list[StoredObject | None] = [None] * len(keys)
        for n, *row in connection.execute(self._load, _keys(keys), binary=True):
            found[n - 1] = StoredObject(*row)
        return found

    def list_ids(
        self, connection: Connection, type_name: str, after: str | None, limit: int
    ) -> list[str]:
        """See `Reader.list_ids`."""
        rows = connection.execute(self._list, (type_name, after or "", limit), binary=True)
        return [object_id for (object_id,) in rows]

    def browse(
        self, connection: Connection, type_name: str | None, after: ObjectKey | None, limit: int
    ) -> list[ObjectRow]:
        """See `Reader.browse_objects`."""
        query = self._browse_type
        if type_name is None:
            query = self._browse
            type_name = after.type_name if after else ""
        parameters = (type_name, after.object_id if after else "", limit)
        return [
            ObjectRow(ObjectKey(kind, object_id, self._tenant), *row)
            for kind, object_id, *row in connection.execute(query, parameters, binary=True)
        ]

    def summarize(self, connection: Connection) -> dict[str, tuple[int, int]]:
        """Of each type, how many objects there are and how many bytes of state."""
        return {name: (count, size) for name, count, size in connection.execute(self._summarize)}


def _keys(keys: Sequence[ObjectKey]) -> tuple[TextArray, TextArray]:
    return text_array(key.type_name for key in keys), text_array(key.object_id for key in keys)


def _expected(batch: Sequence[Commit]) -> tuple[TextArray, TextArray, BigintArray, BigintArray]:
    return (
        *_keys([commit.key for commit in batch]),
        BigintArray([commit.revision for commit in batch]),
        BigintArray([commit.epoch for commit in batch]),
    )


def _rows(batch: Sequence[Commit], now: int) -> tuple[object, ...]:
    return (now, *_expected(batch), TextArray([commit.state or b"" for commit in batch]))
