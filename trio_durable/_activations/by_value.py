"""Passing by value: arguments and replies share nothing mutable with an object's state."""

from __future__ import annotations

from copy import deepcopy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import GeneratorType
from typing import Any
from uuid import UUID

_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, datetime, date, time, timedelta}
    | {Decimal, UUID, type(...)}
)


def is_atom(value: object) -> bool:
    """True if ``value`` is immutable, its parts included, and needs no copy."""
    return type(value) in _ATOMS


def copied(value: Any) -> Any:
    """``value``, or a copy that shares nothing mutable with it.

    Raises:
        TypeError: It can't be copied; the text names its type.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    # The values of most calls, without the detour through deepcopy's dispatch.
    if kind is list:
        if _ATOMS.issuperset(map(type, value)):
            return value.copy()
    elif kind is dict:
        if _ATOMS.issuperset(map(type, value)) and _ATOMS.issuperset(map(type, value.values())):
            return value.copy()
    elif kind is tuple and _ATOMS.issuperset(map(type, value)):
        return value
    elif isinstance(value, GeneratorType) or hasattr(value, "__await__"):
        raise TypeError(f"a {kind.__name__} can't be passed by value")
    try:
        return deepcopy(value)
    except RecursionError:
        raise TypeError(f"a {kind.__name__} that is nested too deeply") from None
    except Exception as error:
        raise TypeError(f"a {kind.__name__}: {error}") from error
