"""Short constructors of keys, commits and alarm changes, and sort keys."""

from __future__ import annotations

from collections.abc import Mapping

from ..._keys import AlarmKey, ObjectKey
from ...storage import (
    AlarmChanges,
    Commit,
    NewAlarm,
    NewMessage,
    Postponement,
    lane_of,
    new_token,
)
from ._values import NOW

SENDER = ObjectKey("Cart", "a")
"""The sender of messages, unless another is named."""


def key(object_id: str, type_name: str = "Cart", tenant: str = "") -> ObjectKey:
    return ObjectKey(type_name, object_id, tenant)


def save(object_id: str, revision: int, state: bytes = b"{}") -> Commit:
    return Commit(key(object_id), revision, state)


def delete(object_id: str, revision: int) -> Commit:
    return Commit(key(object_id), revision, delete=True)


def alarm_key(
    name: str, object_id: str = "a", type_name: str = "Cart", tenant: str = ""
) -> AlarmKey:
    return AlarmKey(type_name, object_id, name, tenant)


def changes(
    changed: Mapping[str, int | None] | None = None,
    *,
    acknowledged: Mapping[str, int] | None = None,
    clear: bool = False,
    payload: bytes | None = None,
) -> AlarmChanges:
    """Changes that set alarms for the times in ``changed``, or cancel them where it is None."""
    return AlarmChanges(
        dict(acknowledged or {}),
        clear,
        {
            name: None if due_at is None else NewAlarm(due_at, payload)
            for name, due_at in (changed or {}).items()
        },
    )


def outside(object_id: str, changed: AlarmChanges) -> Commit:
    """A commit of changes from outside of the object, which ignores its revision."""
    return Commit(key(object_id), None, alarms=changed)


def postponed(
    alarm: AlarmKey, claim: int, available_at: int | None, failures: int = 1, error: str = "no"
) -> Postponement:
    """A postponement after a failure; ``available_at`` None makes a dead letter."""
    return Postponement(alarm, claim, available_at, failures, error)


def bytewise(one: AlarmKey) -> list[bytes]:
    """Sort key for alarms, as in the order of pages."""
    return [part.encode() for part in one]


def in_order(one: ObjectKey) -> tuple[bytes, bytes]:
    """Sort key for objects, as in the order of pages."""
    return one.type_name.encode(), one.object_id.encode()


def message(
    to: str,
    *,
    sender: ObjectKey | None = SENDER,
    lane: str | None = None,
    arguments: bytes = b"{}",
    wake_at: int | None = None,
    hops: int = 0,
    type_name: str = "Cart",
    tenant: str = "",
) -> NewMessage:
    """A message with a token of its own, in the lane of its sender."""
    if lane is None:
        assert sender is not None
        lane = lane_of(sender)
    return NewMessage(
        key(to, type_name, tenant),
        lane,
        new_token(),
        "handle",
        arguments,
        NOW,
        wake_at,
        hops,
        sender,
    )
