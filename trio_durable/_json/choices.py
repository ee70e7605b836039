"""Choices: enums and literals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, Flag
from typing import Any

import orjson

from .._text import short_repr
from .errors import Unfit, UnsupportedType, expected
from .forms import Form, Table, Term
from .scalars import OWN

_INT64 = range(-(2**63), 2**63)


class EnumForm(Form):
    """The form of an enum, whose members are written as their values.

    A member is read by the value and its type alone: a class's ``_missing_`` isn't asked, or a
    member that is no longer there would become another. Of a ``Flag``, every combination is read.

    Args:
        cls: The enum.
        members: The members that are accepted, if not all of them: those of a ``Literal``.

    Raises:
        UnsupportedType: A member's value isn't a str, int, bool, float, None or a tuple of these,
            or there is no member.
    """

    __slots__ = ("_by_data", "cls", "is_flag", "is_limited")

    def __init__(self, cls: type[Enum], members: Iterable[Enum] | None = None) -> None:
        self.cls = cls
        self.is_limited = members is not None
        self.is_flag = issubclass(cls, Flag) and members is None
        self.name = cls.__name__
        self.types = frozenset({cls})
        self.exact = frozenset()
        limited = None if members is None else frozenset(map(id, members))
        by_data: dict[Any, Enum] = {}
        for name, member in cls.__members__.items():
            if limited is not None and id(member) not in limited:
                continue
            value = member._value_
            if not _is_plain(value):
                raise UnsupportedType(
                    f"the value of {cls.__qualname__}.{name} is of type {type(value).__name__}; "
                    "give it a str, an int or a tuple of these"
                )
            if by_data.setdefault(_identity(value), member) is not member:
                raise UnsupportedType(
                    f"two members of {cls.__qualname__} have the value {value!r} in JSON"
                )
        if not by_data:
            raise UnsupportedType(f"{cls.__qualname__} has no members")
        self._by_data = by_data
        self.write = _enum_writer(cls, by_data, self.is_flag)
        self.read = _enum_reader(cls, by_data, self.is_flag)

    def merged(self, other: EnumForm) -> EnumForm:
        """The form of all members that this one or another of the same enum accepts."""
        if not (self.is_limited and other.is_limited):
            return other if self.is_limited else self
        return EnumForm(self.cls, [*self._by_data.values(), *other._by_data.values()])

    def choices(self) -> list[Any]:
        """The values of the members; of a Flag, those with a name."""
        return [member._value_ for member in self._by_data.values()]

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        return ["enum", self.name]


def _enum_writer(
    cls: type[Enum], by_data: dict[Any, Enum], is_flag: bool
) -> Callable[[Any, object], Any]:
    members = {id(member): member._value_ for member in by_data.values()}

    def write_enum(value: Any, _: object) -> Any:
        if type(value) is not cls:
            raise expected(cls.__qualname__, value)
        try:
            return members[id(value)]
        except KeyError:
            if not is_flag:
                raise Unfit(f"{short_repr(value)} is not one of the declared members") from None
        if value._value_ not in _INT64:
            raise Unfit(f"{short_repr(value)} exceeds 64 bits")
        return value._value_

    return write_enum


def _enum_reader(cls: Any, by_data: dict[Any, Enum], is_flag: bool) -> Callable[[Any, object], Any]:
    def read_enum(data: Any, _: object) -> Any:
        member = by_data.get(_identity(data))
        if member is not None:
            return member
        if is_flag and type(data) is int:
            try:
                member = cls(data)
            except ValueError:
                pass
            else:
                if type(member) is cls and member._value_ == data:
                    return member
        raise Unfit(f"{short_repr(data)} is not a value of {cls.__qualname__}")

    return read_enum


def _is_plain(value: object) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, value))
    if type(value) is int:
        return value in _INT64
    if type(value) is float:
        return value - value == 0.0
    return type(value) in OWN


def _identity(data: Any) -> Any:
    """A key for a value as JSON: 1, True and 1.0 differ, a tuple is its list."""
    kind = type(data)
    if kind is str:
        return data
    if kind is list or kind is tuple:
        return ("list", orjson.dumps(data))
    return (kind, data) if kind in OWN else None


class LiteralForm(Form):
    """The form of a ``Literal`` of scalars that JSON has itself.

    Args:
        members: The values.
    """

    __slots__ = ("_members",)

    def __init__(self, members: Iterable[Any]) -> None:
        self._members = members = tuple(members)
        self.name = f"one of {', '.join(map(repr, members))}"
        self.types = frozenset(map(type, members))
        self.exact = frozenset()
        accepted = {(type(member), member) for member in members}

        def check(value: Any, _: object) -> Any:
            if type(value) not in OWN or (type(value), value) not in accepted:
                raise Unfit(f"{short_repr(value)} is not {self.name}")
            return value

        self.write = self.read = check

    def choices(self) -> list[Any]:
        """The values."""
        return list(self._members)

    def is_plain_by_itself(self) -> bool:
        """See `Form.is_plain_by_itself`."""
        return True
