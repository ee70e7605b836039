"""The format of exports: lines of JSON, as ``docs/cli.md`` describes them.

A header, the objects and alarms, and an end that says how many there were, without which a file
that was cut off would look whole. States and payloads are embedded as JSON if they come back from
that byte for byte, else as base64.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import orjson

from ..._clock import EARLIEST, LATEST, instant
from ..._keys import AlarmKey, ObjectKey, id_problem, tenant_problem
from ...storage import AlarmRow, ObjectRow, StoredAlarm
from ..errors import Refusal
from ..storage.formatting import named

VERSION = 1
HEADER = {"trio_durable": "export", "version": VERSION}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_COUNT = 2**63 - 1


@attrs.frozen
class End:
    """The last line."""

    objects: int
    alarms: int


Line = ObjectRow | AlarmRow | End


# --- writing -------------------------------------------------------------------------------------


def header() -> bytes:
    """The first line."""
    return _line(HEADER)


def encode(line: Line) -> bytes:
    """A line.

    Raises:
        Refusal: It has an instant that no calendar has.
    """
    if isinstance(line, End):
        return _line({"kind": "end", "objects": line.objects, "alarms": line.alarms})
    if isinstance(line, ObjectRow):
        return _line(
            {
                "kind": "object",
                **named(line.key),
                "revision": line.revision,
                "updated_at": _moment(line.key, line.updated_at),
                **_embedded("state", line.state, dict),
            }
        )
    alarm = line.alarm
    again = line.available_at
    return _line(
        {
            "kind": "alarm",
            **named(alarm.key),
            "due_at": _moment(alarm.key, alarm.due_at),
            "available_at": None if again is None else _moment(alarm.key, again),
            "failures": alarm.failures,
            "last_error": alarm.last_error,
            **({} if alarm.payload is None else _embedded("payload", alarm.payload, object)),
        }
    )


def _line(data: dict[str, Any]) -> bytes:
    return orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE)


def _moment(key: ObjectKey | AlarmKey, microseconds: int) -> str:
    try:
        return instant(microseconds).isoformat()
    except OverflowError:
        raise outside_of_calendars(key) from None


def outside_of_calendars(key: ObjectKey | AlarmKey) -> Refusal:
    """What to raise where a time of something keeps it from being carried elsewhere."""
    return Refusal(
        f"{key} has a time outside of the years 1 to 9999; set or save it anew, or remove it"
    )


def _embedded(name: str, data: bytes, kind: type) -> dict[str, object]:
    try:
        value = orjson.loads(data)
        if isinstance(value, kind) and orjson.dumps(value) == data:
            return {name: orjson.Fragment(data)}
    except ValueError:
        pass
    return {f"{name}_base64": base64.b64encode(data).decode()}


# --- reading -------------------------------------------------------------------------------------


def is_header(data: object) -> bool:
    """Whether it begins an export that this release can read.

    Raises:
        Refusal: It is of another one.
        ValueError: It has more than a header.
    """
    if not isinstance(data, dict) or data.get("trio_durable") != "export":
        return False
    version = data.get("version")
    if type(version) is not int or version != VERSION:
        raise Refusal(
            f"the export has version {version!r:.20}, and this release knows version {VERSION}; "
            "import it with the release that wrote it, or a later one"
        )
    _check_members(data, HEADER.keys())
    return True


def decode(data: object) -> Line:
    """What the JSON of a line says, the first one excepted.

    Raises:
        ValueError: It is no such line; the text says why.
    """
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    kind = data.get("kind")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise ValueError(f"kind is {kind!r:.40}, not one of {', '.join(_READERS)}")
    return read(data)


def _end(data: dict[str, Any]) -> End:
    _check_members(data, {"kind", "objects", "alarms"})
    return End(_count(data, "objects"), _count(data, "alarms"))


def _object(data: dict[str, Any]) -> ObjectRow:
    state = _bytes(data, "state", dict)
    if state is None:
        raise ValueError("state is missing")
    _check_members(
        data, {"kind", "type", "id", "revision", "updated_at"}, _OPTIONAL | _forms("state")
    )
    return ObjectRow(_key(data), _count(data, "revision"), _microseconds(data, "updated_at"), state)


def _alarm(data: dict[str, Any]) -> AlarmRow:
    _check_members(
        data,
        {"kind", "type", "id", "name", "due_at", "available_at", "failures", "last_error"},
        _OPTIONAL | _forms("payload"),
    )
    payload = _bytes(data, "payload", object)
    if payload is not None:
        try:
            payload.decode()  # as storages want it
        except UnicodeDecodeError:
            raise ValueError("payload_base64 is not UTF-8 text") from None
    error = data["last_error"]
    if error is not None and (not isinstance(error, str) or "\0" in error):
        raise ValueError("last_error is neither null nor a string without NUL")
    due_at = _microseconds(data, "due_at")
    again = None if data["available_at"] is None else _microseconds(data, "available_at")
    key = _key(data).alarm(_name(data, "name"))
    alarm = StoredAlarm(key, due_at, payload, _count(data, "failures"), error)
    return AlarmRow(alarm, again, "dead" if again is None else "pending")


_READERS: dict[str, Callable[[dict[str, Any]], Line]] = {
    "object": _object,
    "alarm": _alarm,
    "end": _end,
}
_OPTIONAL = {"tenant"}


def _forms(name: str) -> set[str]:
    return {name, f"{name}_base64"}


def _check_members(
    data: dict[str, Any], required: Collection[str], optional: Collection[str] = ()
) -> None:
    for name in required:
        if name not in data:
            raise ValueError(f"{name} is missing")
    for name in data:
        if name not in required and name not in optional:
            raise ValueError(f"{name!r:.40} is unknown here")


def _key(data: dict[str, Any]) -> ObjectKey:
    tenant = data.get("tenant", "")
    problem = tenant_problem(tenant) if "tenant" in data else None
    if problem is not None:
        raise ValueError(f"tenant can't be {tenant!r:.40}: {problem}")
    return ObjectKey(_name(data, "type"), _name(data, "id"), tenant)


def _name(data: dict[str, Any], member: str) -> str:
    name = data[member]
    problem = id_problem(name)
    if problem is not None:
        raise ValueError(f"{member} can't be {name!r:.40}: {problem}")
    return str(name)


def _count(data: dict[str, Any], member: str) -> int:
    count = data[member]
    if type(count) is not int or not 0 <= count <= _MAX_COUNT:
        raise ValueError(f"{member} is {count!r:.40}, not a number from 0 to 2**63 - 1")
    return count


def _microseconds(data: dict[str, Any], member: str) -> int:
    text = data[member]
    try:
        time = datetime.fromisoformat(text)
        microseconds = (time - _EPOCH) // timedelta(microseconds=1)
    except (TypeError, ValueError):
        microseconds = LATEST + 1
    if not EARLIEST <= microseconds <= LATEST:
        raise ValueError(
            f"{member} is {text!r:.40}, not an instant such as 2026-01-31T09:30:00+00:00"
        )
    return microseconds


def _bytes(data: dict[str, Any], member: str, kind: type) -> bytes | None:
    encoded = f"{member}_base64"
    if encoded in data:
        if member in data:
            raise ValueError(f"both {member} and {encoded} are there")
        try:
            return base64.b64decode(data[encoded], validate=True)
        except (TypeError, ValueError):
            raise ValueError(f"{encoded} is no base64") from None
    if member not in data:
        return None
    if not isinstance(data[member], kind):
        raise ValueError(f"{member} is not a JSON object")
    return orjson.dumps(data[member])
