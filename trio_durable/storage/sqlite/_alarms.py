"""Table of alarms in an SQLite file: one statement for each operation on a batch.

As in `_objects`, each statement costs a switch of the GIL, so a batch takes one statement. Setting,
claiming and acknowledging, which every alarm goes through, take their rows as ``VALUES``; the other
operations take JSON.

A corrupt row must not stop the alarms around it. Reads first try to return all rows as one row of
JSON, which SQLite refuses if one of them isn't UTF-8 text. Then they read row by row, and skip or
repair the corrupt one.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson

from ..._keys import AlarmKey, ObjectKey
from .._batch import available_from, expired_by
from .._records import (
    MOVED,
    NO_TIME,
    STOPPED,
    AlarmRow,
    AlarmStatus,
    DueAlarm,
    NewAlarm,
    Postponement,
    StoredAlarm,
)
from ._names import TableNames
from ._parameters import PADDING, as_json, padded, values
from ._recurrence_sql import BURY, GO_ON, SET_ONTO

logger = logging.getLogger("trio_durable.storage")

_MIN_TIME = -(2**63)

_COLUMNS = "type_name, object_id, name, due_at, payload, failures, last_error, crashes, recurrence"
_AS_JSON = f"json_group_array(json_array({_COLUMNS}))"
_AS_ROWS = _COLUMNS.replace("payload", "CAST(payload AS BLOB)")

MAX_ROWS = 1024
"""The largest number of alarms in one statement. SQLite limits its parameters to 32,766."""

# Rare operations take their keys as JSON. SQLite's planner scans the table for ``IN (VALUES …)``.
_CANCEL = """
DELETE FROM {alarms} WHERE (type_name, object_id, name) IN (
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))
"""
_CLEAR = """
DELETE FROM {alarms} WHERE (type_name, object_id) IN (
    SELECT value ->> 0, value ->> 1 FROM json_each(?))
"""
_LOST = """
SELECT json_group_array(k.value ->> 0)
FROM json_each(?) AS k
LEFT JOIN {alarms} AS a
    ON a.type_name = k.value ->> 1 AND a.object_id = k.value ->> 2 AND a.name = k.value ->> 3
WHERE a.claim IS NOT k.value ->> 4
"""
_CLAIMED = "SELECT {columns} FROM {alarms} WHERE claim = ?"
# The unary + keeps the planner from the index of claims, where many rows have the same claim.
_RENEW = """
UPDATE {alarms} SET available_at = ? FROM json_each(?) AS k
WHERE type_name = k.value ->> 0 AND object_id = k.value ->> 1 AND name = k.value ->> 2
    AND +claim = k.value ->> 3
"""
_POSTPONE = """
UPDATE {alarms} SET claim = NULL, available_at = k.value ->> 4,
    failures = k.value ->> 5, last_error = k.value ->> 6, crashes = k.value ->> 7
FROM json_each(?) AS k
WHERE type_name = k.value ->> 0 AND object_id = k.value ->> 1 AND name = k.value ->> 2
    AND +claim = k.value ->> 3
"""
_REVIVE = """
UPDATE {alarms} SET available_at = ?, failures = 0, crashes = crashes * 0
WHERE type_name = ? AND object_id = ? AND name = ? AND available_at IS NULL
    AND recurrence IS NOT 'stopped'
"""
_MARK = """
UPDATE {alarms} SET marked = claim
WHERE type_name = ? AND object_id = ? AND name = ? AND +claim = ?
"""
_ACQUIT = """
UPDATE {alarms} SET crashes = NULL
WHERE type_name = ? AND object_id = ? AND name = ? AND +claim = ?
"""
# The crashes of an alarm whose claim has outlived its process.
_OUTLIVED = "coalesce(crashes + (marked IS claim), 0)"
_GIVE_BACK = f"""
UPDATE {{alarms}} SET claim = NULL, available_at = due_at, crashes = {_OUTLIVED}
WHERE claim IS NOT NULL
"""

# SQLite sorts text and blobs after all numbers, in the index as well.
_WITHOUT_TIME = "SELECT count(*) FROM {alarms} WHERE available_at >= ''"

_DUE_AS_JSON = "json_group_array(json_array(available_at, type_name, object_id, name))"
# Text as bytes, since it may not be UTF-8; other values as SQL literals, for the warning.
_DUE_AS_ROWS = "available_at, " + ", ".join(
    f"CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) ELSE quote({column}) END"
    for column in ("type_name", "object_id", "name")
)
_DUE = """
SELECT {columns} FROM (
    SELECT available_at, type_name, object_id, name FROM {alarms}
    WHERE available_at < ? AND (available_at, type_name, object_id, name) > (?, ?, ?, ?)
        AND type_name NOT IN (SELECT value FROM json_each(?))
    ORDER BY available_at, type_name, object_id, name LIMIT ?)
"""
_LIST = f"""
SELECT {{columns}} FROM (
    SELECT {_COLUMNS} FROM {{alarms}}
    WHERE type_name = ? AND object_id = ? AND available_at IS NOT NULL ORDER BY due_at, name)
"""
# Through the primary key SQLite would read all alarms of the type.
_DEAD = f"""
SELECT {{columns}} FROM (
    SELECT {_COLUMNS} FROM {{alarms}} INDEXED BY {{by_time}}
    WHERE available_at IS NULL AND type_name = ? AND (object_id, name) > (?, ?)
        AND recurrence IS NOT '{STOPPED}'
    ORDER BY object_id, name LIMIT ?)
"""
_LOAD = f"""
SELECT {_AS_ROWS}, available_at, {{status}} FROM json_each(:keys) AS k CROSS JOIN {{alarms}}
WHERE type_name = k.value ->> 0 AND object_id = k.value ->> 1 AND name = k.value ->> 2
"""
_RECURRING = f"""
SELECT {{columns}} FROM (
    SELECT {_COLUMNS} FROM {{alarms}} INDEXED BY {{recurring}}
    WHERE recurrence IS NOT NULL AND available_at IS NOT NULL AND recurrence <> '{MOVED}'
        AND type_name = ? AND name = ? AND due_at > ? AND object_id > ?
    ORDER BY object_id LIMIT ?)
"""
_STATUS = f"""
CASE WHEN available_at IS NULL THEN iif(recurrence IS '{STOPPED}', 'stopped', 'dead')
    WHEN due_at <= :now THEN 'overdue' ELSE 'pending' END
"""
_BROWSE = f"""
SELECT {_AS_ROWS}, available_at, {_STATUS} AS status FROM {{alarms}}
WHERE {{where}} AND status = coalesce(:status, status)
ORDER BY type_name, object_id, name LIMIT :limit
"""
_SUMMARIZE = f"""
SELECT type_name, count(*) FILTER (WHERE status = 'pending'),
    count(*) FILTER (WHERE status = 'overdue'), count(*) FILTER (WHERE status = 'dead')
FROM (SELECT type_name, {_STATUS} AS status FROM {{alarms}}) GROUP BY type_name
"""


@lru_cache(maxsize=256)
def _acknowledge_sql(table: str, rows: int) -> str:
    return f"""
    DELETE FROM {table} WHERE (type_name, object_id, name, claim) IN (
        SELECT column1, column2, column3, column4 FROM ({values(rows, 4)}))
    """


@lru_cache(maxsize=256)
def _set_sql(table: str, rows: int) -> str:
    return f"""
    INSERT INTO {table} (type_name, object_id, name, due_at, available_at, payload, recurrence)
    SELECT column1, column2, column3, column4, column5, column6, column7
    FROM ({values(rows, 7)}) WHERE column1 <> '{PADDING}'
    ON CONFLICT (type_name, object_id, name) DO UPDATE SET
        due_at = excluded.due_at, available_at = excluded.available_at, payload = excluded.payload,
        recurrence = excluded.recurrence,
        claim = NULL, failures = 0, last_error = NULL, crashes = NULL
    """


@lru_cache(maxsize=256)
def _claim_sql(table: str, rows: int) -> str:
    return f"""
    UPDATE {table} SET claim = ?, available_at = ?,
        crashes = CASE WHEN claim IS NULL OR available_at > ? THEN crashes ELSE {_OUTLIVED} END
    WHERE available_at <= ? AND (type_name, object_id, name) IN (
        SELECT column1, column2, column3 FROM ({values(rows, 3)}))
    """


class AlarmTable:
    """The table of one tenant, on one connection. Methods raise sqlite3's errors."""

    def __init__(self, connection: sqlite3.Connection, names: TableNames) -> None:
        self._connection = connection
        self._names = names

    # --- as part of a commit ---------------------------------------------------------------------

    def acknowledge(self, claims: Sequence[tuple[AlarmKey, int]]) -> bool:
        """Remove alarms whose claims are held.

        False if one isn't; the caller must roll back, for the others are removed.
        """
        rows = [(*key[:3], claim) for key, claim in claims]
        return self._run(_acknowledge_sql, 4, (), rows) == len(rows)

    def lost(self, claims: Sequence[tuple[int, AlarmKey, int]]) -> set[int]:
        """The numbers of the claims that aren't held, of triples (number, alarm, claim)."""
        listed = as_json([(number, *key[:3], claim) for number, key, claim in claims])
        return set(orjson.loads(self._execute(_LOST, (listed,)).fetchone()[0]))

    def clear(self, keys: Sequence[ObjectKey]) -> None:
        """Remove all alarms of these objects."""
        self._execute(_CLEAR, (as_json([(key.type_name, key.object_id) for key in keys]),))

    def cancel(self, alarms: Sequence[AlarmKey]) -> None:
        """Remove alarms."""
        self._execute(_CANCEL, (as_json([key[:3] for key in alarms]),))

    def set(self, alarms: Sequence[tuple[AlarmKey, NewAlarm]]) -> None:
        """Set alarms. Each replaces an earlier one of its name."""
        self._run(_set_sql, 7, (), [_row(key, new) for key, new in alarms])

    def set_onto(self, alarms: Sequence[tuple[AlarmKey, NewAlarm]], now: int) -> None:
        """Set alarms, as far as they may replace what is there. See `Onto`."""
        rows = [(*_row(key, new), new.onto.value) for key, new in alarms]
        self._execute(SET_ONTO, {"rows": as_json(rows), "now": now})

    # --- delivery --------------------------------------------------------------------------------

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        """See `Writer.claim`."""
        first = (claim, until, expired_by(now), now)
        if not self._run(_claim_sql, 3, first, [key[:3] for key in alarms]):
            return []
        return self._stored(_CLAIMED, (claim,))

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        """See `Writer.renew`."""
        self._execute(_RENEW, (until, as_json([(*key[:3], claim) for key, claim in claims])))

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        """See `Writer.postpone`."""
        rows = [
            (*p.key[:3], p.claim, p.available_at, p.failures, p.last_error, p.crashes)
            for p in postponements
            if p.dead_firing is None
        ]
        if rows:
            self._execute(_POSTPONE, (as_json(rows),))
        dead = [(p, p.dead_firing) for p in postponements if p.dead_firing is not None]
        if dead:
            letters = [
                (*p.key[:3], p.claim, d.name, p.failures, p.last_error, p.crashes, d.recurrence)
                for p, d in dead
            ]
            self._execute(BURY, (as_json(letters),))
            following = [(*p.key[:3], p.claim, *_row(p.key, d.next)[3:]) for p, d in dead]
            self._execute(GO_ON, (as_json(following),))

    def revive(self, alarm: AlarmKey, now: int) -> bool:
        """See `Writer.revive`."""
        return self._execute(_REVIVE, (now, *alarm[:3])).rowcount > 0

    def mark(self, alarm: AlarmKey, claim: int) -> bool:
        """See `Writer.mark`."""
        return self._execute(_MARK, (*alarm[:3], claim)).rowcount > 0

    def acquit(self, alarm: AlarmKey, claim: int) -> bool:
        """See `Writer.acquit`."""
        return self._execute(_ACQUIT, (*alarm[:3], claim)).rowcount > 0

    def give_back(self) -> None:
        """Release all claims, so that each alarm is due at its original time, and a suspect."""
        self._execute(_GIVE_BACK)

    def warn_of_alarms_without_time(self) -> None:
        """Log a warning if alarms can never become due because their time isn't a number."""
        count = self._execute(_WITHOUT_TIME).fetchone()[0]
        if count:
            logger.warning(
                "%d alarms in %s can't become due: their available_at isn't a number; repair or "
                "delete these rows",
                *(count, self._names.alarms),
            )

    # --- reading ---------------------------------------------------------------------------------

    def due(
        self, before: int, after: DueAlarm | None, limit: int, except_types: Collection[str]
    ) -> list[DueAlarm]:
        """See `Reader.due_alarms`."""
        last = (_MIN_TIME, "", "", "") if after is None else (after.available_at, *after.key[:3])
        parameters = (before, *last, as_json(list(except_types)))
        try:
            listed = self._execute(_DUE, (*parameters, limit), columns=_DUE_AS_JSON)
            rows: Iterable[Any] = orjson.loads(listed.fetchone()[0])
            if not all(map(_is_due_row, rows)):
                raise ValueError
        except (sqlite3.OperationalError, ValueError):
            # A row is corrupt. The other alarms must be delivered all the same.
            found = self._execute(_DUE, (*parameters, -1), columns=_DUE_AS_ROWS)
            rows = islice(self._without_corrupt(found), limit)
        tenant = self._names.tenant
        return [
            DueAlarm(available_at, AlarmKey(type_name, object_id, name, tenant))
            for available_at, type_name, object_id, name in rows
        ]

    def _without_corrupt(self, rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
        for available_at, *key in rows:
            try:
                row = (available_at, *map(bytes.decode, key))
            except (TypeError, UnicodeDecodeError):
                row = ()
            if row and _is_due_row(row):
                yield row
            else:
                logger.warning(
                    "an alarm in %s can't be delivered: its row %s is corrupt; repair or delete it",
                    *(self._names.alarms, (available_at, *key)),
                )

    def of_object(self, key: ObjectKey) -> list[StoredAlarm]:
        """See `Reader.list_alarms`."""
        return self._stored(_LIST, (key.type_name, key.object_id))

    def load(self, keys: Sequence[AlarmKey], now: int) -> list[AlarmRow | None]:
        """See `Reader.load_alarms`."""
        parameters = {"keys": as_json([key[:3] for key in keys]), "now": now}
        found = {
            row.alarm.key: row
            for row in self._rows(self._execute(_LOAD, parameters, status=_STATUS))
        }
        return [found.get(key) for key in keys]

    def recurring(
        self, type_name: str, name: str, due_after: int, after: AlarmKey | None, limit: int
    ) -> list[StoredAlarm]:
        """See `Reader.recurring_alarms`."""
        last = "" if after is None else after.object_id
        return self._stored(_RECURRING, (type_name, name, due_after, last, limit))

    def dead(self, type_name: str, after: AlarmKey | None, limit: int) -> list[StoredAlarm]:
        """See `Reader.list_dead_letters`."""
        last = ("", "") if after is None else (after.object_id, after.name)
        return self._stored(_DEAD, (type_name, *last, limit))

    def browse(
        self,
        status: AlarmStatus | None,
        now: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
    ) -> list[AlarmRow]:
        """See `Reader.browse_alarms`."""
        # A condition on the primary key's columns, so that a page starts by an index search.
        where = "type_name = :type AND (object_id, name) > (:id, :name)"
        if type_name is None:
            where = "(type_name, object_id, name) > (:type, :id, :name)"
            type_name = after.type_name if after else ""
        parameters = {
            "status": status,
            "now": now,
            "type": type_name,
            "id": after.object_id if after else "",
            "name": after.name if after else "",
            "limit": limit,
        }
        return list(self._rows(self._execute(_BROWSE, parameters, where=where)))

    def _rows(self, found: Iterable[Sequence[Any]]) -> Iterator[AlarmRow]:
        for *columns, time, status in found:
            yield AlarmRow(self._alarm(*columns), time, status)

    def summarize(self, now: int) -> dict[str, tuple[int, int, int]]:
        """By type: the number of pending, overdue and dead alarms."""
        rows = self._execute(_SUMMARIZE, {"now": now})
        return {name: (pending, overdue, dead) for name, pending, overdue, dead in rows}

    # --- inside ----------------------------------------------------------------------------------

    def _execute(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = (), **parts: str
    ) -> sqlite3.Cursor:
        names = self._names
        sql = sql.format(
            alarms=names.alarms,
            by_time=names.alarms_by_time,
            recurring=names.alarms_recurring,
            **parts,
        )
        return self._connection.execute(sql, parameters)

    def _run(
        self,
        sql: Callable[[str, int], str],
        columns: int,
        first: tuple[object, ...],
        rows: Sequence[Sequence[object]],
    ) -> int:
        """Run a statement on ``rows``, `MAX_ROWS` at a time. Returns the number of changed rows.

        Args:
            sql: Makes the statement for a table and a number of rows.
            columns: The length of each row.
            first: Parameters before the rows.
            rows: The rows.
        """
        changed = 0
        for start in range(0, len(rows), MAX_ROWS):
            piece = rows[start : start + MAX_ROWS]
            size = padded(len(piece))
            parameters: list[object] = [*first]
            for row in piece:
                parameters += row
            parameters += [PADDING] * (columns * (size - len(piece)))
            changed += self._connection.execute(sql(self._names.alarms, size), parameters).rowcount
        return changed

    def _stored(self, sql: str, parameters: tuple[object, ...]) -> list[StoredAlarm]:
        # As one row of JSON, which takes one step but needs every payload to be UTF-8 text.
        try:
            listed = self._execute(sql, parameters, columns=_AS_JSON)
            rows: Iterable[Any] = orjson.loads(listed.fetchone()[0])
        except (sqlite3.OperationalError, orjson.JSONDecodeError):
            rows = self._execute(sql, parameters, columns=_AS_ROWS)
        return [self._alarm(*row) for row in rows]

    def _alarm(
        self,
        type_name: str,
        object_id: str,
        name: str,
        due_at: int,
        payload: str | bytes | None,
        failures: int,
        last_error: str | None,
        crashes: int | None,
        recurrence: str | None,
    ) -> StoredAlarm:
        if not isinstance(name, str):
            raise sqlite3.DataError(
                f"the name of an alarm of {ObjectKey(type_name, object_id, self._names.tenant)} is "
                f"{name!r:.40}, which isn't text; delete its row"
            )
        # Corrupt values are replaced here and refused when this alarm is used, since an error
        # would lose the other alarms of the same read.
        return StoredAlarm(
            AlarmKey(type_name, object_id, name, self._names.tenant),
            due_at if type(due_at) is int else NO_TIME,
            payload.encode() if isinstance(payload, str) else payload,
            failures if type(failures) is int and failures >= 0 else 0,
            last_error if isinstance(last_error, str) else None,
            crashes if type(crashes) is int and crashes >= 0 else None,
            recurrence if isinstance(recurrence, str) else None,
        )


def _row(key: AlarmKey, new: NewAlarm) -> tuple[str | int | None, ...]:
    """The columns of a new alarm, from the key to ``recurrence``."""
    payload = None if new.payload is None else new.payload.decode()
    return (*key[:3], new.due_at, available_from(new), payload, new.recurrence)


def _is_due_row(row: Sequence[object]) -> bool:
    available_at, *key = row
    return type(available_at) is int and all(isinstance(part, str) for part in key)
