"""The model of state that is read under a changed type, independent of the library.

`reading` takes the type that a value was written with, the present one and the value, and returns
the values that reading may give. It knows only the table of docs/reference/state.md:

- A type that is still declared is read as that type.
- A value that is of the present type as it stands may be read as it is, whatever wrote it.
- Otherwise one of the changes in `_Change` has to apply, to one member of the present type alone.
- Any other value is refused.

A change that the table doesn't name but that loses nothing, such as that of a set to a frozenset,
may be read or refused; see `Reading.required`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

import attrs

from .annotations import (
    BIG_INT,
    PLAIN,
    SEQUENCES,
    field_value,
    holder,
    holds,
    identical,
    is_class,
    is_row,
    issubclass_of,
    item_types,
    members,
    normal,
)
from .classes import build, default_of, fields_of, is_record, required_of
from .snapshot import Snapshot, snapshot

_TEXTUAL: dict[Any, tuple[Any, Any]] = {
    Decimal: (str, Decimal),
    UUID: (str, UUID),
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    time: (time.isoformat, time.fromisoformat),
    Path: (str, Path),
    IPv4Address: (str, IPv4Address),
    BIG_INT: (str, int),
}


@attrs.frozen
class Reading:
    """The results that reading a value may have: one of ``values``, or an error."""

    values: tuple[Any, ...] = ()
    required: bool = False
    """True if it must not be refused."""

    def allows(self, value: object) -> bool:
        """True if the value may be the result."""
        return snapshot(value) in map(snapshot, self.values)

    def optional(self) -> Reading:
        """The same, or an error."""
        return Reading(self.values)


REFUSED = Reading()


def must(value: object) -> Reading:
    return Reading((value,), True)


def may(value: object) -> Reading:
    return Reading((value,))


def reading(stored: Any, now: Any, value: Any) -> Reading:
    """The results of reading a value under another type, or under the same.

    Args:
        stored: The type with which the value was written.
        now: The type under which it is read.
        value: A value of ``stored``.
    """
    source = holder(stored, value)
    targets = members(now)
    if any(identical(source, target) for target in targets):
        return must(value)
    if source is float and type(value) is int:
        source = int  # what is stored doesn't say that a field of float held it
    found = [change for target in targets if (change := _changed(source, target, value)).values]
    certain = [change for change in found if change.required]
    unchanged = Reading((value,) if holds(now, value) else ())
    if len(_distinct(certain)) > 1:
        return unchanged
    if certain:
        others = len(_distinct(found)) > 1
        values = (*certain[0].values, *unchanged.values)
        return Reading(values, not others)
    return Reading((*(result for change in found for result in change.values), *unchanged.values))


def _distinct(readings: Iterable[Reading]) -> set[Snapshot]:
    return {snapshot(value) for each in readings for value in each.values}


def _changed(source: Any, target: Any, value: Any) -> Reading:
    result = _Change(source, target, value).reading()
    if not result.values and holds(target, value) and not _is_dict_of(source, target):
        return may(value)  # it is read as it was, whatever the table says
    return result


def _is_dict_of(source: Any, target: Any) -> bool:
    return get_origin(source) is dict and get_origin(target) is dict


@attrs.frozen
class _Change:
    """One value, of the type ``source``, that is read as a ``target``."""

    source: Any
    target: Any
    value: Any

    def reading(self) -> Reading:
        source, target = (get_origin(each) or each for each in (self.source, self.target))
        if source is Any or source is object:
            return self._from_any()
        if target is Any or target is object:
            return must(self.value) if _is_plain_type(self.source) else REFUSED
        if Literal in (source, target):
            return self._literal(source, target)
        if issubclass_of(source, enum.Enum) or issubclass_of(target, enum.Enum):
            return self._enum(source, target)
        if source in PLAIN or source in _TEXTUAL or target in PLAIN or target in _TEXTUAL:
            return self._scalar(target)
        if is_row(source) or is_row(target) or {source, target} <= {*SEQUENCES, set, frozenset}:
            return self._items(source, target)
        if source is dict and target is dict:
            return self._dict()
        if (source is dict or is_record(source)) and (target is dict or is_record(target)):
            return self._record(source, target)
        return REFUSED

    def _from_any(self) -> Reading:
        kind: Any = type(self.value)
        kind = {list: list[Any], dict: dict[str, Any]}.get(kind, kind)
        if identical(kind, self.target):
            return must(self.value)
        return _Change(kind, self.target, self.value).reading().optional()

    def _literal(self, source: Any, target: Any) -> Reading:
        kind = type(self.value)
        if source is Literal and target is not Literal:
            if identical(kind, self.target):
                return must(self.value)
            return _Change(kind, self.target, self.value).reading().optional()
        value = self.value.value if issubclass_of(source, enum.Enum) else self.value
        if not holds(self.target, value):
            return REFUSED
        return must(value) if source in (Literal, str) else may(value)

    def _enum(self, source: Any, target: Any) -> Reading:
        from_enum = issubclass_of(source, enum.Enum)
        value = self.value.value if from_enum else self.value
        if not issubclass_of(target, enum.Enum):
            return must(value) if type(value) is target else REFUSED
        if not from_enum and source not in (int, str):
            return REFUSED
        for member in target:
            if type(member.value) is type(value) and member.value == value:
                known = not from_enum or source.__qualname__ == target.__qualname__
                return must(member) if known else may(member)
        if issubclass_of(target, enum.Flag) and type(value) is int:
            try:
                return may(target(value))
            except ValueError:
                return REFUSED
        return REFUSED

    def _scalar(self, target: Any) -> Reading:
        value = self.value
        if self.source is str and self.target in _TEXTUAL:
            write, read = _TEXTUAL[self.target]
            try:
                made = read(value)
                return must(made) if write(made) == value else REFUSED
            except (ValueError, ArithmeticError):
                return REFUSED
        if self.source in _TEXTUAL:
            text = _TEXTUAL[self.source][0](value)
            if target is str and getattr(getattr(value, "tzinfo", None), "key", None) is None:
                return must(text)
            return REFUSED
        if type(value) is int and self.source in (int, float) and target in (int, float):
            return must(value) if holds(target, value) else REFUSED
        if type(value) is bool and target is int:
            return must(value)
        if type(value) is int and self.target is BIG_INT:
            return may(value)
        return REFUSED

    # --- containers ------------------------------------------------------------------------------

    def _items(self, source: Any, target: Any) -> Reading:
        if not all(
            is_row(each) or each in (*SEQUENCES, set, frozenset) for each in (source, target)
        ):
            return REFUSED
        was_set = source in (set, frozenset)
        items = written_order(self.value) if was_set else list(self.value)
        if is_row(source) and is_row(target) and source.__qualname__ == target.__qualname__:
            return self._longer_row(target)
        were, are = (item_types(each, len(items)) for each in (self.source, self.target))
        if were is None or are is None:
            return REFUSED
        read = [reading(*each) for each in zip(were, are, items, strict=True)]
        if not all(each.values for each in read):
            return REFUSED
        made: Any = [each.values[0] for each in read]
        required = all(each.required for each in read)
        if target in (set, frozenset) and not was_set:
            as_set = set(made)
            if len(as_set) != len(made) or written_order(as_set) != made:
                return REFUSED
        required = required and (source, target) in _TABLE and self._has_plain_length(source)
        made = build(self.target, made) if is_row(target) else target(made)
        return Reading((made,), required)

    def _has_plain_length(self, source: Any) -> bool:
        return source is not deque or self.value.maxlen is None

    def _longer_row(self, target: Any) -> Reading:
        was, now = fields_of(self.source), fields_of(self.target)
        if list(now)[: len(was)] != list(was):
            return REFUSED
        return self._record(self.source, target)

    def _dict(self) -> Reading:
        keys_were, items_were = get_args(self.source)
        keys_are, items_are = get_args(self.target)
        made = {}
        required = True
        for key, item in self.value.items():
            new_key, certain = _changed_key(keys_were, keys_are, key)
            read = reading(items_were, items_are, item)
            if new_key is None or not read.values:
                return REFUSED
            made[new_key] = read.values[0]
            required = required and certain and read.required
        return Reading((made,), required) if len(made) == len(self.value) else REFUSED

    def _record(self, source: Any, target: Any) -> Reading:
        """A class, a TypedDict or a dict that is read as another one."""
        stored: dict[str, Any] = dict(self.value) if source is dict else _stored(self.value, source)
        were, now = _types_of(self.source, stored), _types_of(self.target, stored)
        if were is None or now is None:
            return REFUSED
        one_class = source is not dict and target is not dict
        same_name = one_class and source.__qualname__ == target.__qualname__
        if target is not dict and not same_name and not stored.keys() <= now.keys():
            return REFUSED
        made: dict[str, Any] = {}
        required = same_name or not (is_class(source) and is_class(target))
        for name, tp in now.items():
            if name in stored:
                read = reading(were[name], tp, stored[name])
                if not read.values:
                    return REFUSED
                made[name] = read.values[0]
                required = required and read.required
            elif target is not dict and name in required_of(self.target):
                return REFUSED
            elif is_class(target):
                made[name] = default_of(target, name)
        return Reading((build(self.target, made),), required)


_TABLE = {
    *((source, target) for source in SEQUENCES for target in SEQUENCES),
    (set, list),
    (list, set),
}
"""Changes of a collection's kind that must be read."""


def _changed_key(stored: Any, now: Any, key: Any) -> tuple[Any, bool]:
    """A key of a dict under another type, or None; and True if it must be read."""
    if identical(stored, now):
        return key, True
    stored, now = normal(stored), normal(now)
    if stored is str and now is int:
        try:
            return (int(key), True) if str(int(key)) == key else (None, False)
        except ValueError:
            return None, False
    if stored is int and now is str:
        return str(key), True
    read = reading(stored, now, key)
    return (read.values[0], False) if read.values else (None, False)


def _types_of(annotation: Any, names: Iterable[str]) -> Mapping[str, Any] | None:
    """The types of a record's fields, or of a dict's items by key; None for other keys than str."""
    if (get_origin(annotation) or annotation) is not dict:
        return fields_of(annotation)
    key_type, item_type = get_args(annotation)
    return dict.fromkeys(names, item_type) if key_type is str else None


def _is_plain_type(source: Any) -> bool:
    origin, arguments = get_origin(source) or source, get_args(source)
    if origin in (list, dict):
        keys_are_text = origin is list or normal(arguments[0]) is str
        return keys_are_text and all(map(_is_plain_type, members(arguments[-1])))
    return origin in (*PLAIN, type(None), Any)


def _stored(value: Any, kind: Any) -> dict[str, Any]:
    names = [name for name in fields_of(kind) if type(value) is not dict or name in value]
    return {name: field_value(value, name) for name in names}


def written_order(items: Any) -> list[Any]:
    """The items of a set as their JSON is written: sorted, so that equal sets are equal bytes."""
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=repr)
