"""Self-describing JSON of plain values, for the arguments and attributes of exceptions.

An exception has no annotations, so each value says itself what it is. JSON's own scalars are bare.
Any other value is an array with its kind in front, such as ``["tuple", 1, 2]``. All kinds are
listed here, so reading a value runs no code of users.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from .._json.errors import Unfit, expected
from .._json.scalars import OWN, Scalar
from .._json.texts import BIG_INT, TEXTS
from .._keys import AlarmKey, ObjectKey
from .._text import short_repr

_BY_TYPE: Mapping[type, Scalar] = {kind: form for form in TEXTS.values() for kind in form.types}
_BY_NAME: Mapping[str, Scalar] = {form.name: form for form in (*TEXTS.values(), BIG_INT)}
_COLLECTIONS: Mapping[str, Callable[[list[Any]], Any]] = {
    kind.__name__: kind for kind in (list, tuple, set, frozenset)
}
_KEYS: Mapping[str, Callable[..., Any]] = {kind.__name__: kind for kind in (ObjectKey, AlarmKey)}
_FLOATS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_SURROGATES = "surrogates"
"""The kind of a text that UTF-8 doesn't have."""
_LEAST, _GREATEST = -(2**63), 2**64 - 1
_MAX_DEPTH = 20


class Budget:
    """The size that the texts and values of one exception may take.

    Args:
        size: The most characters of all of them together.
        longest: The most characters of one text, of which the rest is cut off.
    """

    def __init__(self, size: int, longest: int) -> None:
        self._left = size
        self._longest = longest
        self.has_cut = False
        """A text was cut."""

    def take(self, size: int) -> None:
        """Take a part of the size for a value.

        Raises:
            Unfit: There isn't as much left.
        """
        if size > self._left:
            raise Unfit("it is too large")
        self._left -= size

    def text(self, text: str) -> str:
        """``text``, or its beginning."""
        longest = min(self._longest, self._left)
        if len(text) > longest:
            self.has_cut = True
            text = f"{text[:longest]}… ({len(text):,} characters)"
        self._left -= min(len(text), self._left)
        return text


def plain_data(value: Any, budget: Budget, depth: int = 0) -> Any:
    """The JSON data of a plain value.

    Args:
        value: The value.
        budget: The size that is left. A long text is cut.
        depth: How deep the value stands in another.

    Raises:
        Unfit: It isn't plain, or too large.
    """
    kind = type(value)
    if depth > _MAX_DEPTH:
        raise Unfit("it is nested too deeply, or contains itself")
    if kind is str:
        return text_data(budget.text(value))
    budget.take(8)
    if kind is bool or value is None or (kind is int and _LEAST <= value <= _GREATEST):
        return value
    if kind is float:
        return value if value - value == 0.0 else ["float", repr(value)]
    if kind is dict:
        return ["dict", *([_part(each, budget, depth) for each in pair] for pair in value.items())]
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        return [kind.__name__, *(_part(each, budget, depth) for each in value)]
    if kind is ObjectKey:
        return [kind.__name__, value.type_name, value.object_id, value.tenant]
    if kind is AlarmKey:
        return [kind.__name__, *value]
    if kind is timedelta:  # whose microseconds may exceed 64 bits
        return [kind.__name__, value.days, value.seconds, value.microseconds]
    form = BIG_INT if kind is int else _BY_TYPE.get(kind)
    if form is None:
        raise Unfit(f"{short_repr(value)} is of type {kind.__name__}, which isn't plain")
    data = form.write(value, [])
    budget.take(len(data))
    return [form.name, data]


def _part(value: Any, budget: Budget, depth: int) -> Any:
    return plain_data(value, budget, depth + 1)


def text_data(text: str) -> Any:
    """The JSON data of a text, which may have lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        encoded = text.encode(errors="surrogatepass")
        return [_SURROGATES, base64.b64encode(encoded).decode()]
    return text


def plain_value(data: Any, depth: int = 0) -> Any:
    """The value that `plain_data` has written, from data that may be anything.

    Raises:
        Exception: It isn't such data.
    """
    if type(data) in OWN:
        return data
    if type(data) is not list or not data or type(data[0]) is not str or depth > _MAX_DEPTH:
        raise expected("data of a plain value", data)
    kind, *parts = data
    if kind in _COLLECTIONS:
        return _COLLECTIONS[kind]([plain_value(each, depth + 1) for each in parts])
    if kind == "dict":
        return dict([plain_value(each, depth + 1) for each in pair] for pair in parts)
    if kind in _KEYS:
        if not all(type(each) is str for each in parts):
            raise expected(kind, data)
        return _KEYS[kind](*parts)
    if kind == timedelta.__name__:
        return timedelta(*parts)
    (part,) = parts
    if kind == "float":
        return _FLOATS[part]
    if kind == _SURROGATES:
        return base64.b64decode(part, validate=True).decode(errors="surrogatepass")
    return _BY_NAME[kind].read(part, [])
