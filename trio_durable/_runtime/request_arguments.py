"""Arguments of requests that come from other processes, checked before anything is done.

They are plain JSON. A value of another type would be stored, or fail in a transaction that it
shares with the commits of others.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, TypeAlias

from .._keys import id_problem, tenant_problem
from .._text import short_repr

_Types: TypeAlias = tuple[type, ...]

_TEXT: _Types = (str,)
_NUMBER: _Types = (int,)
_ANY_TEXT: _Types = (str, NoneType)
_ANY_NUMBER: _Types = (int, NoneType)
_ALARM = (_TEXT, _NUMBER, _ANY_TEXT)

_TYPES: dict[str, tuple[_Types, ...]] = {
    "schedule_alarm": (*_ALARM, _ANY_TEXT, _NUMBER),
    "cancel_alarm": (_TEXT,),
    "cancel_all_alarms": (),
    "retry_alarm": (_TEXT,),
    "remove_alarm": (_TEXT,),
    "restore_alarm": (*_ALARM, _ANY_NUMBER, _NUMBER, _ANY_TEXT, _ANY_NUMBER, _ANY_TEXT),
    "fire_alarm": (_TEXT,),
    "deliver_alarm": (
        *(_TEXT, _NUMBER, _NUMBER, _ANY_TEXT, _NUMBER, _ANY_TEXT, _ANY_NUMBER, _ANY_TEXT),
    ),
    "send_message": (_NUMBER, _TEXT, _TEXT, _NUMBER, _ANY_NUMBER, (list, NoneType)),
    "retry_message": (_NUMBER,),
    "drop_message": (_NUMBER,),
    "look_for_messages": (),
    "settled": (),
    "ensure_started": (),
    "stop": ((bool,),),
    "get_state": (),
    "put_state": (_TEXT,),
    "replace_state": (_TEXT, _NUMBER, _ANY_TEXT),
    "rewrite": (_NUMBER, _NUMBER, _ANY_TEXT),
    "exists": (),
    "delete": (),
}
"""By request: the types of its arguments behind the key of the object. The last may be missing."""

_OF_ALARM = frozenset(
    name
    for name in _TYPES
    if name.endswith("_alarm")  # whose first argument is its name
)
_PROMISE = (_TEXT, _TEXT, _TEXT, _NUMBER)
"""The types of the once-key of a message: key, digest, signature, time of expiry."""


def check_arguments(name: str, arguments: list[Any]) -> None:
    """Check the arguments of a request about an object; requests that aren't known pass.

    Raises:
        ValueError: One can't be what it stands for.
    """
    types = _TYPES.get(name)
    if types is None:
        return
    type_name, object_id, tenant, *rest = arguments
    problem = id_problem(type_name) or id_problem(object_id)
    if problem is None and tenant != "":
        problem = tenant_problem(tenant)
    if problem is not None:
        raise ValueError(f"{name} names no object: {problem}")
    _check_types(name, rest, types)
    if name in _OF_ALARM and (problem := id_problem(rest[0] if rest else None)) is not None:
        raise ValueError(f"{name} names no alarm: {problem}")
    if name == "send_message" and len(rest) == len(types) and rest[-1] is not None:
        _check_types(name, rest[-1], _PROMISE)


def _check_types(name: str, values: list[Any], types: tuple[_Types, ...]) -> None:
    for value, kinds in zip(values, types, strict=False):
        if type(value) not in kinds or (type(value) is int and not -(2**63) <= value < 2**63):
            raise ValueError(f"{name} has {short_repr(value)} as an argument")
