"""Plain JSON: values of fields whose type is Any or object."""

from __future__ import annotations

from typing import Any

from .._text import short_repr
from .errors import Unfit
from .forms import NOTHING, Form, Places
from .scalars import checked_float


class AnyForm(Form):
    """The form of Any and object."""

    __slots__ = ()

    def __init__(self) -> None:
        self.name = "Any"
        self.types = NOTHING
        self.exact = NOTHING
        self.write = write_json
        self.read = read_json

    def is_plain_by_itself(self) -> bool:
        """See `Form.is_plain_by_itself`."""
        return True

    def is_unbounded(self) -> bool:
        """See `Form.is_unbounded`."""
        return True


def write_json(value: Any, places: Places) -> Any:
    """Check that ``value`` is plain JSON, and return it unchanged.

    Raises:
        Unfit: A part of it is not None, bool, int, a finite float, str, list or a dict with keys
            of str.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return checked_float(value, places)
    try:
        if kind is list:
            places.append(id(value))
            for index, item in enumerate(value):
                if type(item) is not str:
                    try:
                        write_json(item, places)
                    except Unfit as unfit:
                        raise unfit.within(f"[{index}]") from None
            return value
        if kind is dict:
            places.append(id(value))
            for key, item in value.items():
                if type(key) is not str:
                    raise Unfit(f"the key {short_repr(key)} is not a str; declare the dict's types")
                try:
                    write_json(item, places)
                except Unfit as unfit:
                    raise unfit.within(f"[{key!r}]") from None
            return value
    except RecursionError:
        raise Unfit("it is nested too deeply, or contains itself") from None
    raise Unfit(
        f"{short_repr(value)} is of type {kind.__name__}, which isn't plain JSON; declare its "
        "type, or use an attrs class"
    )


def read_json(data: Any, _: object) -> Any:
    """``data`` unchanged: plain JSON is read as it is."""
    return data


ANY = AnyForm()
