"""Table of objects in a PostgreSQL database: one statement for each operation on a batch.

A save is an upsert whose update is conditional on revision and epoch. It returns the changed rows,
so a batch of saves applies in one statement even if some of them are stale. A save whose row was
deleted would insert it again; a trigger refuses that, which fails the whole statement.

Other batches are pipelines, whose statements are all sent before the client sees a result. Stale
commits are normal, so they must not be errors in the server's log. A statement that finds some
applies the others, and puts the stale ones in a setting of the transaction, by which the later
statements leave them out. Each commit changes its object in one statement, and its alarms after
that, so it applies as a whole or not at all.

Statements lock rows in the order of their keys. So concurrent batches on the same objects wait for
each other, but can't deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import psycopg
from psycopg import Cursor

from ..._keys import ObjectKey
from .._records import Commit, ObjectRow, StoredObject
from ._arrays import BigintArray, TextArray, json_array, swap_nul, text_array
from ._connection import Connection
from ._names import Names
from ._nodes import FENCE
from ._steps import GONE

_STALE_KEYS = "nullif(current_setting('trio_durable.stale', true), '')"

IS_FRESH = f"""
({_STALE_KEYS} IS NULL
    OR ROW('{{{{tenant}}}}', {{type}}, {{id}})::text <> ALL ({_STALE_KEYS}::text[]))
"""
"""The condition that an object isn't one of the stale ones that earlier statements of the
transaction have found."""

MARK_STALE = f"""
array_agg(k.t), array_agg(k.i), set_config(
    'trio_durable.stale',
    (
        coalesce({_STALE_KEYS}, '{{{{}}}}')::text[]
        || array_agg(ROW('{{tenant}}', k.t, k.i)::text)
    )::text,
    true)
"""
"""Let later statements of the transaction leave out the objects of ``k``, and return their keys."""

_STALE_MARK = "trio_durable: stale"

REQUIRE_ALL = f"""
SELECT CASE WHEN (SELECT count(*) FROM k) = count(*) THEN 1
    ELSE ('{_STALE_MARK} ' || count(*))::int END FROM done
"""
"""Fails unless the statement changed all rows of ``k``, see `is_stale`. The error rolls back the
whole pipeline on the server. It is a cast of a text to a number; no index or trigger of the user's
raises that with this text."""

# Looked for only if there are any.
_MARK_THE_REST = f"""
SELECT {MARK_STALE} FROM k
WHERE (SELECT count(*) FROM done) <> (SELECT count(*) FROM k)
    AND NOT EXISTS (SELECT FROM done AS d WHERE d.type_name = k.t AND d.object_id = k.i)
HAVING count(*) > 0
"""

_KEYS = "unnest(%s::text[], %s::text[])"
_EXPECTED = "unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[])"

_K_IS_FRESH = IS_FRESH.format(type="k.t", id="k.i")
_SAVE = """
INSERT INTO {{objects}} AS o (type_name, object_id, epoch, revision, updated_at, state)
SELECT t, i, e, r + 1, %s, s
FROM {source}
ORDER BY t COLLATE "C", i COLLATE "C"
ON CONFLICT (type_name, object_id) DO UPDATE SET
    revision = excluded.revision, updated_at = excluded.updated_at, state = excluded.state
WHERE o.revision = excluded.revision - 1 AND o.epoch = excluded.epoch
RETURNING type_name, object_id
"""
_NEW = """
unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[]) AS k (t, i, r, e, s)
"""
_SAVE_ANY = f"""
WITH {FENCE}
{_SAVE.format(source=f"{_NEW} WHERE (SELECT passed FROM fence) = 1")}
"""
_SAVE_FRESH = f"""
WITH k AS MATERIALIZED (SELECT * FROM {_NEW} WHERE {_K_IS_FRESH}),
done AS ({_SAVE.format(source="k")})
{_MARK_THE_REST}
"""

_DELETE = f"""
WITH k AS MATERIALIZED (SELECT * FROM {_EXPECTED} AS k (t, i, r, e) WHERE {_K_IS_FRESH}),
wanted AS MATERIALIZED (
    SELECT o.type_name, o.object_id FROM k
    JOIN {{objects}} AS o ON o.type_name = t AND o.object_id = i AND o.revision = r AND o.epoch = e
    ORDER BY o.type_name, o.object_id FOR UPDATE OF o
), done AS (
    DELETE FROM {{objects}} AS o USING wanted AS w
    WHERE o.type_name = w.type_name AND o.object_id = w.object_id
    RETURNING o.type_name, o.object_id
)
{_MARK_THE_REST}
"""

# The rows are locked, so that no other process changes them before this transaction commits. Rows
# that don't exist can't be locked.
_FOUND = f"""
found AS MATERIALIZED (
    SELECT k.n, o.type_name, o.object_id, o.revision = k.r AND o.epoch = k.e AS is_fresh
    FROM {_EXPECTED} WITH ORDINALITY AS k (t, i, r, e, n)
    JOIN {{{{objects}}}} AS o ON o.type_name = k.t AND o.object_id = k.i
    ORDER BY o.type_name, o.object_id FOR NO KEY UPDATE OF o{{skip}}
)
"""
_REQUIRE_FRESH = f"""
WITH k AS MATERIALIZED (SELECT * FROM {_KEYS} AS k (t, i)),
{_FOUND.format(skip="")},
done AS (SELECT type_name, object_id FROM found WHERE is_fresh)
{_MARK_THE_REST}
"""
_STALE = f"""
WITH {_FOUND.format(skip="")}
SELECT w.n FROM unnest(%s::bigint[]) WITH ORDINALITY AS w (r, n) LEFT JOIN found USING (n)
WHERE CASE WHEN w.r = 0 THEN found.n IS NOT NULL ELSE is_fresh IS NOT TRUE END
"""
_LOCKED = f"""
WITH {_FOUND.format(skip=" SKIP LOCKED")}
SELECT k.n FROM {_KEYS} WITH ORDINALITY AS k (t, i, n)
JOIN {{objects}} AS o ON o.type_name = k.t AND o.object_id = k.i
WHERE k.n NOT IN (SELECT n FROM found)
"""

_REMOVE = f"""
DELETE FROM {{objects}} AS o USING {_KEYS} AS k (t, i)
WHERE o.type_name = t AND o.object_id = i AND {_K_IS_FRESH}
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
WHERE {where} ORDER BY type_name, object_id LIMIT %s
"""
_SUMMARIZE = """
SELECT type_name, count(*), sum(octet_length(state))::bigint FROM {objects} GROUP BY type_name
"""


def is_stale(error: psycopg.Error) -> bool:
    """True if a statement failed because a commit is stale."""
    return error.sqlstate == GONE or (
        error.sqlstate == "22P02" and _STALE_MARK in (error.diag.message_primary or "")
    )


class ObjectTable:
    """The table of one tenant. Methods raise psycopg's errors."""

    def __init__(self, names: Names) -> None:
        self._tenant = names.tenant
        self._save_any = names.query(_SAVE_ANY)
        self._save_fresh = names.query(_SAVE_FRESH)
        self._delete = names.query(_DELETE)
        self._require_fresh = names.query(_REQUIRE_FRESH)
        self._remove = names.query(_REMOVE)
        self._stale = names.query(_STALE)
        self._locked = names.query(_LOCKED)
        self._load = names.query(_LOAD)
        self._list = names.query(_LIST)
        self._browse = names.query(_BROWSE, where="(type_name, object_id) > (%s, %s)")
        self._browse_type = names.query(_BROWSE, where="type_name = %s AND object_id > %s")
        self._summarize = names.statement(_SUMMARIZE).encode()

    # --- writing ---------------------------------------------------------------------------------

    def save_any(
        self, connection: Connection, batch: Sequence[Commit], now: int
    ) -> Collection[int]:
        """Save the states of commits that aren't stale. Returns the positions of the stale ones.

        Raises:
            psycopg.Error: With the SQLSTATE `GONE`: a row was deleted, and nothing is saved.
        """
        assert connection.fence is not None
        parameters = (*connection.fence, *_rows(batch, now))
        cursor = connection.execute_binary(self._save_any, parameters)
        if cursor.rowcount == len(batch):
            return ()
        saved = set(cursor)
        return [
            position
            for position, commit in enumerate(batch)
            if (commit.key.type_name, commit.key.object_id) not in saved
        ]

    def save(
        self, connection: Connection, batch: Sequence[Commit], now: int
    ) -> Cursor[tuple[Any, ...]]:
        """Save the states of commits that aren't stale; an empty state for a commit without one.

        This and the following methods are part of a pipeline. The result has a row if commits are
        stale: an array of their type names, and one of their ids.
        """
        return connection.execute(self._save_fresh, _with_now_last(_rows(batch, now)))

    def delete(self, connection: Connection, batch: Sequence[Commit]) -> Cursor[tuple[Any, ...]]:
        """Delete objects at their revisions."""
        return connection.execute(self._delete, _expected(batch))

    def require_fresh(
        self, connection: Connection, batch: Sequence[Commit]
    ) -> Cursor[tuple[Any, ...]]:
        """Find the commits that aren't based on the stored revision and epoch of their rows.

        Locks the rows until the transaction ends.
        """
        keys = _keys([commit.key for commit in batch])
        return connection.execute(self._require_fresh, (*keys, *_expected(batch)))

    def remove(self, connection: Connection, batch: Sequence[Commit]) -> None:
        """Remove rows that this transaction itself has inserted."""
        connection.execute(self._remove, _keys([commit.key for commit in batch]))

    def stale(self, connection: Connection, batch: Sequence[Commit]) -> set[int]:
        """The positions of the commits that aren't based on the stored revision and epoch.

        Locks the existing rows until the transaction ends.
        """
        parameters = (*_expected(batch), BigintArray([commit.revision for commit in batch]))
        return {n - 1 for (n,) in connection.execute(self._stale, parameters)}

    def locked(self, connection: Connection, batch: Sequence[Commit]) -> set[int]:
        """The positions of the commits whose rows other sessions have locked. Locks the others."""
        keys = _keys([commit.key for commit in batch])
        parameters = (*_expected(batch), *keys)
        return {n - 1 for (n,) in connection.execute(self._locked, parameters)}

    # --- reading ---------------------------------------------------------------------------------

    def load(self, connection: Connection, keys: Sequence[ObjectKey]) -> list[StoredObject | None]:
        """See `Reader.load`."""
        found: list[StoredObject | None] = [None] * len(keys)
        for n, *row in connection.execute_binary(self._load, _keys(keys)):
            revision, state, epoch = row
            found[n - 1] = StoredObject(revision, swap_nul(state), epoch)
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
            ObjectRow(
                ObjectKey(kind, object_id, self._tenant), revision, updated_at, swap_nul(state), e
            )
            for kind, object_id, revision, updated_at, state, e in connection.execute(
                query, parameters, binary=True
            )
        ]

    def summarize(self, connection: Connection) -> dict[str, tuple[int, int]]:
        """By type: the number of objects, and the total bytes of their states."""
        return {name: (count, size) for name, count, size in connection.execute(self._summarize)}


def _keys(keys: Sequence[ObjectKey]) -> tuple[TextArray, TextArray]:
    return text_array([key.type_name for key in keys]), text_array([key.object_id for key in keys])


def _expected(batch: Sequence[Commit]) -> tuple[TextArray, TextArray, BigintArray, BigintArray]:
    return (
        *_keys([commit.key for commit in batch]),
        BigintArray([commit.revision for commit in batch]),
        BigintArray([commit.epoch for commit in batch]),
    )


def _rows(batch: Sequence[Commit], now: int) -> tuple[object, ...]:
    return (now, *_expected(batch), json_array([commit.state or b"" for commit in batch]))


def _with_now_last(rows: tuple[object, ...]) -> tuple[object, ...]:
    return *rows[1:], rows[0]
