"""Texts: types whose values are written as text, from which exactly one value is read.

The text is canonical: from data that another declaration wrote, a reader takes only the text that
the writer would write.

A zoned time is written as its wall time, with the zone's key and the fold as suffixes, as in
RFC 9557: ``2026-10-25T02:30:00[Europe/Berlin][fold=1]``. It has no offset, which a later release
of the time zone database may change. An offset of pydantic, which is of a class of its own, has the
suffix ``[pydantic]``.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from .._text import short_repr
from .errors import Unfit, expected
from .scalars import OWN, TIMEDELTA, Scalar


def text_form(
    kind: type,
    noun: str,
    write: Callable[[Any], str],
    parse: Callable[[str], Any],
    name: str,
) -> Scalar:
    """The form of a type that is written as text.

    Args:
        kind: The type of its values.
        noun: A noun for its values in errors.
        write: Writes a value of the type.
        parse: Reads a value from text.
        name: The type's name.
    """

    def write_text(value: Any, _: object) -> str:
        if type(value) is not kind:
            raise expected(name, value)
        return write(value)

    def read_text(data: Any, _: object) -> Any:
        if type(data) is not str:
            raise expected("str", data)
        try:
            return parse(data)
        except Unfit:
            raise
        except (ValueError, ArithmeticError) as error:
            raise Unfit(f"{short_repr(data)} is not {noun}") from error

    return Scalar(name, frozenset({kind}), write_text, read_text, is_text=True)


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


# --- dates and times -----------------------------------------------------------------------------


_PYDANTIC = "pydantic"
"""The suffix of an offset that pydantic has parsed."""


def _write_clock(value: datetime | time) -> str:
    zone = value.tzinfo
    if zone is None or type(zone) is timezone:
        if zone is not None and zone is not UTC:
            _check_offset(value, zone)
        text = value.isoformat()
    elif type(zone) is ZoneInfo and zone.key is not None:
        text = f"{value.replace(tzinfo=None).isoformat()}[{zone.key}]"
    elif type(zone) is getattr(sys.modules.get("pydantic_core"), "TzInfo", None):
        text = f"{value.isoformat()}[{_PYDANTIC}]"
    else:
        raise Unfit(
            f"{short_repr(value)} has the time zone {short_repr(zone)}, of which JSON would keep "
            "the offset only; use a zoneinfo.ZoneInfo with a key, or store .astimezone(UTC)"
        )
    return f"{text}[fold=1]" if value.fold else text


def _check_offset(value: datetime | time, zone: timezone) -> None:
    offset = zone.utcoffset(None)
    if offset.microseconds or zone.tzname(None) != timezone(offset).tzname(None):
        raise Unfit(
            f"{short_repr(value)} has a named offset, or one with a fraction of a second, which "
            "JSON would lose; store .astimezone(UTC)"
        )


def _clock_parser(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse_with_suffixes(text: str) -> Any:
        if text[-1:] != "]":
            return parse(text)
        text, _, suffixes = text[:-1].partition("[")
        value = parse(text)
        for suffix in suffixes.split("]["):
            if suffix == "fold=1":
                value = value.replace(fold=1)
            elif suffix == _PYDANTIC and value.tzinfo is not None:
                value = value.replace(tzinfo=_offset_of_pydantic(value.utcoffset()))
            elif value.tzinfo is None and "=" not in suffix:
                value = value.replace(tzinfo=_zone(suffix))
            else:
                raise ValueError(suffix)
        return value

    return parse_with_suffixes


def _offset_of_pydantic(offset: timedelta) -> Any:
    try:
        from pydantic_core import TzInfo
    except ImportError as error:
        raise Unfit("the offset is one of pydantic, which isn't installed") from error
    return TzInfo(offset // timedelta(seconds=1))


def _zone(key: str) -> ZoneInfo:
    try:
        return ZoneInfo(key)
    except (OSError, KeyError, ValueError) as error:
        raise Unfit(
            f"the time zone {short_repr(key)} is unknown here; install the package tzdata"
        ) from error


def _write_zone(value: ZoneInfo) -> str:
    if value.key is None:
        raise Unfit(f"{short_repr(value)} has no key, by which it could be read again")
    return value.key


# --- numbers -------------------------------------------------------------------------------------


def _write_decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise Unfit(f"{value} is not a finite Decimal")
    return str(value)


def _read_decimal(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite():
        raise ValueError(text)
    return value


def _write_big_int(value: int) -> str:
    try:
        return str(value)
    except ValueError as error:  # sys.set_int_max_str_digits
        raise Unfit(f"the int has too many digits: {error}") from None


class AsText:
    """Mark of an annotation whose values are written as text: ``Annotated[int, AsText()]``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "AsText()"


BigInt = Annotated[int, AsText()]
"""An int of any size as a field's type. It is written as text, since JSON's numbers end at 64
bits."""

BIG_INT = text_form(int, "an int", _write_big_int, int, "BigInt")


# --- all of them ---------------------------------------------------------------------------------


def _by_str(kind: type, noun: str) -> Scalar:
    return text_form(kind, noun, str, kind, kind.__name__)


def _paths() -> dict[Any, Scalar]:
    native, pure = type(Path()), type(PurePath())
    kinds: dict[Any, type] = {
        Path: native,
        PurePath: pure,
        PurePosixPath: PurePosixPath,
        PureWindowsPath: PureWindowsPath,
        (PosixPath if native is PosixPath else WindowsPath): native,
    }
    return {
        annotation: text_form(kind, "a path", str, kind, annotation.__name__)
        for annotation, kind in kinds.items()
    }


TEXTS: dict[Any, Scalar] = {
    bytes: text_form(bytes, "bytes in base64", _write_bytes, _read_bytes, "bytes"),
    datetime: text_form(
        datetime, "a datetime", _write_clock, _clock_parser(datetime.fromisoformat), "datetime"
    ),
    date: text_form(date, "a date", date.isoformat, date.fromisoformat, "date"),
    time: text_form(time, "a time", _write_clock, _clock_parser(time.fromisoformat), "time"),
    ZoneInfo: text_form(ZoneInfo, "a time zone", _write_zone, _zone, "ZoneInfo"),
    Decimal: text_form(Decimal, "a Decimal", _write_decimal, _read_decimal, "Decimal"),
    UUID: _by_str(UUID, "a UUID"),
    **{
        kind: _by_str(kind, f"an {kind.__name__}")
        for kind in (
            IPv4Address,
            IPv6Address,
            IPv4Network,
            IPv6Network,
            IPv4Interface,
            IPv6Interface,
        )
    },
    **_paths(),
}
"""The form of each type that is written as text, by the annotation."""
BYTES = TEXTS[bytes]
SCALAR_TYPES = frozenset[type]().union(
    *(form.types for form in (*OWN.values(), TIMEDELTA, *TEXTS.values()))
)
"""The types of all scalars' values. None of them can change."""
