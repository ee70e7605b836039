"""Changes of a state: conditions on its fields, and the lines that differ between two."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import unified_diff
from itertools import islice
from typing import Any

import attrs
import orjson

from ..._json import exact
from ..errors import CommandError

_CONTEXT_LINES = 2
_MAX_LINES = 2000
"""Longer states aren't compared, since that takes time in proportion to the square."""
_HEADER_LINES = 2


def changed_lines(old: str, new: str) -> Iterator[str]:
    """The lines that differ, after ``-`` and ``+``, with some that don't, after a space."""
    before, after = old.split("\n"), new.split("\n")
    if len(before) > _MAX_LINES or len(after) > _MAX_LINES:
        yield f"  {len(after):,} lines, too many to compare; `trio-durable show` has them"
        return
    differences = unified_diff(before, after, n=_CONTEXT_LINES, lineterm="")
    for line in islice(differences, _HEADER_LINES, None):
        if not line.startswith("@@"):
            yield f"{line[:1]} {line[1:]}"


@attrs.frozen
class Condition:
    """A field that has a value.

    Args:
        path: The name of the field, or a path into it, with dots.
        values: The values that fulfil it.
    """

    path: str
    values: tuple[object, ...]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The condition ``FIELD=VALUE`` or ``FIELD:=JSON``.

        A VALUE is a text, and also its JSON value, if it is JSON: ``total=3`` holds for 3 and "3".

        Raises:
            CommandError: It is malformed.
        """
        path, separator, value = text.partition("=")
        is_json = path.endswith(":")
        path = path.removesuffix(":")
        if not separator or not path:
            raise CommandError(f"{text!r:.80} is no condition; write FIELD=VALUE or FIELD:=JSON")
        try:
            parsed = exact.parse(value)
        except ValueError as error:
            if is_json:
                raise CommandError(f"{path:.80}: {error}; write FIELD=VALUE for a text") from None
            return cls(path, (value,))
        return cls(path, (parsed,) if is_json else (value, parsed))

    def found_in(self, state: dict[str, Any]) -> tuple[bool, object]:
        """True and the value at the path; False and None if there is none."""
        if self.path in state:
            return True, state[self.path]
        value: Any = state
        for name in self.path.split("."):
            if isinstance(value, dict) and name in value:
                value = value[name]
            elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                value = value[int(name)]
            else:
                return False, None
        return True, value

    def holds_in(self, state: dict[str, Any]) -> bool:
        """True if the field is there with one of the values."""
        is_there, value = self.found_in(state)
        return is_there and any(_same(value, each) for each in self.values)


def _same(one: object, other: object) -> bool:
    """Equality of JSON values. In Python, True equals 1; in JSON, 1 and 1.0 are one number."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def fields_of(state: bytes | None) -> dict[str, Any] | None:
    """The fields of a stored state; None if nothing is stored, or no JSON object."""
    try:
        fields = None if state is None else orjson.loads(state)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None
