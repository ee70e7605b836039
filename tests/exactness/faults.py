"""Faults of the codec, by kind: what the property test finds."""

from __future__ import annotations

from typing import Any, get_args

from trio_durable import (
    ArgumentError,
    DefinitionError,
    ReplyError,
    StateDecodeError,
    StateEncodeError,
)

from .annotations import members
from .oddities import RAN
from .snapshot import Snapshot
from .workbench import single


class Fault(AssertionError):
    """State that was neither exact nor refused by name.

    Args:
        kind: The kind of fault, in some words.
        detail: What happened to which value.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.others: list[Fault] = []


REFUSALS = (DefinitionError, StateEncodeError, StateDecodeError, ArgumentError, ReplyError)
"""Errors that refuse a definition, a write, a read or a copy by name."""


def is_refused(error: BaseException) -> bool:
    """True if an error is a refusal by name."""
    return isinstance(single(error), REFUSALS)


def raised(where: str, error: BaseException, of: str) -> Fault:
    """The fault that an error is which isn't the library's own."""
    error = single(error)
    kind = f"raw error {where}, {type(error).__name__}"
    return Fault(kind, f"{of} raised {type(error).__name__}: {error!s:.200}")


def changed(where: str, annotation: Any, wanted: Snapshot, found: Snapshot, of: str) -> Fault:
    """The fault that two snapshots of one value differ."""
    left, right = difference(wanted, found)
    detail = f"{of} {where}: {show(left)} became {show(right)}"
    return Fault(_kind_of_change(annotation, wanted, left, right), detail)


def _kind_of_change(annotation: Any, wanted: Snapshot, left: Any, right: Any) -> str:
    if RAN:
        return f"{RAN[0]} ran"
    if right == "unset" or left == "unset":
        return "unset field filled, or a field lost"
    if isinstance(left, str) and isinstance(right, str):
        if left.startswith("datetime."):
            return "fold of a datetime lost"
        return "value changed silently"
    heads = _head(left), _head(right)
    if None not in heads and heads[0] != heads[1]:
        if {"timezone", "ZoneInfo"} & set(map(str, heads)):
            return "time zone changed"
        if has_union(annotation):
            return "union read as another member"
        return f"type changed silently: {heads[0]} became {heads[1]}"
    if isinstance(left, tuple) and isinstance(right, tuple) and len(left) != len(right):
        return "undeclared attribute or item lost"
    return "value changed silently"


def _head(found: Any) -> str | None:
    if isinstance(found, tuple) and found and isinstance(found[0], str):
        return found[0].rpartition(".")[2].partition("@")[0]
    return None


def difference(left: Any, right: Any) -> tuple[Any, Any]:
    """The smallest parts in which two snapshots differ."""
    while (
        isinstance(left, tuple)
        and isinstance(right, tuple)
        and len(left) == len(right)
        and not (_head(left) is not None and left[0] != right[0])
    ):
        found = [pair for pair in zip(left, right, strict=True) if pair[0] != pair[1]]
        if len(found) != 1:
            break
        left, right = found[0]
    return left, right


def has_union(annotation: Any, depth: int = 8) -> bool:
    """True if a union stands anywhere in a type; those in classes are not looked for."""
    if depth == 0 or isinstance(annotation, str):
        return False
    try:
        found = members(annotation)
    except Exception:  # noqa: BLE001  # it isn't a type
        return False
    return len(found) > 1 or any(has_union(each, depth - 1) for each in get_args(annotation))


def show(found: Any) -> str:
    """A snapshot, or a part of one, as text."""
    text = found if isinstance(found, str) else _shown(found)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _shown(found: Any) -> str:
    if isinstance(found, str):
        return found.partition("@")[0].rpartition(".")[2] if "@" in found else found
    if len(found) == 2 and isinstance(found[1], str):
        return f"{_shown(found[0])}({found[1]})"
    return "(" + ", ".join(map(_shown, found)) + ")"
