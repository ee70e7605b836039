"""Table of objects in a PostgreSQL database: one statement for each operation on a batch.

A save is an upsert whose update is conditional on revision and epoch. It returns the changed rows,
so a batch of saves applies in one statement even if some of them are stale. A save whose row was
deleted would insert it again; a trigger refuses that, which fails the whole statement.

Other batches are pipelines, which end before the client sees a result. Stale commits are normal, so
they must not be errors in the server's log: `ObjectTable.check` finds them first, without locks,
and sets a flag for the transaction, with which all later statements change nothing. A row may also
change between the check and the statement that locks it. Then that statement fails, and with it the
transaction.

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
from ._migrations import GONE
from ._names import Names

IS_FRESH = "current_setting('trio_durable.stale', true) IS DISTINCT FROM 'on'"
"""The condition under which a statement of a pipeline changes anything."""

SET_STALE = "SELECT set_config('trio_durable.stale', 'on', true)"
"""Keeps the later statements of the transaction from changing anything."""

_STALE_MARK = "trio_durable: stale"
_REQUIRE = f"SELECT CASE WHEN {{}} THEN 1 ELSE ('{_STALE_MARK} ' || count(*))::int END FROM"

REQUIRE_ALL = f"{_REQUIRE.format(f'count(*) = CASE WHEN {IS_FRESH} THEN %s ELSE 0 END')} done"
"""Fails unless the statement changed the expected number of rows, see `is_stale`. The error rolls
back the whole pipeline on the server, so the client needs no result in between. It is a cast of a
text to a number; no index or trigger of the user's raises that with this text."""

_KEYS = "unnest(%s::text[], %s::text[])"
_EXPECTED = "unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[])"

_SAVE = """
INSERT INTO {{objects}} AS o (type_name, object_id, epoch, revision, updated_at, state)
SELECT t, i, e, r + 1, %s, s
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[]) AS k (t, i, r, e, s)
{where}ORDER BY t COLLATE "C", i COLLATE "C"
ON CONFLICT (type_name, object_id) DO UPDATE SET
    revision = excluded.revision, updated_at = excluded.updated_at, state = excluded.state
WHERE o.revision = excluded.revision - 1 AND o.epoch = excluded.epoch
"""
_SAVE_ANY = f"{_SAVE.format(where='')} RETURNING type_name, object_id"
_SAVE_ALL = f"""
WITH done AS ({_SAVE.format(where=f"WHERE {IS_FRESH} ")} RETURNING 1) {REQUIRE_ALL}
"""

_DELETE_ALL = f"""
WITH wanted AS MATERIALIZED (
    SELECT o.type_name, o.object_id
    FROM {_EXPECTED} AS k (t, i, r, e)
    JOIN {{objects}} AS o ON o.type_name = t AND o.object_id = i AND o.revision = r AND o.epoch = e
    WHERE {IS_FRESH}
    ORDER BY o.type_name, o.object_id FOR UPDATE OF o
), done AS (
    DELETE FROM {{objects}} AS o USING wanted AS w
    WHERE o.type_name = w.type_name AND o.object_id = w.object_id RETURNING 1
) {REQUIRE_ALL}
"""

# The rows are locked, so that no other process changes them before this transaction commits. Rows
# that don't exist can't be locked.
_FOUND = f"""
WITH found AS MATERIALIZED (
    SELECT k.n, o.revision = k.r AND o.epoch = k.e AS is_fresh
    FROM {_EXPECTED} WITH ORDINALITY AS k (t, i, r, e, n)
    JOIN {{{{objects}}}} AS o ON o.type_name = k.t AND o.object_id = k.i
    {{where}}ORDER BY o.type_name, o.object_id FOR NO KEY UPDATE OF o{{skip}}
)
"""
_REQUIRE_FRESH = f"""
{_FOUND.format(where=f"WHERE {IS_FRESH} ", skip="")}
{_REQUIRE.format(f"NOT {IS_FRESH} OR count(*) = %s AND bool_and(is_fresh)")} found
"""
_IS_STALE = "CASE WHEN w.r = 0 THEN found.n IS NOT NULL ELSE is_fresh IS NOT TRUE END"
_STALE = f"""
{_FOUND.format(where="", skip="")}
SELECT w.n FROM unnest(%s::bigint[]) WITH ORDINALITY AS w (r, n) LEFT JOIN found USING (n)
WHERE {_IS_STALE}
"""
_CHECK = f"""
{SET_STALE} WHERE EXISTS (
    SELECT FROM {_EXPECTED} AS w (t, i, r, e)
    LEFT JOIN {{objects}} AS o ON o.type_name = w.t AND o.object_id = w.i
    WHERE CASE WHEN w.r = 0 THEN o.revision IS NOT NULL
        ELSE (o.revision = w.r AND o.epoch = w.e) IS NOT TRUE END
)
"""
_LOCKED = f"""
{_FOUND.format(where="", skip=" SKIP LOCKED")}
SELECT k.n FROM {_KEYS} WITH ORDINALITY AS k (t, i, n)
JOIN {{objects}} AS o ON o.type_name = k.t AND o.object_id = k.i
WHERE k.n NOT IN (SELECT n FROM found)
"""

_REMOVE = f"""
DELETE FROM {{objects}} AS o USING {_KEYS} AS k (t, i)
WHERE o.type_name = t AND o.object_id = i AND {IS_FRESH}
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
        self._save_all = names.query(_SAVE_ALL)
        self._delete_all = names.query(_DELETE_ALL)
        self._require_fresh = names.query(_REQUIRE_FRESH)
        self._remove = names.query(_REMOVE)
        self._stale = names.query(_STALE)
        self._check = names.query(_CHECK)
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
        """Save the states of a batch; an empty state for a commit without one.

        If one is stale, the statement and the rest of the pipeline fail.
        """
        connection.execute(self._save_all, (*_rows(batch, now), len(batch)))

    def delete_all(self, connection: Connection, batch: Sequence[Commit]) -> None:
        """Delete objects at their revisions. Fails if a commit is stale."""
        connection.execute(self._delete_all, (*_expected(batch), len(batch)))

    def require_fresh(self, connection: Connection, batch: Sequence[Commit]) -> None:
        """Fail if a commit isn't based on the stored revision and epoch of its row.

        Locks the rows until the transaction ends.
        """
        connection.execute(self._require_fresh, (*_expected(batch), len(batch)))

    def remove(self, connection: Connection, batch: Sequence[Commit]) -> None:
        """Remove rows that this transaction itself has inserted."""
        connection.execute(self._remove, _keys([commit.key for commit in batch]))

    def stale(self, connection: Connection, batch: Sequence[Commit]) -> set[int]:
        """The positions of the commits that aren't based on the stored revision and epoch.

        Locks the existing rows until the transaction ends.
        """
        parameters = (*_expected(batch), BigintArray([commit.revision for commit in batch]))
        return {n - 1 for (n,) in connection.execute(self._stale, parameters)}

    def check(self, connection: Connection, batch: Sequence[Commit]) -> Cursor[tuple[Any, ...]]:
        """Find out without locks whether commits are based on the stored revision and epoch.

        If one isn't, the result has a row, and later statements of the transaction change nothing.
        """
        return connection.execute(self._check, _expected(batch))

    def locked(self, connection: Connection, batch: Sequence[Commit]) -> set[int]:
        """The positions of the commits whose rows other sessions have locked. Locks the others."""
        keys = _keys([commit.key for commit in batch])
        parameters = (*_expected(batch), *keys)
        return {n - 1 for (n,) in connection.execute(self._locked, parameters)}

    # --- reading ---------------------------------------------------------------------------------

    def load(self, connection: Connection, keys: Sequence[ObjectKey]) -> list[StoredObject | None]:
        """See `Reader.load`."""
        found: list[StoredObject | None] = [None] * len(keys)
        for n, *row in connection.execute(self._load, _keys(keys), binary=True):
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
    return text_array(key.type_name for key in keys), text_array(key.object_id for key in keys)


def _expected(batch: Sequence[Commit]) -> tuple[TextArray, TextArray, BigintArray, BigintArray]:
    return (
        *_keys([commit.key for commit in batch]),
        BigintArray([commit.revision for commit in batch]),
        BigintArray([commit.epoch for commit in batch]),
    )


def _rows(batch: Sequence[Commit], now: int) -> tuple[object, ...]:
    return (now, *_expected(batch), json_array([commit.state or b"" for commit in batch]))
