"""Table of alarms in a PostgreSQL database: one statement for each operation on a batch.

Statements lock rows in the order of their keys, as in `_objects`. A claim uses ``SKIP LOCKED``
instead of waiting: the process that holds the lock is about to claim, change or acknowledge the
alarm, after which it isn't available.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from ..._keys import AlarmKey, ObjectKey
from .._batch import available_from, expired_by
from .._records import AlarmChanges, Commit, NewAlarm, Postponement, StoredAlarm
from ._alarm_reads import COLUMNS, OF_SHARDS, AlarmReads
from ._arrays import BigintArray, TextArray, json_array, text_array
from ._connection import Connection
from ._names import Names
from ._nodes import FENCE
from ._objects import IS_FRESH, MARK_STALE, REQUIRE_ALL
from ._shard_function import ShardSet

OBJECTS = "unnest(%s::text[], %s::text[])"
KEYS = "unnest(%s::text[], %s::text[], %s::text[])"
CLAIMS = "unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])"
POSTPONED = (
    "unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], "
    "%s::text[], %s::bigint[])"
)
K_IS_FRESH = IS_FRESH.format(type="k.t", id="k.i")
IS_K = "a.type_name = k.t AND a.object_id = k.i AND a.name = k.m"

# Locked in the order of their keys, see `_objects`.
IN_ORDER = "ORDER BY a.type_name, a.object_id, a.name FOR UPDATE OF a"
HELD = f"""
WITH {FENCE.replace("{nodes}", "{{nodes}}")}, k AS MATERIALIZED (
    SELECT a.type_name AS t, a.object_id AS i, a.name AS m, {{columns}}
    FROM fence CROSS JOIN {{claims}} AS k (t, i, m, {{names}})
    JOIN {{{{alarms}}}} AS a ON {IS_K} AND a.claim = k.c AND passed = 1
    {IN_ORDER}{{skip}}
)
"""
_LOCK = f"""
WITH locked AS MATERIALIZED (
    SELECT FROM {KEYS} AS k (t, i, m)
    JOIN {{alarms}} AS a ON a.type_name = k.t AND a.object_id = k.i AND {{is_m}}
    WHERE {K_IS_FRESH}
    {IN_ORDER}
)
SELECT count(*) FROM locked
"""
_LOCKED = f"""
WITH k AS MATERIALIZED (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) AS k (t, i, m, n)
), free AS MATERIALIZED (
    SELECT a.type_name AS t, a.object_id AS i, a.name AS m FROM k
    JOIN {{alarms}} AS a ON a.type_name = k.t AND a.object_id = k.i
        AND (a.name = k.m OR k.m IS NULL)
    {IN_ORDER} SKIP LOCKED
)
SELECT k.n FROM k
JOIN {{alarms}} AS a ON a.type_name = k.t AND a.object_id = k.i AND (a.name = k.m OR k.m IS NULL)
WHERE NOT EXISTS (
    SELECT FROM free AS f WHERE f.t = a.type_name AND f.i = a.object_id AND f.m = a.name
)
"""
_CHECK = f"""
SELECT {MARK_STALE} FROM {CLAIMS} AS k (t, i, m, c)
LEFT JOIN {{alarms}} AS a ON {IS_K} AND a.claim = k.c
WHERE a.claim IS NULL
HAVING count(*) > 0
"""
_ACKNOWLEDGE_ALL = f"""
WITH k AS MATERIALIZED (SELECT * FROM {CLAIMS} AS k (t, i, m, c) WHERE {K_IS_FRESH}),
held AS MATERIALIZED (
    SELECT a.type_name, a.object_id, a.name FROM k
    JOIN {{alarms}} AS a ON {IS_K} AND a.claim = k.c
    {IN_ORDER}
), done AS (
    DELETE FROM {{alarms}} AS a USING held AS h
    WHERE a.type_name = h.type_name AND a.object_id = h.object_id AND a.name = h.name RETURNING 1
) {REQUIRE_ALL}
"""
_LOST = f"""
WITH held AS MATERIALIZED (
    SELECT k.n FROM {CLAIMS} WITH ORDINALITY AS k (t, i, m, c, n)
    JOIN {{alarms}} AS a ON {IS_K} AND a.claim = k.c
    {IN_ORDER}
)
SELECT n FROM generate_series(1, %s) AS n WHERE n NOT IN (SELECT n FROM held)
"""
_RENEW = f"""
{HELD.format(columns="1", claims=CLAIMS, names="c", skip=" SKIP LOCKED")}
UPDATE {{alarms}} AS a SET available_at = %s FROM k WHERE {IS_K}
"""
_POSTPONE = f"""
{
    HELD.format(
        columns="k.v, k.f, k.l, k.d",
        claims=POSTPONED,
        names="c, v, f, l, d",
        skip="",
    )
}
UPDATE {{alarms}} AS a
SET claim = NULL, available_at = k.v, failures = k.f, last_error = k.l, crashes = k.d
FROM k WHERE {IS_K}
"""
_CLAIM = f"""
WITH {FENCE}, k AS MATERIALIZED (
    SELECT a.type_name AS t, a.object_id AS i, a.name AS m
    FROM fence CROSS JOIN {KEYS} AS k (t, i, m)
    JOIN {{alarms}} AS a ON {IS_K} AND passed = 1
    WHERE a.available_at <= %s
    {IN_ORDER} SKIP LOCKED
)
UPDATE {{alarms}} AS a SET claim = %s, available_at = %s,
    crashes = CASE WHEN a.claim IS NULL OR a.available_at > %s THEN a.crashes
        ELSE coalesce(a.crashes + (a.marked IS NOT DISTINCT FROM a.claim)::int, 0) END
FROM k WHERE {IS_K}
RETURNING {COLUMNS}
"""
_CANCEL = f"""
WITH k AS MATERIALIZED (
    SELECT a.type_name AS t, a.object_id AS i, a.name AS m FROM {KEYS} AS k (t, i, m)
    JOIN {{alarms}} AS a ON {IS_K}
    WHERE {K_IS_FRESH}
    {IN_ORDER}
)
DELETE FROM {{alarms}} AS a USING k WHERE {IS_K}
"""
_CLEAR = f"""
WITH k AS MATERIALIZED (
    SELECT a.type_name AS t, a.object_id AS i, a.name AS m FROM {OBJECTS} AS k (t, i)
    JOIN {{alarms}} AS a ON a.type_name = k.t AND a.object_id = k.i
    WHERE {K_IS_FRESH}
    {IN_ORDER}
)
DELETE FROM {{alarms}} AS a USING k WHERE {IS_K}
"""
_SET = f"""
INSERT INTO {{alarms}} (type_name, object_id, name, due_at, available_at, payload, recurrence)
SELECT t, i, m, d, v, p, r
FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[])
    AS k (t, i, m, d, v, p, r)
WHERE {K_IS_FRESH}
ORDER BY t COLLATE "C", i COLLATE "C", m COLLATE "C"
ON CONFLICT (type_name, object_id, name) DO UPDATE SET
    due_at = excluded.due_at, available_at = excluded.available_at, payload = excluded.payload,
    recurrence = excluded.recurrence, claim = NULL, failures = 0, last_error = NULL, crashes = NULL
"""
_REVIVE = f"""
WITH {FENCE}
UPDATE {{alarms}} SET available_at = %s, failures = 0, crashes = crashes * 0 FROM fence
WHERE passed = 1 AND type_name = %s AND object_id = %s AND name = %s AND available_at IS NULL
    AND recurrence IS DISTINCT FROM 'stopped'
"""
_MARK = f"""
WITH {FENCE}
UPDATE {{alarms}} SET marked = claim FROM fence
WHERE passed = 1 AND type_name = %s AND object_id = %s AND name = %s AND claim = %s
"""
_ACQUIT = f"""
WITH {FENCE}
UPDATE {{alarms}} SET crashes = NULL FROM fence
WHERE passed = 1 AND type_name = %s AND object_id = %s AND name = %s AND claim = %s
"""
_RELEASE = f"""
WITH {FENCE}
UPDATE {{alarms}} SET claim = NULL, available_at = due_at, crashes = CASE
    WHEN %s THEN coalesce(crashes + (marked IS NOT DISTINCT FROM claim)::int, 0) ELSE crashes END
FROM fence WHERE passed = 1 AND claim IS NOT NULL{{of_shards}}
"""


class AlarmTable(AlarmReads):
    """The table of one tenant. Methods raise psycopg's errors."""

    def __init__(self, names: Names) -> None:
        super().__init__(names)
        self._lock = names.query(_LOCK, is_m="a.name = k.m")
        self._lock_all = names.query(_LOCK, is_m="(a.name = k.m OR k.m IS NULL)")
        self._locked = names.query(_LOCKED)
        self._check = names.query(_CHECK)
        self._acknowledge_all = names.query(_ACKNOWLEDGE_ALL)
        self._lost = names.query(_LOST)
        self._renew = names.query(_RENEW)
        self._postpone = names.query(_POSTPONE)
        self._claim = names.query(_CLAIM)
        self._cancel = names.query(_CANCEL)
        self._clear = names.query(_CLEAR)
        self._set = names.query(_SET)
        self._revive = names.query(_REVIVE)
        self._mark = names.query(_MARK)
        self._acquit = names.query(_ACQUIT)
        self._release = names.query(_RELEASE, of_shards="")
        self._release_shards = names.query(_RELEASE, of_shards=OF_SHARDS)

    # --- as part of a commit ---------------------------------------------------------------------

    def lock(
        self, connection: Connection, alarms: Sequence[AlarmKey], objects: Sequence[ObjectKey]
    ) -> None:
        """Lock ``alarms`` and all alarms of ``objects``, until the transaction ends."""
        keys: list[tuple[str, str, str | None]] = [alarm[:3] for alarm in alarms]
        keys += ((key.type_name, key.object_id, None) for key in objects)
        query = self._lock_all if objects else self._lock
        connection.execute(query, [text_array(key[part] for key in keys) for part in range(3)])

    def check(
        self, connection: Connection, claims: Sequence[tuple[AlarmKey, int]]
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        """Find the claims that aren't held, without locks. The result is as of `ObjectTable.save`.

        A claim may be lost between this and `acknowledge_all`, which then fails.
        """
        return connection.execute(self._check, claims_of(claims))

    def locked(self, connection: Connection, batch: Sequence[tuple[int, Commit]]) -> set[int]:
        """The numbers of the commits with alarms that other sessions have locked.

        Locks the alarms of the others.

        Args:
            connection: It has a transaction open.
            batch: Pairs (number, commit).
        """
        touched = [
            (commit.key.type_name, commit.key.object_id, name, number)
            for number, commit in batch
            if commit.alarms is not None
            for name in _touched(commit.alarms)
        ]
        types, ids, names, numbers = zip(*touched, strict=True) if touched else ((),) * 4
        columns = (text_array(types), text_array(ids), text_array(names), BigintArray(numbers))
        return {n for (n,) in connection.execute(self._locked, columns)}

    def acknowledge_all(
        self, connection: Connection, claims: Sequence[tuple[AlarmKey, int]]
    ) -> None:
        """Remove alarms. If a claim isn't held, this and the rest of the pipeline fail."""
        connection.execute(self._acknowledge_all, claims_of(claims))

    def lost(self, connection: Connection, claims: Sequence[tuple[int, AlarmKey, int]]) -> set[int]:
        """The numbers of the claims that aren't held, of triples (number, alarm, claim).

        Locks the alarms of the others until the transaction ends.
        """
        parameters = (*claims_of([(key, claim) for _, key, claim in claims]), len(claims))
        return {claims[n - 1][0] for (n,) in connection.execute(self._lost, parameters)}

    def clear(self, connection: Connection, keys: Sequence[ObjectKey]) -> None:
        """Remove all alarms of these objects."""
        types, ids = (
            text_array(key.type_name for key in keys),
            text_array(key.object_id for key in keys),
        )
        connection.execute(self._clear, (types, ids))

    def cancel(self, connection: Connection, alarms: Sequence[AlarmKey]) -> None:
        """Remove alarms."""
        connection.execute(self._cancel, keys_of(alarms))

    def set(self, connection: Connection, alarms: Sequence[tuple[AlarmKey, NewAlarm]]) -> None:
        """Set alarms. Each replaces an earlier one of its name."""
        keys = keys_of([key for key, _ in alarms])
        connection.execute(self._set, (*keys, *new_columns([new for _, new in alarms])))

    # --- delivery --------------------------------------------------------------------------------

    def claim(
        self,
        connection: Connection,
        alarms: Sequence[AlarmKey],
        claim: int,
        now: int,
        until: int,
    ) -> list[StoredAlarm]:
        """See `Writer.claim`."""
        parameters = (*keys_of(alarms), now, claim, until, expired_by(now))
        rows = connection.execute(self._claim, connection.fenced(*parameters), binary=True)
        return self._stored(rows)

    def renew(
        self, connection: Connection, claims: Sequence[tuple[AlarmKey, int]], until: int
    ) -> None:
        """See `Writer.renew`."""
        connection.execute(self._renew, connection.fenced(*claims_of(claims), until))

    def postpone(self, connection: Connection, postponements: Sequence[Postponement]) -> None:
        """See `Writer.postpone`."""
        parameters = postponed_columns(postponements)
        connection.execute(self._postpone, connection.fenced(*parameters))

    def revive(self, connection: Connection, alarm: AlarmKey, now: int) -> bool:
        """See `Writer.revive`."""
        parameters = connection.fenced(now, *alarm[:3])
        return connection.execute(self._revive, parameters).rowcount > 0

    def mark(self, connection: Connection, alarm: AlarmKey, claim: int) -> bool:
        """See `Writer.mark`."""
        parameters = connection.fenced(*alarm[:3], claim)
        return connection.execute(self._mark, parameters).rowcount > 0

    def acquit(self, connection: Connection, alarm: AlarmKey, claim: int) -> bool:
        """See `Writer.acquit`."""
        parameters = connection.fenced(*alarm[:3], claim)
        return connection.execute(self._acquit, parameters).rowcount > 0

    def release(
        self, connection: Connection, shards: ShardSet | None, *, are_crashes: bool
    ) -> None:
        """End all claims, so that each alarm is due at its original time.

        Args:
            connection: For the statement.
            shards: Only claims of alarms in these shards.
            are_crashes: The claims have outlived their processes, so the alarms become suspects.
        """
        if shards is None:
            connection.execute(self._release, connection.fenced(are_crashes))
        else:
            parameters = connection.fenced(are_crashes, *shards.parameters)
            connection.execute(self._release_shards, parameters)


def new_columns(news: Sequence[NewAlarm]) -> tuple[Any, ...]:
    """The parameters of new alarms: due and available times, payloads and recurrences."""
    return (
        BigintArray([new.due_at for new in news]),
        BigintArray([available_from(new) for new in news]),
        json_array(new.payload for new in news),
        text_array(new.recurrence for new in news),
    )


def _touched(changes: AlarmChanges) -> Sequence[str | None]:
    """The names of the alarms that are changed; None stands for all alarms of the object."""
    return (None,) if changes.clear else (*changes.acknowledged, *changes.changed)


def keys_of(alarms: Sequence[AlarmKey]) -> tuple[TextArray, TextArray, TextArray]:
    """The parameters of keys: types, ids and names."""
    return (
        text_array(key.type_name for key in alarms),
        text_array(key.object_id for key in alarms),
        text_array(key.name for key in alarms),
    )


def claims_of(
    claims: Sequence[tuple[AlarmKey, int]],
) -> tuple[TextArray, TextArray, TextArray, BigintArray]:
    """The parameters of claims: those of their keys, and the claims."""
    return *keys_of([key for key, _ in claims]), BigintArray([claim for _, claim in claims])


def postponed_columns(postponements: Sequence[Postponement]) -> tuple[Any, ...]:
    """The parameters of postponements: their claims, times, failures, errors and crashes."""
    return (
        *claims_of([(each.key, each.claim) for each in postponements]),
        BigintArray([each.available_at for each in postponements]),
        BigintArray([each.failures for each in postponements]),
        text_array(each.last_error for each in postponements),
        BigintArray([each.crashes for each in postponements]),
    )
