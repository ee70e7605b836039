"""A storage with objects and alarms, for the tests of commands."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from trio_durable import ObjectKey, SQLiteStorage
from trio_durable._keys import AlarmKey
from trio_durable.storage import AlarmChanges, Commit, NewAlarm, ObjectRow, Postponement, Writer

from .support import run

SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = time.time_ns() // 1000
LATEST = 253_402_300_799_999_999


@contextmanager
def writer_of(path: Path) -> Iterator[Writer]:
    with closing(SQLiteStorage(path, durability="normal").open_writer()) as writer:
        yield writer


def save(
    writer: Writer,
    key: ObjectKey,
    state: object = None,
    alarms: Mapping[str, tuple[int, object]] = {},
    *,
    revision: int | None = 0,
    now: int = NOW,
) -> None:
    """Store an object and alarms: ``{name: (due_at, payload)}``."""
    changed: dict[str, NewAlarm | None] = {
        name: NewAlarm(due_at, None if payload is None else encoded(payload))
        for name, (due_at, payload) in alarms.items()
    }
    commit = Commit(
        key,
        None if state is None else revision,
        None if state is None else encoded(state),
        alarms=AlarmChanges(changed=changed) if changed else None,
    )
    assert not writer.commit([commit], now)


def encoded(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def fail(
    writer: Writer,
    alarm: AlarmKey,
    available_at: int | None,
    failures: int,
    error: str | None,
    crashes: int | None = None,
) -> None:
    """Make an alarm a failed one; a dead letter if it has no time when it is due again."""
    assert writer.claim([alarm], 1, LATEST, LATEST)
    writer.postpone([Postponement(alarm, 1, available_at, failures, error, crashes)])


ADA = ObjectKey("Cart", "ada")


def fill(path: Path) -> None:
    """Two carts, one with alarms of every status, a counter, and a tenant with a cart."""
    with writer_of(path) as writer:
        save(
            writer,
            ADA,
            {"total": 3, "items": ["é"]},
            {
                "remind": (NOW + DAY, {"times": 2}),
                "overdue": (NOW - DAY, None),
                "lost": (NOW - DAY, None),
            },
        )
        save(writer, ADA, {"total": 4, "items": ["é"]}, revision=1, now=NOW - 3 * DAY)
        fail(writer, ADA.alarm("lost"), None, 5, "ValueError: [bold]no\nway[/]", 2)
        save(writer, ObjectKey("Cart", "bob"), {"total": 0, "items": []})
        save(writer, ObjectKey("Counter", "hits"), {"$schema": 2, "count": 7})
        save(writer, ObjectKey("Cart", "ada", "acme"), {"total": 9, "items": []}, {"x": (0, None)})


def everything(path: Path) -> tuple[list[ObjectRow], list[object]]:
    """All objects and alarms, of all tenants."""
    with closing(SQLiteStorage(path).open_reader()) as reader:
        names = ["", *reader.list_tenants(None, 1000)]
        objects = [row for t in names for row in reader.browse_objects(None, None, 10_000, t)]
        alarms = [
            (row.alarm, row.available_at)
            for tenant in names
            for row in reader.browse_alarms(None, NOW, None, None, 10_000, tenant)
        ]
    return objects, list[object](alarms)


def json_of(*args: str) -> Any:
    """The output of a command that prints one line of JSON."""
    [line] = lines_of(*args)
    return line


def lines_of(*args: str) -> Sequence[Any]:
    """The output of a command that prints lines of JSON."""
    result = run(*args)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]
