"""Checks of the rows of an SQLite file, of all tenants, for ``trio-durable doctor``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import orjson

from .._records import Finding
from ._migrations import Schema
from ._names import TableNames

SHOWN_ROWS = 3
"""The number of rows, and of SQLite's messages, that are quoted."""


def alarms_without_time(connection: sqlite3.Connection, schema: Schema) -> Finding:
    """Alarms that no claim finds."""
    tables = []
    for names in _tables_of(schema):
        # SQLite sorts text and blobs after all numbers, in the index as well.
        sql = f"SELECT count(*) FROM {names.alarms} WHERE available_at >= ''"
        (count,) = connection.execute(sql).fetchone()
        if count:
            tables.append(f"{count} in {names.alarms}")
    if tables:
        return Finding(
            "alarms",
            "warning",
            f"alarms can't become due, because their available_at isn't a number: "
            f"{', '.join(tables)}",
            "repair or delete these rows",
        )
    return Finding("alarms", "ok", "all have a time, or are dead letters")


def marks(connection: sqlite3.Connection, schema: Schema) -> Finding:
    """Deliveries that were marked by a process that has died, since none has the file open."""
    found: list[str] = []
    for names in _tables_of(schema):
        for sql in (
            f"SELECT to_type, to_id, handler FROM {names.messages} WHERE begun <> 0",
            f"SELECT type_name, object_id, name FROM {names.alarms} WHERE marked = claim",
        ):
            found += (f"{name} of {type_}/{id_}" for type_, id_, name in connection.execute(sql))
    if found:
        more = len(found) - SHOWN_ROWS
        return Finding(
            "marks",
            "warning",
            f"a process died while it delivered {', '.join(found[:SHOWN_ROWS])}"
            + (f", and {more} more" if more > 0 else ""),
            "open a runtime, which counts the crash and delivers it alone; it is a dead letter "
            "when as many processes have died as the `crashes` of its `Retry`",
        )
    return Finding("marks", "ok", "no process died in a delivery that was watched")


def corrupt_rows(connection: sqlite3.Connection, schema: Schema) -> Finding:
    """Rows that can't be read, of all tables."""
    checked, corrupt = 0, []
    for names in _tables_of(schema):
        for table, number, json_column, key_columns in (
            (names.objects, "revision", "state", "type_name, object_id"),
            (names.alarms, "due_at", "payload", "type_name, object_id, name"),
            (names.messages, "token", "arguments", "to_type, to_id, seq"),
            (names.dead_messages, "token", "arguments", "to_type, to_id, seq"),
            (names.once, "expires_at", "reply", "type_name, object_id, key"),
        ):
            for kind, json, *key in connection.execute(
                f"SELECT typeof({number}), CAST({json_column} AS BLOB), {key_columns} FROM {table}"
            ):
                checked += 1
                is_missing = json is None and json_column in ("payload", "reply")
                if kind != "integer" or not (is_missing or _is_json(json)):
                    corrupt.append(f"{table} {' '.join(map(str, key))}")
    if corrupt:
        more = len(corrupt) - SHOWN_ROWS
        return Finding(
            "rows",
            "problem",
            f"{len(corrupt)} of {checked} rows can't be read: "
            + ", ".join(corrupt[:SHOWN_ROWS])
            + (f", and {more} more" if more > 0 else ""),
            "repair states with `trio-durable edit`, or remove the objects with `trio-durable rm`; "
            "the others are not affected",
        )
    return Finding("rows", "ok", f"all {checked} can be read")


def _tables_of(schema: Schema) -> Iterator[TableNames]:
    for tenant in ("", *schema.tenants()):
        yield TableNames(tenant)


def _is_json(value: bytes | None) -> bool:
    try:
        orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return False
    return True
