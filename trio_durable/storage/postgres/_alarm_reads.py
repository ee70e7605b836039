"""Reading half of the table of alarms in a PostgreSQL database.

The table may be a sub-select of jobs, see `_jobs`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import psycopg

from ..._keys import AlarmKey, ObjectKey
from .._records import STOPPED, AlarmRow, AlarmStatus, DueAlarm, StoredAlarm
from ._arrays import swap_nul, text_array
from ._connection import Connection
from ._names import Names
from ._shard_function import IN_SHARDS, ShardSet

_MIN_TIME = -(2**63)

COLUMNS = """
a.type_name, a.object_id, a.name, a.due_at, convert_to(a.payload, 'UTF8'), a.failures, a.last_error,
a.crashes, a.recurrence
"""
OF_SHARDS = f" AND {IN_SHARDS.format(id='object_id')}"

_DUE = """
SELECT available_at, type_name, object_id, name FROM {alarms} AS a
WHERE available_at < %s AND (available_at, type_name, object_id, name) > (%s, %s, %s, %s)
    AND type_name <> ALL (%s::text[]){of_shards}
ORDER BY available_at, type_name, object_id, name LIMIT %s
"""
_LIST = f"""
SELECT {COLUMNS} FROM {{alarms}} AS a
WHERE type_name = %s AND object_id = %s AND available_at IS NOT NULL ORDER BY due_at, name
"""
_DEAD = f"""
SELECT {COLUMNS} FROM {{alarms}} AS a
WHERE available_at IS NULL AND type_name = %s AND (object_id, name) > (%s, %s)
    AND recurrence IS DISTINCT FROM '{STOPPED}'
ORDER BY object_id, name LIMIT %s
"""
STATUS = f"""
CASE WHEN available_at IS NOT NULL
    THEN CASE WHEN due_at <= %s THEN 'overdue' ELSE 'pending' END
    WHEN recurrence IS NOT DISTINCT FROM '{STOPPED}' THEN 'stopped' ELSE 'dead' END
"""
_BROWSE = f"""
SELECT * FROM (
    SELECT {COLUMNS}, available_at, {STATUS} AS status
    FROM {{alarms}} AS a WHERE {{where}}
) AS a
WHERE %s::text IS NULL OR status = %s ORDER BY type_name, object_id, name LIMIT %s
"""
_SUMMARIZE = f"""
SELECT type_name, count(*) FILTER (WHERE status = 'pending'),
    count(*) FILTER (WHERE status = 'overdue'), count(*) FILTER (WHERE status = 'dead')
FROM (SELECT type_name, {STATUS} AS status FROM {{alarms}} AS a) AS a GROUP BY type_name
"""


class AlarmReads:
    """Reads of the alarms of one tenant. Methods raise psycopg's errors."""

    def __init__(self, names: Names) -> None:
        self._tenant = names.tenant
        self._due = names.query(_DUE, of_shards="")
        self._due_of_shards = names.query(_DUE, of_shards=OF_SHARDS)
        self._list = names.query(_LIST)
        self._dead = names.query(_DEAD)
        # A condition on the primary key's columns, so that a page starts by an index search.
        self._browse = names.query(_BROWSE, where="(type_name, object_id, name) > (%s, %s, %s)")
        self._browse_type = names.query(
            _BROWSE, where="type_name = %s AND (object_id, name) > (%s, %s)"
        )
        self._summarize = names.query(_SUMMARIZE)

    def due(
        self,
        connection: Connection,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        shards: ShardSet | None,
    ) -> list[DueAlarm]:
        """See `Reader.due_alarms`. Only alarms in ``shards``, if some are given."""
        last = (_MIN_TIME, "", "", "") if after is None else (after.available_at, *after.key[:3])
        query, of_shards = self._due, tuple[object, ...]()
        if shards is not None:
            query, of_shards = self._due_of_shards, shards.parameters
        parameters = (before, *last, text_array(except_types), *of_shards, limit)
        rows = connection.execute(query, parameters, binary=True)
        return [
            DueAlarm(available_at, AlarmKey(type_name, object_id, name, self._tenant))
            for available_at, type_name, object_id, name in rows
        ]

    def of_object(self, connection: Connection, key: ObjectKey) -> list[StoredAlarm]:
        """See `Reader.list_alarms`."""
        parameters = (key.type_name, key.object_id)
        return self._stored(connection.execute(self._list, parameters, binary=True))

    def dead(
        self, connection: Connection, type_name: str, after: AlarmKey | None, limit: int
    ) -> list[StoredAlarm]:
        """See `Reader.list_dead_letters`."""
        last = ("", "") if after is None else (after.object_id, after.name)
        parameters = (type_name, *last, limit)
        return self._stored(connection.execute(self._dead, parameters, binary=True))

    def browse(
        self,
        connection: Connection,
        status: AlarmStatus | None,
        now: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
    ) -> list[AlarmRow]:
        """See `Reader.browse_alarms`."""
        query = self._browse_type
        if type_name is None:
            query = self._browse
            type_name = after.type_name if after else ""
        last = (after.object_id, after.name) if after else ("", "")
        parameters = (now, type_name, *last, status, status, limit)
        return [
            AlarmRow(stored_alarm(self._tenant, columns), available_at, its_status)
            for *columns, available_at, its_status in connection.execute(
                query, parameters, binary=True
            )
        ]

    def summarize(self, connection: Connection, now: int) -> dict[str, tuple[int, int, int]]:
        """By type: the number of pending, overdue and dead alarms."""
        rows = connection.execute(self._summarize, (now,))
        return {name: (pending, overdue, dead) for name, pending, overdue, dead in rows}

    # --- inside ----------------------------------------------------------------------------------

    def _stored(self, rows: psycopg.Cursor[tuple[Any, ...]]) -> list[StoredAlarm]:
        return [stored_alarm(self._tenant, row) for row in rows]


def stored_alarm(tenant: str, columns: Sequence[Any]) -> StoredAlarm:
    """The alarm of a row with `COLUMNS`."""
    type_name, object_id, name, due_at, payload, *rest = columns
    key = AlarmKey(type_name, object_id, name, tenant)
    return StoredAlarm(key, due_at, None if payload is None else swap_nul(payload), *rest)
