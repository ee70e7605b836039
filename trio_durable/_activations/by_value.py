"""Passing by value: what goes into an object or comes out shares nothing mutable with its state."""

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
    """Whether ``value`` is immutable through and through and needs no copy."""
    return type(value) in _ATOMS


def copied(value: Any) -> Any:
    """``value``, or a copy that shares nothing mutable with it.

    Raises:
        TypeError: It can't be copied; the text says what it is.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    # What most calls pass, without the detour through deepcopy's dispatch.
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
