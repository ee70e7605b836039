"""The format of exports: lines of JSON, described in ``docs/cli.md``.

An export has a header, the objects, alarms and messages, and an end with their numbers, by which a
truncated file is detected. A state or payload is embedded as JSON if parsing that restores it byte
for byte, and as base64 otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs
import orjson

from ...storage import (
    STOPPED,
    AlarmRow,
    AlarmStatus,
    DeadMessage,
    ObjectRow,
    OnceReply,
    StoredAlarm,
    StoredMessage,
)
from ..errors import CommandError
from ..output import quantity
from ..storage.formatting import key_members
from .fields import (
    check_members,
    decode_bytes,
    decode_count,
    decode_instant,
    decode_key,
    decode_name,
    encode_bytes,
    encode_instant,
    member_forms,
)
from .message_lines import (
    decode_dead_message,
    decode_message,
    decode_once,
    encode_dead_message,
    encode_message,
    encode_once,
)

VERSION = 1
_MAIL = ("messages", "dead_messages", "once")
HEADER: dict[str, str | int] = {"trio_durable": "export", "version": VERSION}


@attrs.frozen
class EndLine:
    """The last line, with the numbers of rows."""

    objects: int = 0
    alarms: int = 0
    messages: int = 0
    dead_messages: int = 0
    once: int = 0

    def __add__(self, other: EndLine) -> EndLine:
        """The sum of the numbers."""
        mine, theirs = attrs.astuple(self), attrs.astuple(other)
        return EndLine(*(one + another for one, another in zip(mine, theirs, strict=True)))

    def __sub__(self, other: EndLine) -> EndLine:
        """The difference of the numbers."""
        mine, theirs = attrs.astuple(self), attrs.astuple(other)
        return EndLine(*(one - another for one, another in zip(mine, theirs, strict=True)))

    @property
    def mail(self) -> int:
        """The number of rows of messages, dead letters among them, and once-keys."""
        return self.messages + self.dead_messages + self.once


def count_text(count: EndLine) -> str:
    """The numbers of rows, for people; those of messages if there are any."""
    parts = [quantity(count.objects, "object"), quantity(count.alarms, "alarm")]
    if count.messages:
        parts.append(quantity(count.messages, "message"))
    if count.dead_messages:
        parts.append(quantity(count.dead_messages, "dead message"))
    if count.once:
        parts.append(quantity(count.once, "once-key"))
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


Row = ObjectRow | AlarmRow | StoredMessage | DeadMessage | OnceReply
Line = Row | EndLine


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
        end = {"kind": "end", "objects": line.objects, "alarms": line.alarms}
        # Left out where there are none, so that releases without messages can read it.
        mail = {name: getattr(line, name) for name in _MAIL if getattr(line, name)}
        return _encode({**end, **mail})
    if isinstance(line, StoredMessage):
        return _encode({"kind": "message", **encode_message(line)})
    if isinstance(line, DeadMessage):
        return _encode({"kind": "dead_message", **encode_dead_message(line)})
    if isinstance(line, OnceReply):
        return _encode({"kind": "once", **encode_once(line)})
    if isinstance(line, ObjectRow):
        return _encode(
            {
                "kind": "object",
                **key_members(line.key),
                "revision": line.revision,
                "updated_at": encode_instant(line.key, line.updated_at),
                **encode_bytes("state", line.state, dict),
            }
        )
    alarm = line.alarm
    again = line.available_at
    return _encode(
        {
            "kind": "alarm",
            **key_members(alarm.key),
            "due_at": encode_instant(alarm.key, alarm.due_at),
            "available_at": None if again is None else encode_instant(alarm.key, again),
            "failures": alarm.failures,
            "last_error": alarm.last_error,
            **({} if alarm.crashes is None else {"crashes": alarm.crashes}),
            **({} if alarm.recurrence is None else {"recurrence": alarm.recurrence}),
            **({} if alarm.payload is None else encode_bytes("payload", alarm.payload, object)),
        }
    )


def _encode(data: dict[str, Any]) -> bytes:
    return orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE)


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
    check_members(data, HEADER.keys())
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
    check_members(data, {"kind", "objects", "alarms"}, _MAIL)
    mail = {name: decode_count(data, name) for name in _MAIL if name in data}
    return EndLine(decode_count(data, "objects"), decode_count(data, "alarms"), **mail)


def _decode_object(data: dict[str, Any]) -> ObjectRow:
    state = decode_bytes(data, "state", dict)
    if state is None:
        raise ValueError("state is missing")
    check_members(
        data, {"kind", "type", "id", "revision", "updated_at"}, _OPTIONAL | member_forms("state")
    )
    return ObjectRow(
        decode_key(data),
        decode_count(data, "revision"),
        decode_instant(data, "updated_at"),
        state,
    )


def _decode_alarm(data: dict[str, Any]) -> AlarmRow:
    check_members(
        data,
        {"kind", "type", "id", "name", "due_at", "available_at", "failures", "last_error"},
        _OPTIONAL | {"crashes", "recurrence"} | member_forms("payload"),
    )
    payload = decode_bytes(data, "payload", object)
    if payload is not None:
        try:
            payload.decode()  # storages require UTF-8
        except UnicodeDecodeError:
            raise ValueError("payload_base64 is not UTF-8 text") from None
    error = data["last_error"]
    if error is not None and (not isinstance(error, str) or "\0" in error):
        raise ValueError("last_error must be null or a string without NUL")
    due_at = decode_instant(data, "due_at")
    again = None if data["available_at"] is None else decode_instant(data, "available_at")
    key = decode_key(data).alarm(decode_name(data, "name"))
    failures = decode_count(data, "failures")
    crashes = decode_count(data, "crashes") if "crashes" in data else None
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
    "dead_message": decode_dead_message,
    "message": decode_message,
    "once": decode_once,
    "end": _decode_end,
}
_OPTIONAL = {"tenant"}
