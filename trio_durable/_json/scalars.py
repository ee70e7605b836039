"""Scalars: types whose values are one JSON value each; here JSON's own, and timedelta.

`texts` has the types that are written as text.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from .errors import Unfit, expected
from .forms import NOTHING, Form, Places, Taken


class Scalar(Form):
    """The form of a type whose values are one JSON value each.

    Args:
        name: The type's name.
        types: The Python types of its values.
        write: Writes a value.
        read: Reads a value.
        exact: The types whose values are their own JSON.
        is_own: The values are JSON's own.
        is_text: The values are text in JSON; exactly one value is read from a text.
    """

    __slots__ = ("is_own", "is_text")

    def __init__(
        self,
        name: str,
        types: frozenset[type],
        write: Callable[[Any, Places], Any],
        read: Callable[[Any, Taken], Any],
        *,
        exact: frozenset[type] = NOTHING,
        is_own: bool = False,
        is_text: bool = False,
    ) -> None:
        self.name = name
        self.types = types
        self.exact = exact
        self.write = write
        self.read = read
        self.is_own = is_own
        self.is_text = is_text

    def is_plain_by_itself(self) -> bool:
        """See `Form.is_plain_by_itself`."""
        return self.is_own


def _int(value: Any, _: object) -> Any:
    if type(value) is not int and type(value) is not bool:
        raise expected("int", value)
    return value


def checked_float(value: Any, _: object) -> Any:
    """``value``, if it is a finite float or an int that a float represents exactly.

    An int stays an int: ``1`` in a field of float comes back as ``1``.
    """
    if type(value) is float:
        if value - value != 0.0:
            raise Unfit(f"{value} is not a number in JSON; store None or a finite number")
    elif type(value) is not int:
        raise expected("float", value)
    elif abs(value) > 2**53:
        raise Unfit(f"{value} is an int that float can't represent exactly; declare it as int")
    return value


def _bool(value: Any, _: object) -> Any:
    if type(value) is not bool:
        raise expected("bool", value)
    return value


def _str(value: Any, _: object) -> Any:
    if type(value) is not str:
        raise expected("str", value)
    return value


def _none(value: Any, _: object) -> Any:
    if value is not None:
        raise expected("None", value)
    return value


def _own(
    name: str, check: Callable[[Any, object], Any], types: set[type], exact: set[type] | None = None
) -> Scalar:
    accepted = frozenset(types)
    return Scalar(
        name,
        accepted,
        check,
        check,
        exact=accepted if exact is None else frozenset(exact),
        is_own=True,
    )


INT = _own("int", _int, {int, bool})
FLOAT = _own("float", checked_float, {float, int}, set())
BOOL = _own("bool", _bool, {bool})
STR = _own("str", _str, {str})
NONE = _own("None", _none, {type(None)})


_MICROSECOND = timedelta(microseconds=1)


def _write_timedelta(value: Any, _: object) -> int:
    if type(value) is not timedelta:
        raise expected("timedelta", value)
    return value // _MICROSECOND


def _read_timedelta(data: Any, _: object) -> timedelta:
    if type(data) is not int:
        raise expected("timedelta (whole microseconds)", data)
    try:
        return timedelta(microseconds=data)
    except OverflowError:
        raise Unfit(f"{data} microseconds are more than a timedelta holds") from None


TIMEDELTA = Scalar("timedelta", frozenset({timedelta}), _write_timedelta, _read_timedelta)

# A new type: also `_activations/by_value.py` and docs/reference/state.md; `NAMED_TYPES` of the
# scaffold if `trio-durable new` should offer it.
OWN: dict[Any, Scalar] = {int: INT, float: FLOAT, bool: BOOL, str: STR, type(None): NONE}
"""The forms of the types that JSON has itself."""
