"""The format of exports: lines of JSON, described in ``docs/cli.md``.

An export has a header, the objects and alarms, and an end with their numbers, by which a truncated
file is detected. A state or payload is embedded as JSON if parsing that restores it byte for byte,
and as base64 otherwise.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import orjson

from ..._clock import EARLIEST, LATEST, instant
from ..._keys import AlarmKey, ObjectKey, id_problem, tenant_problem
from ...storage import STOPPED, AlarmRow, AlarmStatus, ObjectRow, StoredAlarm
from ..errors import CommandError
from ..storage.formatting import key_members

VERSION = 1
HEADER = {"trio_durable": "export", "version": VERSION}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_COUNT = 2**63 - 1


@attrs.frozen
class EndLine:
    """The last line, with the numbers of objects and alarms."""

    objects: int
    alarms: int


Line = ObjectRow | AlarmRow | EndLine


# --- writing -------------------------------------------------------------------------------------


def encode_header() -> bytes:
    """Encode the first line."""
    return _encode(HEADER)


def encode_line(line: Line) -> bytes:
    """Encode a line after the first.

    Raises:
        CommandError: An instant is outside the years 1 to 9999.
    """
    if isinstance(line, EndLine):
        return _encode({"kind": "end", "objects": line.objects, "alarms": line.alarms})
    if isinstance(line, ObjectRow):
        return _encode(
            {
                "kind": "object",
                **key_members(line.key),
                "revision": line.revision,
                "updated_at": _encode_instant(line.key, line.updated_at),
                **_encode_bytes("state", line.state, dict),
            }
        )
    alarm = line.alarm
    again = line.available_at
    return _encode(
        {
            "kind": "alarm",
            **key_members(alarm.key),
            "due_at": _encode_instant(alarm.key, alarm.due_at),
            "available_at": None if again is None else _encode_instant(alarm.key, again),
            "failures": alarm.failures,
            "last_error": alarm.last_error,
            **({} if alarm.crashes is None else {"crashes": alarm.crashes}),
            **({} if alarm.recurrence is None else {"recurrence": alarm.recurrence}),
            **({} if alarm.payload is None else _encode_bytes("payload", alarm.payload, object)),
        }
    )


def _encode(data: dict[str, Any]) -> bytes:
    return orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE)


def _encode_instant(key: ObjectKey | AlarmKey, microseconds: int) -> str:
    try:
        return instant(microseconds).isoformat()
    except OverflowError:
        raise unrepresentable_instant(key) from None


def unrepresentable_instant(key: ObjectKey | AlarmKey) -> CommandError:
    """The error for an object or alarm with an instant that can't be exported or copied."""
    return CommandError(
        f"{key} has a time outside the years 1 to 9999; set or save it again, or remove it"
    )


def _encode_bytes(name: str, data: bytes, kind: type) -> dict[str, object]:
    try:
        value = orjson.loads(data)
        if isinstance(value, kind) and orjson.dumps(value) == data:
            return {name: orjson.Fragment(data)}
    except ValueError:
        pass
    return {f"{name}_base64": base64.b64encode(data).decode()}


# --- reading -------------------------------------------------------------------------------------


def is_header(data: object) -> bool:
    """True if ``data`` is the header of an export in this version of the format.

    Raises:
        CommandError: It is the header of another version.
        ValueError: It has an unknown member.
    """
    if not isinstance(data, dict) or data.get("trio_durable") != "export":
        return False
    version = data.get("version")
    if type(version) is not int or version != VERSION:
        raise CommandError(
            f"the export has version {version!r:.20}, and this release reads version {VERSION}; "
            "import it with the release that wrote it, or a later one"
        )
    _check_members(data, HEADER.keys())
    return True


def decode_line(data: object) -> Line:
    """Decode the JSON of a line after the first.

    Raises:
        ValueError: The line is invalid; the message says why.
    """
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    kind = data.get("kind")
    read = _DECODERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise ValueError(f"kind is {kind!r:.40}, not one of {', '.join(_DECODERS)}")
    return read(data)


def _decode_end(data: dict[str, Any]) -> EndLine:
    _check_members(data, {"kind", "objects", "alarms"})
    return EndLine(_decode_count(data, "objects"), _decode_count(data, "alarms"))


def _decode_object(data: dict[str, Any]) -> ObjectRow:
    state = _decode_bytes(data, "state", dict)
    if state is None:
        raise ValueError("state is missing")
    _check_members(
        data, {"kind", "type", "id", "revision", "updated_at"}, _OPTIONAL | _member_forms("state")
    )
    return ObjectRow(
        _decode_key(data),
        _decode_count(data, "revision"),
        _decode_instant(data, "updated_at"),
        state,
    )


def _decode_alarm(data: dict[str, Any]) -> AlarmRow:
    _check_members(
        data,
        {"kind", "type", "id", "name", "due_at", "available_at", "failures", "last_error"},
        _OPTIONAL | {"crashes", "recurrence"} | _member_forms("payload"),
    )
    payload = _decode_bytes(data, "payload", object)
    if payload is not None:
        try:
            payload.decode()  # storages require UTF-8
        except UnicodeDecodeError:
            raise ValueError("payload_base64 is not UTF-8 text") from None
    error = data["last_error"]
    if error is not None and (not isinstance(error, str) or "\0" in error):
        raise ValueError("last_error must be null or a string without NUL")
    due_at = _decode_instant(data, "due_at")
    again = None if data["available_at"] is None else _decode_instant(data, "available_at")
    key = _decode_key(data).alarm(_decode_name(data, "name"))
    failures = _decode_count(data, "failures")
    crashes = _decode_count(data, "crashes") if "crashes" in data else None
    recurrence = _decode_recurrence(data)
    alarm = StoredAlarm(key, due_at, payload, failures, error, crashes, recurrence)
    status: AlarmStatus = "pending"
    if again is None:
        status = "stopped" if recurrence == STOPPED else "dead"
    return AlarmRow(alarm, again, status)


def _decode_recurrence(data: dict[str, Any]) -> str | None:
    recurrence = data.get("recurrence")
    if recurrence is not None and (
        not isinstance(recurrence, str) or not re.fullmatch("[ -~]{1,64}", recurrence)
    ):
        raise ValueError("recurrence must be a string of 1 to 64 characters of ASCII")
    return recurrence


_DECODERS: dict[str, Callable[[dict[str, Any]], Line]] = {
    "object": _decode_object,
    "alarm": _decode_alarm,
    "end": _decode_end,
}
_OPTIONAL = {"tenant"}


def _member_forms(name: str) -> set[str]:
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


def _decode_key(data: dict[str, Any]) -> ObjectKey:
    tenant = data.get("tenant", "")
    problem = tenant_problem(tenant) if "tenant" in data else None
    if problem is not None:
        raise ValueError(f"tenant can't be {tenant!r:.40}: {problem}")
    return ObjectKey(_decode_name(data, "type"), _decode_name(data, "id"), tenant)


def _decode_name(data: dict[str, Any], member: str) -> str:
    name = data[member]
    problem = id_problem(name)
    if problem is not None:
        raise ValueError(f"{member} can't be {name!r:.40}: {problem}")
    return str(name)


def _decode_count(data: dict[str, Any], member: str) -> int:
    count = data[member]
    if type(count) is not int or not 0 <= count <= _MAX_COUNT:
        raise ValueError(f"{member} is {count!r:.40}, not a number from 0 to 2**63 - 1")
    return count


def _decode_instant(data: dict[str, Any], member: str) -> int:
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


def _decode_bytes(data: dict[str, Any], member: str, kind: type) -> bytes | None:
    encoded = f"{member}_base64"
    if encoded in data:
        if member in data:
            raise ValueError(f"it has both {member} and {encoded}")
        try:
            return base64.b64decode(data[encoded], validate=True)
        except (TypeError, ValueError):
            raise ValueError(f"{encoded} is not base64") from None
    if member not in data:
        return None
    if not isinstance(data[member], kind):
        raise ValueError(f"{member} is not a JSON object")
    return orjson.dumps(data[member])
