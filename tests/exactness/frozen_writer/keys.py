"""JSON for the keys of dicts, which are strings in JSON."""

from __future__ import annotations

from enum import Enum, Flag
from typing import Any, Literal, get_args, get_origin

from .choices import enum_hooks, literal_hooks
from .errors import Unfit, UnsupportedType, expected
from .scalars import KEY_SCALARS, SCALARS, Hook


def key_hooks(tp: Any) -> tuple[Hook, Hook]:
    """The functions that write a key of a dict as a str and read it back.

    For a key that doesn't fit, the reader raises `Unfit` or another ValueError.

    Raises:
        UnsupportedType: The type can't be written as a str exactly.
    """
    if tp is Any or tp is object:
        tp = str
    while hasattr(tp, "__supertype__"):  # NewType
        tp = tp.__supertype__
    if tp is int:
        # bool is a subclass of int, but str(True) is not a number.
        def write_int_key(value: Any) -> str:
            if type(value) is not int:
                raise expected("int", value)
            return str(value)

        return write_int_key, int
    if isinstance(tp, type) and issubclass(tp, Enum):
        write, _ = enum_hooks(tp)
        by_text = {str(member.value): member for member in tp}
        if len(by_text) != len(tp):
            raise UnsupportedType(f"two members of {tp.__qualname__} would be the same JSON key")
        if issubclass(tp, Flag):  # a combination is a value, but not a member

            def read_flag_key(text: str) -> Flag:
                try:
                    return tp(int(text))
                except ValueError as error:
                    raise Unfit(f"{text!r} is not a value of {tp.__qualname__}") from error

            return lambda value: str(write(value)), read_flag_key

        def read_enum_key(text: str) -> Enum:
            if text not in by_text:
                raise Unfit(f"{text!r} is not a value of {tp.__qualname__}")
            return by_text[text]

        return lambda value: str(write(value)), read_enum_key
    if tp in KEY_SCALARS:
        return SCALARS[tp]
    if get_origin(tp) is Literal and all(type(member) is str for member in get_args(tp)):
        return literal_hooks(tp)
    name = tp.__qualname__ if isinstance(tp, type) else tp
    scalars = ", ".join(scalar.__name__ for scalar in KEY_SCALARS)
    raise UnsupportedType(
        f"{name} can't be the key of a dict in JSON; use int, {scalars}, an enum or "
        "a Literal of str"
    )
