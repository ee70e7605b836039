"""Statements of recurring alarms in a PostgreSQL database, on the table of alarms."""

from __future__ import annotations

from collections.abc import Sequence

from ..._keys import AlarmKey
from .._records import (
    MOVED,
    STOPPED,
    AlarmRow,
    DeadFiring,
    NewAlarm,
    Onto,
    Postponement,
    StoredAlarm,
)
from ._alarm_reads import COLUMNS, STATUS, stored_alarm
from ._alarms import HELD, IS_K, K_IS_FRESH, KEYS, claims_of, keys_of, new_columns
from ._arrays import BigintArray, text_array
from ._connection import Connection
from ._names import Names

MAY_REPLACE = f"""
CASE WHEN a.recurrence IS NOT DISTINCT FROM '{STOPPED}' THEN k.o & {Onto.STOPPED.value} <> 0
    WHEN a.claim IS NOT NULL OR a.recurrence IS NOT DISTINCT FROM '{MOVED}' THEN false
    WHEN a.available_at IS NULL THEN k.o & {Onto.OUTDATED.value} <> 0
    ELSE a.due_at > %s AND (
        (k.o & {Onto.OUTDATED.value} <> 0 AND a.recurrence IS DISTINCT FROM k.r)
        OR (k.o & {Onto.LATE.value} <> 0 AND a.due_at > k.d)) END
"""
"""The condition that an alarm may replace the row ``a``, see `Onto`. Its parameter is the time."""
# What may not be replaced is left out before the insertion.
_SET_ONTO = f"""
INSERT INTO {{alarms}} AS a (
    type_name, object_id, name, due_at, available_at, payload, recurrence)
SELECT t, i, m, d, v, p, r
FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[],
    %s::bigint[]) AS k (t, i, m, d, v, p, r, o)
WHERE {K_IS_FRESH} AND NOT EXISTS (
    SELECT FROM {{alarms}} AS a WHERE {IS_K} AND NOT {MAY_REPLACE})
ORDER BY t COLLATE "C", i COLLATE "C", m COLLATE "C"
ON CONFLICT (type_name, object_id, name) DO UPDATE SET
    due_at = excluded.due_at, available_at = excluded.available_at, payload = excluded.payload,
    recurrence = excluded.recurrence, claim = NULL, failures = 0, last_error = NULL, crashes = NULL
"""
FIRINGS = (
    "unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], "
    "%s::bigint[], %s::text[], %s::bigint[], %s::text[], %s::text[], "
    "%s::bigint[], %s::bigint[], %s::text[], %s::text[])"
)
_BURY = f"""
{
    HELD.format(
        columns="a.due_at AS d, a.payload AS p, k.f, k.l, k.x, k.n, k.r, k.nd, k.nv, k.np, k.nr",
        claims=FIRINGS,
        names="c, f, l, x, n, r, nd, nv, np, nr",
        skip="",
    )
}, buried AS (
    INSERT INTO {{alarms}} (
        type_name, object_id, name, due_at, payload, failures, last_error, crashes, recurrence)
    SELECT t, i, n, d, p, f, l, x, r FROM k
    ON CONFLICT (type_name, object_id, name) DO UPDATE SET
        due_at = excluded.due_at, available_at = NULL, payload = excluded.payload, claim = NULL,
        failures = excluded.failures, last_error = excluded.last_error,
        crashes = excluded.crashes, recurrence = excluded.recurrence
)
UPDATE {{alarms}} AS a
SET claim = NULL, due_at = k.nd, available_at = k.nv, payload = k.np, recurrence = k.nr,
    failures = 0, last_error = NULL, crashes = NULL
FROM k WHERE {IS_K}
"""
_LOAD = f"""
SELECT {COLUMNS}, a.available_at, {STATUS} AS status
FROM {KEYS} AS k (t, i, m) JOIN {{alarms}} AS a ON {IS_K}
"""
_RECURRING = f"""
SELECT {COLUMNS} FROM {{alarms}} AS a
WHERE recurrence IS NOT NULL AND available_at IS NOT NULL AND recurrence <> '{MOVED}'
    AND type_name = %s AND name = %s AND due_at > %s AND object_id > %s
ORDER BY object_id LIMIT %s
"""


class Recurrences:
    """The recurring alarms of one tenant. Methods raise psycopg's errors."""

    def __init__(self, names: Names) -> None:
        self._tenant = names.tenant
        self._set_onto = names.query(_SET_ONTO)
        self._bury = names.query(_BURY)
        self._load = names.query(_LOAD)
        self._recurring = names.query(_RECURRING)

    def set_onto(
        self, connection: Connection, alarms: Sequence[tuple[AlarmKey, NewAlarm]], now: int
    ) -> None:
        """Set alarms, as far as they may replace what is there. See `Onto`."""
        news = [new for _, new in alarms]
        onto = BigintArray([new.onto.value for new in news])
        parameters = (*keys_of([key for key, _ in alarms]), *new_columns(news), onto, now)
        connection.execute(self._set_onto, parameters)

    def bury(self, connection: Connection, dead: Sequence[tuple[Postponement, DeadFiring]]) -> None:
        """Store dead letters and the alarms' next firings, as far as the claims are held."""
        parameters = dead_columns(dead)
        connection.execute(self._bury, connection.fenced(*parameters))

    def load(
        self, connection: Connection, alarms: Sequence[AlarmKey], now: int
    ) -> list[AlarmRow | None]:
        """See `Reader.load_alarms`."""
        rows = connection.execute(self._load, (now, *keys_of(alarms)), binary=True)
        found: dict[AlarmKey, AlarmRow] = {}
        for *columns, available_at, status in rows:
            alarm = stored_alarm(self._tenant, columns)
            found[alarm.key] = AlarmRow(alarm, available_at, status)
        return [found.get(key) for key in alarms]

    def recurring(
        self,
        connection: Connection,
        type_name: str,
        name: str,
        due_after: int,
        after: AlarmKey | None,
        limit: int,
    ) -> list[StoredAlarm]:
        """See `Reader.recurring_alarms`."""
        last = "" if after is None else after.object_id
        parameters = (type_name, name, due_after, last, limit)
        rows = connection.execute(self._recurring, parameters, binary=True)
        return [stored_alarm(self._tenant, row) for row in rows]


def dead_columns(dead: Sequence[tuple[Postponement, DeadFiring]]) -> tuple[object, ...]:
    """The parameters of firings that have died."""
    records = [record for record, _ in dead]
    return (
        *claims_of([(record.key, record.claim) for record in records]),
        BigintArray([record.failures for record in records]),
        text_array(record.last_error for record in records),
        BigintArray([record.crashes for record in records]),
        text_array(firing.name for _, firing in dead),
        text_array(firing.recurrence for _, firing in dead),
        *new_columns([firing.next for _, firing in dead]),
    )
