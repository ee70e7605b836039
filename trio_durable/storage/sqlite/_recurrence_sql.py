"""Statements of recurring alarms on the table of alarms in an SQLite file."""

from __future__ import annotations

from .._records import MOVED, STOPPED, Onto

# The two halves of the end of a firing of a recurring alarm: its dead letter, and the next one.
BURY = """
INSERT INTO {alarms} (
    type_name, object_id, name, due_at, payload, failures, last_error, crashes, recurrence)
SELECT type_name, object_id, k.value ->> 4, due_at, payload,
    k.value ->> 5, k.value ->> 6, k.value ->> 7, k.value ->> 8
FROM json_each(?) AS k CROSS JOIN {alarms}
WHERE type_name = k.value ->> 0 AND object_id = k.value ->> 1 AND name = k.value ->> 2
    AND +claim = k.value ->> 3
ON CONFLICT (type_name, object_id, name) DO UPDATE SET
    due_at = excluded.due_at, available_at = NULL, payload = excluded.payload, claim = NULL,
    failures = excluded.failures, last_error = excluded.last_error, crashes = excluded.crashes,
    recurrence = excluded.recurrence
"""
GO_ON = """
UPDATE {alarms} SET claim = NULL, due_at = k.value ->> 4, available_at = k.value ->> 5,
    payload = k.value ->> 6, recurrence = k.value ->> 7,
    failures = 0, last_error = NULL, crashes = NULL
FROM json_each(?) AS k
WHERE type_name = k.value ->> 0 AND object_id = k.value ->> 1 AND name = k.value ->> 2
    AND +claim = k.value ->> 3
"""
# What may not be replaced, see `Onto`, is left out before the insertion.
SET_ONTO = f"""
INSERT INTO {{alarms}} (
    type_name, object_id, name, due_at, available_at, payload, recurrence)
SELECT k.value ->> 0, k.value ->> 1, k.value ->> 2, k.value ->> 3, k.value ->> 4, k.value ->> 5,
    k.value ->> 6
FROM json_each(:rows) AS k
WHERE NOT EXISTS (
    SELECT 1 FROM {{alarms}} AS a
    WHERE a.type_name = k.value ->> 0 AND a.object_id = k.value ->> 1 AND a.name = k.value ->> 2
        AND NOT CASE
            WHEN a.recurrence IS '{STOPPED}' THEN k.value ->> 7 & {Onto.STOPPED.value}
            WHEN a.claim IS NOT NULL OR a.recurrence IS '{MOVED}' THEN 0
            WHEN a.available_at IS NULL THEN k.value ->> 7 & {Onto.OUTDATED.value}
            ELSE a.due_at > :now AND (
                (k.value ->> 7 & {Onto.OUTDATED.value} AND a.recurrence IS NOT k.value ->> 6)
                OR (k.value ->> 7 & {Onto.LATE.value} AND a.due_at > k.value ->> 3)) END)
ON CONFLICT (type_name, object_id, name) DO UPDATE SET
    due_at = excluded.due_at, available_at = excluded.available_at, payload = excluded.payload,
    recurrence = excluded.recurrence, claim = NULL, failures = 0, last_error = NULL, crashes = NULL
"""
