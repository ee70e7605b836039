"""JSON for enums and literals."""

from __future__ import annotations

from enum import Enum
from typing import Any, get_args

from .errors import Unfit, UnsupportedType, as_unfit, expected
from .scalars import JSON_SCALARS, Hook
from .text import short_repr


def enum_hooks(tp: type[Enum]) -> tuple[Hook, Hook]:
    """The functions that write a member of an enum as its value and read it back.

    Raises:
        UnsupportedType: A member has a value that is neither str nor int.
    """
    for member in tp:
        if type(member.value) not in (str, int):
            raise UnsupportedType(
                f"the value of {tp.__qualname__}.{member.name} is neither str nor int; give it one"
            )

    def write(value: Any) -> Any:
        if type(value) is not tp:
            raise expected(tp.__qualname__, value)
        return value.value

    def read(value: Any) -> Any:
        if type(value) not in (str, int):
            raise expected(f"a value of {tp.__qualname__}", value)
        try:
            return tp(value)
        except Exception as error:  # _missing_ may raise anything
            raise as_unfit(error) from error

    return write, read


def literal_hooks(tp: Any) -> tuple[Hook, Hook]:
    """The functions that write a member of a ``Literal`` unchanged and read it back.

    Raises:
        UnsupportedType: A member isn't plain JSON.
    """
    members = get_args(tp)
    if any(type(member) not in JSON_SCALARS for member in members):
        raise UnsupportedType(f"{tp} has members that aren't plain JSON")

    def check(value: Any) -> Any:
        for member in members:
            if type(value) is type(member) and value == member:
                return value
        raise Unfit(f"{short_repr(value)} is not one of {', '.join(map(repr, members))}")

    return check, check
