"""Contents: states, payloads and arguments as they are displayed, redacted, compared and edited."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Literal, TypeAlias

import attrs

from .._json.state import DECLARATION_MEMBER
from .._json.upgrades import SCHEMA_MEMBER
from .._keys import ObjectKey
from ._visible import escaped_json

logger = logging.getLogger("trio_durable.inspector")

LARGE = 256 * 1024
"""Bytes of JSON from which on a page has a download in place of the text."""
WITHHELD = "withheld: redact has failed, see the log"
_MISSING = object()
_MOST_CHANGES = 200
_WIDTH = 88

ContentKind: TypeAlias = Literal["state", "payload", "arguments", "error"]
"""The kind of a `Content`: an object's state, the payload of an alarm, the arguments of a message,
or the text of an error, which may quote any of them."""


@attrs.frozen
class Content:
    """A part of an object that a page would show, for the app's ``redact``."""

    key: ObjectKey
    """The object."""
    kind: ContentKind
    value: Any
    """Plain JSON; a str if it is an error. A copy, which ``redact`` may change and return."""


Redact: TypeAlias = Callable[[Content], object]
"""The app's function that returns what is shown of a `Content`: its value, or another one."""


class Redactor:
    """Applies the app's redaction to all that leaves the process.

    Args:
        redact: The app's function; None if all may be seen.
    """

    def __init__(self, redact: Redact | None) -> None:
        self._redact = redact

    @property
    def redacts(self) -> bool:
        """True if the app has a function."""
        return self._redact is not None

    def shown(self, key: ObjectKey, kind: ContentKind, value: Any) -> Any:
        """The plain JSON to show of a value. If the app's function fails, nothing of it."""
        if self._redact is None or value is None:
            return value
        try:
            return json.loads(json.dumps(self._redact(Content(key, kind, deepcopy(value)))))
        except Exception:
            logger.exception("redact failed for the %s of %s", kind, key)
            return WITHHELD

    def error(self, key: ObjectKey, text: str | None) -> str | None:
        """The text to show of an error."""
        shown = self.shown(key, "error", text)
        return shown if shown is None or isinstance(shown, str) else json.dumps(shown)

    def parsed(self, key: ObjectKey, kind: ContentKind, row: bytes | None) -> Any:
        """The plain JSON to show of stored bytes. A row that is no JSON is shown as a text."""
        if row is None:
            return None
        return self.shown(key, kind, parsed(row))


def parsed(row: bytes) -> Any:
    """The plain JSON of stored bytes; their text if they are none."""
    try:
        return json.loads(row)
    except (ValueError, RecursionError):
        return f"no JSON: {row.decode('utf-8', 'backslashreplace')}"


def fields_of(state: Any) -> Any:
    """The fields of a stored state, without its declaration and schema."""
    if not isinstance(state, dict):
        return state
    return {
        name: value
        for name, value in state.items()
        if name not in (DECLARATION_MEMBER, SCHEMA_MEMBER)
    }


def with_declaration(fields: Any, state: Any) -> Any:
    """Edited fields with the declaration and schema of the stored state that they came from."""
    if not isinstance(fields, dict) or not isinstance(state, dict):
        return fields
    own = (DECLARATION_MEMBER, SCHEMA_MEMBER)
    return fields | {name: state[name] for name in own if name in state}


def pretty(value: Any) -> str:
    """JSON for people, which still is the same JSON. Invisible characters are escaped.

    A list or an object that fits is on one line.
    """
    return escaped_json("".join(_lines(value, "")))


def _lines(value: Any, margin: str) -> Iterator[str]:
    text = json.dumps(value, ensure_ascii=False)
    is_long = len(margin) + len(text) > _WIDTH
    if not isinstance(value, (dict, list)) or not value or (margin and not is_long):
        yield text
        return
    is_dict = isinstance(value, dict)
    within, end = f"{margin}  ", f"\n{margin}"
    items = value.items() if isinstance(value, dict) else enumerate(value)
    yield "{" if is_dict else "["
    for number, (name, item) in enumerate(items):
        yield f"{',' if number else ''}\n{within}"
        if is_dict:
            yield f"{json.dumps(name, ensure_ascii=False)}: "
        yield from _lines(item, within)
    yield f"{end}{'}' if is_dict else ']'}"


def compact(value: Any) -> str:
    """JSON on one line, likewise."""
    return escaped_json(json.dumps(value, ensure_ascii=False))


@attrs.frozen
class Change:
    """A difference between two values."""

    path: str
    before: str | None
    """JSON; None if there was nothing."""
    after: str | None


def changes(before: Any, after: Any) -> list[Change]:
    """The differences between two plain values, the first ones if there are very many."""
    found: list[Change] = []
    for path, old, new in _differences(before, after, ""):
        if len(found) == _MOST_CHANGES:
            found.append(Change("…", None, None))
            break
        found.append(
            Change(
                path or "(all)",
                None if old is _MISSING else compact(old),
                None if new is _MISSING else compact(new),
            )
        )
    return found


def _differences(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            place = f"{path}.{name}" if path else name
            yield from _differences(before.get(name, _MISSING), after.get(name, _MISSING), place)
    elif isinstance(before, list) and isinstance(after, list):
        for at in range(max(len(before), len(after))):
            old = before[at] if at < len(before) else _MISSING
            new = after[at] if at < len(after) else _MISSING
            yield from _differences(old, new, f"{path}[{at}]")
    elif not same(before, after):
        yield path, before, after


def same(one: Any, other: Any) -> bool:
    """True if two plain values are the same JSON: ``1``, ``1.0`` and ``true`` differ."""
    if one is _MISSING or other is _MISSING:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


class RedactedEdit(Exception):
    """An edit has changed the shape of a part that has redacted values."""


def unredacted(stored: Any, shown: Any, edited: Any, path: str = "") -> Any:
    """An edited value with the stored values where it still has the redacted ones.

    Raises:
        RedactedEdit: It isn't known which of the values are meant.
    """
    if same(stored, shown):
        return edited
    if same(edited, shown):
        return stored
    if isinstance(stored, dict) and isinstance(shown, dict) and isinstance(edited, dict):
        # A member that redaction has left out is one that the user couldn't remove.
        kept = {name: value for name, value in stored.items() if name not in shown}
        for name, value in edited.items():
            place = f"{path}.{name}" if path else name
            old, seen = stored.get(name, _MISSING), shown.get(name, _MISSING)
            if (new := unredacted(old, seen, value, place)) is not _MISSING:
                kept[name] = new
        return kept
    if isinstance(stored, list) and isinstance(shown, list) and isinstance(edited, list):
        if not len(stored) == len(shown) == len(edited):
            raise RedactedEdit(path)
        return [
            unredacted(*each, f"{path}[{at}]")
            for at, each in enumerate(zip(stored, shown, edited, strict=True))
        ]
    if isinstance(shown, (dict, list)):
        raise RedactedEdit(path)
    return edited  # a new value in the place of a redacted one


@attrs.frozen
class Merge:
    """An edit on a state that has changed meanwhile, by the members of the state."""

    value: dict[str, Any]
    """Their changes and mine. Where both have changed a member, mine."""
    both: list[str]
    """The members that both have changed, each in its own way."""


def merged(base: Any, theirs: Any, mine: Any) -> Merge | None:
    """The result of two changes of one state; None if one of them is no JSON object."""
    if not (isinstance(base, dict) and isinstance(theirs, dict) and isinstance(mine, dict)):
        return None
    value: dict[str, Any] = {}
    both: list[str] = []
    for name in [*theirs, *(name for name in mine if name not in theirs)]:
        was, is_now, wanted = (each.get(name, _MISSING) for each in (base, theirs, mine))
        if same(was, wanted):
            chosen = is_now
        else:
            chosen = wanted
            if not same(was, is_now) and not same(is_now, wanted):
                both.append(name)
        if chosen is not _MISSING:
            value[name] = chosen
    return Merge(value, both)
