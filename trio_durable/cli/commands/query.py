"""``trio-durable query``."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import orjson

from ...storage import SQLiteStorage, StorageFault
from ...storage._query import QueryResult
from ...storage.sqlite._query import run_query as run_on_sqlite
from ..errors import CommandError
from ..options import output_option, seconds_option, storage_argument
from ..output import Output, add_row, cell, console, literal_table, print_rows
from ..storage.open import open_reader, resolve_storage

_LIMIT = 1000


@click.command()
@storage_argument
@click.argument("sql", metavar="SQL")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=_LIMIT,
    show_default=True,
    help="Print at most so many rows.",
)
@seconds_option("--timeout", default=10.0, help="How long the query may run.")
@output_option(json_is="jsonl")
def query(storage: str, sql: str, limit: int, timeout: float, output: Output) -> None:
    """Run one SELECT on a storage, which can't change anything.

    SQL is the statement; - reads it from standard input. The view durable_objects_v1
    has the stored objects, with the columns type, id, revision, updated_at
    (microseconds since 1970 UTC) and state (JSON). The app may run meanwhile.

    On PostgreSQL, functions may do what the role of the URL may do: use one that
    can only read the view.

    \b
    Examples:
      trio-durable query app.db "SELECT type, count(*) FROM durable_objects_v1 GROUP BY 1"
      trio-durable query app.db "SELECT id FROM durable_objects_v1
          WHERE type = 'Cart' AND state ->> 'total' > 100" -o csv
    """
    if sql == "-":
        sql = sys.stdin.read()
    try:
        found = _run(storage, sql, limit, timeout)
    except StorageFault as fault:
        raise CommandError(f"the query was refused: {fault}") from fault
    names = _distinct(found.columns)
    rows = ({n: _plain(v) for n, v in zip(names, row, strict=True)} for row in found.rows)
    if output != "table":
        print_rows(output, names, rows)
    elif found.rows:
        table = literal_table(names)
        for row in rows:
            add_row(table, *map(cell, row.values()))
        console().print(table)
    else:
        click.echo("No rows match.", err=True)
    if not found.is_whole:
        click.echo("There are more rows: raise --limit, or narrow the query.", err=True)


def _run(where: str, sql: str, limit: int, timeout: float) -> QueryResult:
    store = resolve_storage(where, option="STORAGE")
    if isinstance(store, SQLiteStorage):
        with open_reader(store):  # that it is there, and one of ours
            pass
        return run_on_sqlite(Path(store.location), sql, limit, timeout)
    from ...storage.postgres import PostgresStorage  # here, since psycopg is an extra
    from ...storage.postgres._query import run_query as run_on_postgres

    if not isinstance(store, PostgresStorage):
        raise CommandError(f"STORAGE: {store.location} isn't a database of SQL")
    return run_on_postgres(store.connection_string, sql, limit, timeout)


def _distinct(columns: Sequence[str]) -> list[str]:
    """Names of columns, of which none is there twice: ``id`` and ``id_2``."""
    seen, names = Counter[str](), list[str]()
    for name in columns:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def _plain(value: Any) -> Any:
    """A value of a database as one of JSON. Numbers of any size stay exact."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return orjson.Fragment(str(value).encode())
        case Decimal() if value.is_finite():
            return orjson.Fragment(str(value).encode())
        case float() if math.isfinite(value):
            return value
        case bytes():
            return f"\\x{value.hex()}"
        case list() | dict():
            return orjson.Fragment(json.dumps(value, default=str).encode())
        case date() | time():
            return value.isoformat()
    return str(value)
