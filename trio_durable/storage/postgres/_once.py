"""Table of once-keys in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .._messages import OnceKey, OnceReply
from ._arrays import BigintArray, TextArray, json_array, swap_nul, text_array
from ._connection import Connection
from ._message_commits import Result
from ._message_groups import MessageGroup, Numbered
from ._message_rows import MessageRows
from ._names import Names
from ._nodes import FENCE
from ._objects import IS_FRESH, MARK_STALE, REQUIRE_ALL
from ._shard_function import IN_SHARDS, ShardSet

_KEYS = "%s::text[], %s::text[], %s::text[]"
_COLUMNS = "type_name, object_id, key, handler, digest, signature, reply, expires_at, token"
_TYPES = f"{_KEYS}, %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[]"
_K_IS_FRESH = IS_FRESH.format(type="k.t", id="k.i")
_IS_K = "o.type_name = k.kt AND o.object_id = k.ki AND o.key = k.kk"
_IN_ORDER = "ORDER BY o.type_name, o.object_id, o.key FOR UPDATE OF o"
_IS_TAKEN = "o.expires_at > %s AND (o.reply IS NULL AND o.token = k.token) IS NOT TRUE"
_READ = _COLUMNS.replace("reply", "convert_to(reply, 'UTF8')")
_PUT = f"""
INSERT INTO {{{{once}}}} AS o ({_COLUMNS}) SELECT {_COLUMNS} FROM k
ORDER BY type_name COLLATE "C", object_id COLLATE "C", key COLLATE "C"
ON CONFLICT (type_name, object_id, key) DO UPDATE SET
    handler = excluded.handler, digest = excluded.digest, signature = excluded.signature,
    reply = excluded.reply, expires_at = excluded.expires_at, token = excluded.token
WHERE o.expires_at <= %s{{or_kept}}
"""

_CHECK = f"""
SELECT {MARK_STALE}
FROM unnest(%s::text[], %s::text[], {_KEYS}, %s::bigint[]) AS k (t, i, kt, ki, kk, token)
JOIN {{once}} AS o ON {_IS_K}
WHERE {_IS_TAKEN}
HAVING count(*) > 0
"""
_TAKEN = f"""
WITH held AS MATERIALIZED (
    SELECT k.n, o.expires_at, o.reply IS NULL AND o.token = k.token AS is_kept
    FROM unnest({_KEYS}, %s::bigint[], %s::bigint[]) AS k (kt, ki, kk, token, n)
    JOIN {{once}} AS o ON {_IS_K}
    {_IN_ORDER}
)
SELECT n FROM held WHERE expires_at > %s AND is_kept IS NOT TRUE
"""
_LOCKED = f"""
WITH k AS MATERIALIZED (
    SELECT * FROM unnest({_KEYS}, %s::bigint[]) AS k (kt, ki, kk, n)
), free AS MATERIALIZED (
    SELECT k.n FROM k JOIN {{once}} AS o ON {_IS_K} {_IN_ORDER} SKIP LOCKED
)
SELECT k.n FROM k JOIN {{once}} AS o ON {_IS_K} WHERE k.n NOT IN (SELECT n FROM free)
"""
_RECORD = f"""
WITH k AS MATERIALIZED (
    SELECT * FROM unnest(%s::text[], %s::text[], {_TYPES}) AS k (t, i, {_COLUMNS})
    WHERE {_K_IS_FRESH}
), done AS (
    {_PUT.format(or_kept=" OR (o.reply IS NULL AND o.token = excluded.token)")} RETURNING 1
) {REQUIRE_ALL}
"""
_RESTORE = f"""
WITH k AS MATERIALIZED (SELECT * FROM unnest({_TYPES}) AS k ({_COLUMNS}))
{_PUT.format(or_kept="")} RETURNING type_name, object_id, key
"""
_CLEAN = f"""
WITH {FENCE}, expired AS MATERIALIZED (
    SELECT o.type_name, o.object_id, o.key FROM fence JOIN {{once}} AS o
        ON passed = 1 AND o.expires_at <= %s{{of_shards}}
    ORDER BY o.expires_at LIMIT %s
), held AS MATERIALIZED (
    SELECT o.type_name, o.object_id, o.key FROM expired AS k
    JOIN {{once}} AS o ON o.type_name = k.type_name AND o.object_id = k.object_id AND o.key = k.key
    WHERE o.expires_at <= %s
    {_IN_ORDER} SKIP LOCKED
)
DELETE FROM {{once}} AS o USING held AS k
WHERE o.type_name = k.type_name AND o.object_id = k.object_id AND o.key = k.key
"""
_OF_SHARDS = f" AND {IN_SHARDS.format(id='o.object_id')}"
_RENAME = (
    """
    DELETE FROM {once} AS o USING (SELECT %s::text, %s::text) AS k (old, new), {once} AS other
    WHERE o.type_name = k.old AND other.type_name = k.new
        AND other.object_id = o.object_id AND other.key = o.key
    """,
    """
    UPDATE {once} SET type_name = k.new FROM (SELECT %s::text, %s::text) AS k (old, new)
    WHERE type_name = k.old
    """,
)

_FIND = f"""
SELECT k.n, {_READ}
FROM unnest({_KEYS}) WITH ORDINALITY AS k (kt, ki, kk, n) JOIN {{once}} AS o ON {_IS_K}
WHERE o.expires_at > %s
"""
_LIST = f"""
SELECT {_READ} FROM {{once}} WHERE (type_name, object_id, key) > (%s, %s, %s)
ORDER BY type_name, object_id, key LIMIT %s
"""


class OnceTable:
    """The table of one tenant. Methods raise psycopg's errors."""

    def __init__(self, names: Names) -> None:
        self._rows = MessageRows(names.tenant)
        self._check = names.query(_CHECK)
        self._taken = names.query(_TAKEN)
        self._locked = names.query(_LOCKED)
        self._record = names.query(_RECORD)
        self._restore = names.query(_RESTORE)
        self._clean = names.query(_CLEAN, of_shards="")
        self._clean_shards = names.query(_CLEAN, of_shards=_OF_SHARDS)
        self._renames = [names.query(query) for query in _RENAME]
        self._find = names.query(_FIND)
        self._list = names.query(_LIST)

    # --- as part of a commit ---------------------------------------------------------------------

    def check(self, connection: Connection, group: MessageGroup, now: int) -> Result:
        """Find the commits whose keys are taken, without locks, as of `ObjectTable.save`.

        A key may be taken between this and `record`, which then fails.
        """
        recorded = group.recorded
        authors = (
            text_array(author[0] for author, _ in recorded),
            text_array(author[1] for author, _ in recorded),
        )
        keys = _keys([reply.key for _, reply in recorded])
        tokens = BigintArray([reply.token for _, reply in recorded])
        return connection.execute(self._check, (*authors, *keys, tokens, now))

    def taken(self, connection: Connection, batch: Sequence[Numbered], now: int) -> set[int]:
        """The numbers of the commits whose keys are taken. Locks the keys that are there."""
        numbers, replies = _recorded(batch)
        if not replies:
            return set()
        parameters = (
            *_keys([reply.key for reply in replies]),
            BigintArray([reply.token for reply in replies]),
            BigintArray(numbers),
            now,
        )
        return {n for (n,) in connection.execute(self._taken, parameters)}

    def locked(self, connection: Connection, batch: Sequence[Numbered]) -> set[int]:
        """The numbers of the commits with keys that others have locked. Locks the rest."""
        numbers, replies = _recorded(batch)
        if not replies:
            return set()
        parameters = (*_keys([reply.key for reply in replies]), BigintArray(numbers))
        return {n for (n,) in connection.execute(self._locked, parameters)}

    def record(self, connection: Connection, group: MessageGroup, now: int) -> None:
        """Store replies and promises. If a key is taken, this and the rest of the pipeline fail."""
        connection.execute(
            self._record,
            (
                text_array(author[0] for author, _ in group.recorded),
                text_array(author[1] for author, _ in group.recorded),
                *_arrays([reply for _, reply in group.recorded]),
                now,
            ),
        )

    # --- writing ---------------------------------------------------------------------------------

    def clean(self, connection: Connection, now: int, limit: int, shards: ShardSet | None) -> int:
        """See `Writer.clean_once`. Only keys of objects in ``shards``, if some are given."""
        query, of_shards = self._clean, tuple[object, ...]()
        if shards is not None:
            query, of_shards = self._clean_shards, shards.parameters
        parameters = connection.fenced(now, *of_shards, limit, now)
        return connection.execute(query, parameters).rowcount

    def rename(self, connection: Connection, old: str, new: str) -> None:
        """See `Writer.rename_messages`. Part of a transaction."""
        for query in self._renames:
            connection.execute(query, (old, new))

    def restore(self, connection: Connection, once: Sequence[OnceReply], now: int) -> list[OnceKey]:
        """See `Writer.restore_messages`. Part of a transaction."""
        rows = connection.execute(self._restore, (*_arrays(once), now))
        stored = {tuple(row) for row in rows}
        return [
            each.key
            for each in once
            if (each.key.to.type_name, each.key.to.object_id, each.key.key) not in stored
        ]

    # --- reading ---------------------------------------------------------------------------------

    def find(
        self, connection: Connection, keys: Sequence[OnceKey], now: int
    ) -> list[OnceReply | None]:
        """See `Reader.find_once`."""
        found: list[OnceReply | None] = [None] * len(keys)
        for n, *row in connection.execute(self._find, (*_keys(keys), now), binary=True):
            found[n - 1] = self._reply(*row)
        return found

    def page(self, connection: Connection, after: OnceKey | None, limit: int) -> list[OnceReply]:
        """See `Reader.list_once`."""
        last = (after.to.type_name, after.to.object_id, after.key) if after else ("", "", "")
        rows = connection.execute(self._list, (*last, limit), binary=True)
        return [self._reply(*row) for row in rows]

    def _reply(self, *row: Any) -> OnceReply:
        type_name, object_id, key, handler, digest, signature, reply, expires_at, token = row
        return OnceReply(
            OnceKey(self._rows.object_key(type_name, object_id), key),
            handler,
            digest,
            signature,
            None if reply is None else swap_nul(reply),
            expires_at,
            token,
        )


def _recorded(batch: Iterable[Numbered]) -> tuple[list[int], list[OnceReply]]:
    found = [
        (number, reply)
        for number, commit in batch
        if commit.messages is not None
        for reply in commit.messages.recorded
    ]
    return [number for number, _ in found], [reply for _, reply in found]


def _keys(keys: Sequence[OnceKey]) -> tuple[TextArray, TextArray, TextArray]:
    return (
        text_array(key.to.type_name for key in keys),
        text_array(key.to.object_id for key in keys),
        text_array(key.key for key in keys),
    )


def _arrays(once: Sequence[OnceReply]) -> tuple[object, ...]:
    """Rows as parameters, see `_TYPES`."""
    return (
        *_keys([reply.key for reply in once]),
        text_array(reply.handler for reply in once),
        text_array(reply.digest for reply in once),
        text_array(reply.signature for reply in once),
        json_array(reply.reply for reply in once),
        BigintArray([reply.expires_at for reply in once]),
        BigintArray([reply.token for reply in once]),
    )
