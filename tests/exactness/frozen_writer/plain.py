"""Plain JSON: values of fields whose type is Any or object."""

from __future__ import annotations

from typing import Any

from .errors import Unfit
from .scalars import write_float
from .text import short_repr


def write_json(value: Any) -> Any:
    """Check that ``value`` is plain JSON, and return it unchanged.

    Raises:
        Unfit: A part of it is not None, bool, int, a finite float, str, list or a dict with keys
            of str.
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
        f"{short_repr(value)} is of type {kind.__name__}, which isn't plain JSON; declare its "
        "type, or use an attrs class"
    )


def read_json(value: Any) -> Any:
    """``value`` unchanged: plain JSON is read as it is."""
    return value
