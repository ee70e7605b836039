"""JSON for scalars: for each type, a function that writes a value and one that reads it.

The functions are strict: a value of another type, or one that JSON would change, raises `Unfit`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from .errors import Unfit, expected
from .text import short_repr

Hook = Callable[[Any], Any]
"""Writes a value as JSON data, or reads it back; raises `Unfit` for a value that doesn't fit."""
HooksFor = Callable[[Any], tuple[Hook, Hook]]
"""The look-up of the functions that write and read the values of a type."""


def _checked_int(value: Any) -> Any:
    if type(value) is not int and type(value) is not bool:
        raise expected("int", value)
    return value


def write_float(value: Any) -> Any:
    """Write a float, or an int that a float can represent exactly, which stays an int."""
    if type(value) is float:
        if value - value != 0.0:
            raise Unfit(f"{value} is not a number in JSON; store None or a finite number")
    elif type(value) is not int or abs(value) > 2**53:
        raise expected("float", value)
    return value


def _checked_bool(value: Any) -> Any:
    if type(value) is not bool:
        raise expected("bool", value)
    return value


def _checked_str(value: Any) -> Any:
    if type(value) is not str:
        raise expected("str", value)
    return value


def _checked_none(value: Any) -> Any:
    if value is not None:
        raise expected("None", value)
    return value


def _read_float(value: Any) -> Any:
    if type(value) is not float and type(value) is not int:
        raise expected("float", value)
    return value


def _write_bytes(value: Any) -> str:
    if type(value) is not bytes:
        raise expected("bytes", value)
    return base64.b64encode(value).decode()


def _read_bytes(value: Any) -> bytes:
    text = _checked_str(value)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Unfit(f"{short_repr(value)} is not bytes in base64") from error


def _write_datetime(value: Any) -> str:
    if type(value) is not datetime:
        raise expected("datetime", value)
    _check_clock_fields(value)
    return value.isoformat()


def _check_clock_fields(value: datetime | time) -> None:
    zone = value.tzinfo
    if zone is not None:
        if type(zone) is not timezone:
            raise Unfit(
                f"{short_repr(value)} has the time zone {zone}, of which JSON would keep "
                "the offset only; store .astimezone(UTC), and the zone's name in a field of "
                "its own if you need it"
            )
        offset = zone.utcoffset(None)
        if offset.microseconds or zone.tzname(None) != timezone(offset).tzname(None):
            raise Unfit(
                f"{short_repr(value)} has a named offset, or one with a fraction of a second, "
                "which JSON would lose; store .astimezone(UTC)"
            )
    if value.fold:
        raise Unfit(f"{short_repr(value)} has fold=1, which JSON would lose; store it in UTC")


def _write_date(value: Any) -> str:
    if type(value) is not date:
        raise expected("date", value)
    return value.isoformat()


def _write_time(value: Any) -> str:
    if type(value) is not time:
        raise expected("time", value)
    _check_clock_fields(value)
    return value.isoformat()


_MICROSECOND = timedelta(microseconds=1)


def _write_timedelta(value: Any) -> int:
    if type(value) is not timedelta:
        raise expected("timedelta", value)
    return value // _MICROSECOND


def _read_timedelta(value: Any) -> timedelta:
    if type(value) is not int:
        raise expected("timedelta (whole microseconds)", value)
    return timedelta(microseconds=value)  # any int of 64 bits fits


def _write_decimal(value: Any) -> str:
    if type(value) is not Decimal:
        raise expected("Decimal", value)
    if not value.is_finite():
        raise Unfit(f"{value} is not a finite Decimal")
    return str(value)


def _write_uuid(value: Any) -> str:
    if type(value) is not UUID:
        raise expected("UUID", value)
    return str(value)


def _reader(parse: Callable[[str], Any], noun: str) -> Hook:
    """A hook that reads a value from a str with ``parse``; ``noun`` names the value in errors."""

    def read(value: Any) -> Any:
        if type(value) is not str:
            raise expected("str", value)
        try:
            return parse(value)
        except (ValueError, ArithmeticError) as error:
            raise Unfit(f"{short_repr(value)} is not {noun}") from error

    return read


# A new type: also `_activations/by_value.py` and docs/guide/state.md;
# `KEY_SCALARS` if it may be a key;
# `NAMED_TYPES` of the scaffold if `trio-durable new` should offer it.
SCALARS: dict[Any, tuple[Hook, Hook]] = {
    int: (_checked_int, _checked_int),
    float: (write_float, _read_float),
    bool: (_checked_bool, _checked_bool),
    str: (_checked_str, _checked_str),
    type(None): (_checked_none, _checked_none),
    bytes: (_write_bytes, _read_bytes),
    datetime: (_write_datetime, _reader(datetime.fromisoformat, "a datetime")),
    date: (_write_date, _reader(date.fromisoformat, "a date")),
    time: (_write_time, _reader(time.fromisoformat, "a time")),
    timedelta: (_write_timedelta, _read_timedelta),
    Decimal: (_write_decimal, _reader(Decimal, "a Decimal")),
    UUID: (_write_uuid, _reader(UUID, "a UUID")),
}
"""For each type that is written as one JSON value, the hooks that write it and read it back."""

KEY_SCALARS = (str, UUID, date, datetime, Decimal)
"""Scalars that may be keys of a dict. They are written as strings, as all keys are in JSON."""

JSON_SCALARS = (int, float, bool, str, type(None))
"""Types that JSON has itself, which need no tag in a union."""
