"""JSON for unions: values of members that aren't plain JSON are tagged with their class's name.

A union of one type with None needs no tags.
"""

from __future__ import annotations

from typing import Any, get_args, get_origin, is_typeddict

from .containers import DICTS, LISTS
from .errors import Unfit, UnsupportedType
from .scalars import JSON_SCALARS, SCALARS, Hook, HooksFor
from .text import short_repr


def union_hooks(tp: Any, hooks_for: HooksFor) -> tuple[Hook, Hook]:
    """Hooks for a union.

    Raises:
        UnsupportedType: Its members can't be told apart.
    """
    members = get_args(tp)
    others = [member for member in members if member is not type(None)]
    if len(others) == 1 and len(members) == 2:
        write_one, read_one = hooks_for(others[0])
        return (
            lambda value: None if value is None else write_one(value),
            lambda value: None if value is None else read_one(value),
        )
    if Any in members or object in members:
        raise UnsupportedType(f"{tp}: Any swallows the other members; declare one of them")
    plain = {member for member in members if member in JSON_SCALARS}
    tagged: dict[str, tuple[type, Hook, Hook]] = {}
    by_kind: dict[type, tuple[str, Hook]] = {}
    for member in members:
        if member in plain:
            continue
        kind = get_origin(member) or member
        if kind in LISTS:
            kind = list
        elif kind in DICTS or is_typeddict(kind):
            kind = dict
        tag = getattr(kind, "__name__", "")
        if not isinstance(kind, type) or tag in tagged:
            raise UnsupportedType(f"{tp}: its members can't be told apart by their class")
        write, read = hooks_for(member)
        tagged[tag] = (kind, write, read)
        by_kind[kind] = (tag, write)

    def write_union(value: Any) -> Any:
        kind = type(value)
        if kind in plain:
            return SCALARS[kind][0](value)
        if kind not in by_kind:
            raise Unfit(
                f"{short_repr(value)} is of type {kind.__name__}, which is not part of {tp}"
            )
        tag, write = by_kind[kind]
        return {"$type": tag, "value": write(value)}

    def read_union(value: Any) -> Any:
        if type(value) in plain:
            return value
        if type(value) is dict and set(value) == {"$type", "value"}:
            found = tagged.get(value["$type"])
            if found is None:
                raise Unfit(f"{value['$type']!r} is not part of {tp}")
            return found[2](value["value"])
        # Untagged: written when this field had a single type, or one besides None.
        for _, _, read in tagged.values():
            try:
                return read(value)
            except (ValueError, TypeError, KeyError, ArithmeticError):
                continue
        raise Unfit(f"{short_repr(value)} fits no part of {tp}")

    return write_union, read_union
