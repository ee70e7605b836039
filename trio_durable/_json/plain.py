"""Plain JSON: values whose declared type says no more than that."""

from __future__ import annotations

from typing import Any

from .._text import short_repr
from .errors import Unfit
from .scalars import write_float


def write_json(value: Any) -> Any:
    """Pass plain JSON data on as it is.

    Raises:
        Unfit: Something in it is not None, bool, int, a finite float, str, list or dict with
            keys of str.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return write_float(value)
    try:
        if kind is list:
            for index, item in enumerate(value):
                if type(item) is not str:
                    try:
                        write_json(item)
                    except Unfit as unfit:
                        raise unfit.within(f"[{index}]") from None
            return value
        if kind is dict:
            for key, item in value.items():
                if type(key) is not str:
                    raise Unfit(f"the key {short_repr(key)} is not a str; declare the dict's types")
                try:
                    write_json(item)
                except Unfit as unfit:
                    raise unfit.within(f"[{key!r}]") from None
            return value
    except RecursionError:
        raise Unfit("it is nested too deeply, or contains itself") from None
    raise Unfit(
        f"{short_repr(value)} is of type {kind.__name__}, which plain JSON doesn't have; "
        "declare the field's type"
    )


def read_json(value: Any) -> Any:
    """Take back a value of a field whose type says nothing: it is as JSON has it."""
    return value
