"""How values of a storage are shown: to people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import orjson
from rich.table import Table

from ..._clock import instant
from ..._json.upgrades import SCHEMA_MEMBER
from ..._keys import AlarmKey, ObjectKey
from ...storage import AlarmRow
from ..output import add_row, listing, printable
from . import exact_json

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def at(microseconds: int) -> str:
    """An instant, to people."""
    time = _instant(microseconds)
    if time is None:
        return f"{microseconds} µs since 1970"
    return time.replace(tzinfo=None).isoformat(" ", "seconds")


def iso(microseconds: int) -> str | int:
    """An instant, to programs; as it is stored where no calendar has it."""
    time = _instant(microseconds)
    return microseconds if time is None else time.isoformat()


def _instant(microseconds: int) -> datetime | None:
    try:
        return instant(microseconds)
    except OverflowError:
        return None


def length(microseconds: int) -> str:
    """A length of time, in its largest unit."""
    seconds = abs(microseconds) // 1_000_000
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{seconds // unit:,} {name}"
    return "0 s"


def relative(microseconds: int, now: int) -> str:
    """How far from now an instant is."""
    distance = length(microseconds - now)
    return f"{distance} ago" if microseconds <= now else f"in {distance}"


def size(count: int) -> str:
    """A number of bytes."""
    if count < 1000:
        return f"{count} B"
    value = count / 1000
    for unit in ("kB", "MB", "GB"):
        if value < 999.95:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def counted(count: int, one: str) -> str:
    """So many of something."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def named(key: ObjectKey | AlarmKey) -> dict[str, object]:
    """What names an object or alarm, as JSON; a tenant only where there is one."""
    tenant = {"tenant": key.tenant} if key.tenant else {}
    name = {"name": key.name} if isinstance(key, AlarmKey) else {}
    return {**tenant, "type": key.type_name, "id": key.object_id, **name}


def embedded(name: str, data: bytes | None) -> dict[str, object]:
    """A member with JSON as it is stored; ``name_text``, should it be something else."""
    if data is None:
        return {name: None}
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return {f"{name}_text": data.decode(errors="replace")}
    return {name: orjson.Fragment(data)}


def schema_of(state: bytes) -> object:
    """The schema that a state says it has; None if it isn't a JSON object."""
    try:
        data = orjson.loads(state)
    except orjson.JSONDecodeError:
        return None
    return data.get(SCHEMA_MEMBER, 1) if isinstance(data, dict) else None


def pretty(state: bytes) -> str:
    """A state to read, and to edit: as JSON if it is that, else as it is."""
    try:
        data = exact_json.parse(state.decode())
    except ValueError:
        return state.decode(errors="replace")
    return orjson.dumps(data, option=orjson.OPT_INDENT_2).decode()


def safe_lines(text: str) -> str:
    """``text`` of several lines that does nothing to a terminal."""
    return "\n".join(printable(line) for line in text.split("\n"))


def alarm_json(row: AlarmRow) -> dict[str, object]:
    """An alarm, as JSON."""
    alarm = row.alarm
    return {
        **named(alarm.key),
        "status": row.status,
        "due_at": iso(alarm.due_at),
        "available_at": None if row.available_at is None else iso(row.available_at),
        "failures": alarm.failures,
        "last_error": alarm.last_error,
        **embedded("payload", alarm.payload),
    }


def alarm_table(rows: Iterable[AlarmRow], now: int, *, of_one: bool = False) -> Table:
    """The alarms, with the names of their objects unless they are ``of_one``."""
    whose = () if of_one else ("type", "id")
    table = listing(*whose, "alarm", "status", "due (UTC)", ">", ">failures", "last error")
    for row in rows:
        alarm = row.alarm
        status: str = row.status
        if row.available_at is not None and row.available_at > max(now, alarm.due_at):
            status += f", again {relative(row.available_at, now)}"
        add_row(
            table,
            *(() if of_one else (alarm.key.type_name, alarm.key.object_id)),
            alarm.key.name,
            status,
            at(alarm.due_at),
            relative(alarm.due_at, now),
            alarm.failures,
            alarm.last_error or "",
        )
    return table
