"""Members of a line of an export: instants, bytes, numbers and keys, written and read."""

from __future__ import annotations

import base64
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from ..._clock import EARLIEST, LATEST, instant
from ..._keys import AlarmKey, ObjectKey, id_problem, tenant_problem
from ..errors import CommandError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_COUNT = 2**63 - 1


def encode_instant(key: ObjectKey | AlarmKey, microseconds: int) -> str:
    """An instant as text.

    Raises:
        CommandError: It is outside the years 1 to 9999.
    """
    try:
        return instant(microseconds).isoformat()
    except OverflowError:
        raise unrepresentable_instant(key) from None


def unrepresentable_instant(key: ObjectKey | AlarmKey) -> CommandError:
    """The error for an object or alarm with an instant that can't be exported or copied."""
    return CommandError(
        f"{key} has a time outside the years 1 to 9999; set or save it again, or remove it"
    )


def encode_bytes(name: str, data: bytes, kind: type) -> dict[str, object]:
    """A member with ``data``: as JSON, if parsing that restores it byte for byte, or in base64."""
    try:
        value = orjson.loads(data)
        if isinstance(value, kind) and orjson.dumps(value) == data:
            return {name: orjson.Fragment(data)}
    except ValueError:
        pass
    return {f"{name}_base64": base64.b64encode(data).decode()}


def member_forms(name: str) -> set[str]:
    """The names that a member of bytes may have."""
    return {name, f"{name}_base64"}


def check_members(
    data: dict[str, Any], required: Collection[str], optional: Collection[str] = ()
) -> None:
    """Check the names of the members.

    Raises:
        ValueError: One is missing or unknown.
    """
    for name in required:
        if name not in data:
            raise ValueError(f"{name} is missing")
    for name in data:
        if name not in required and name not in optional:
            raise ValueError(f"{name!r:.40} is unknown here")


def decode_key(data: dict[str, Any]) -> ObjectKey:
    """The key of an object.

    Raises:
        ValueError: It is invalid.
    """
    tenant = data.get("tenant", "")
    problem = tenant_problem(tenant) if "tenant" in data else None
    if problem is not None:
        raise ValueError(f"tenant can't be {tenant!r:.40}: {problem}")
    return ObjectKey(decode_name(data, "type"), decode_name(data, "id"), tenant)


def decode_name(data: dict[str, Any], member: str) -> str:
    """A name.

    Raises:
        ValueError: It is invalid.
    """
    name = data[member]
    problem = id_problem(name)
    if problem is not None:
        raise ValueError(f"{member} can't be {name!r:.40}: {problem}")
    return str(name)


def decode_count(data: dict[str, Any], member: str) -> int:
    """A number that isn't negative.

    Raises:
        ValueError: It is invalid.
    """
    count = data[member]
    if type(count) is not int or not 0 <= count <= _MAX_COUNT:
        raise ValueError(f"{member} is {count!r:.40}, not a number from 0 to 2**63 - 1")
    return count


def decode_instant(data: dict[str, Any], member: str) -> int:
    """An instant in microseconds since 1970 UTC.

    Raises:
        ValueError: It is invalid.
    """
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


def decode_bytes(data: dict[str, Any], member: str, kind: type) -> bytes | None:
    """The bytes of a member; None if it is missing.

    Raises:
        ValueError: It is invalid.
    """
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
