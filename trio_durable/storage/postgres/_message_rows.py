"""Rows of messages and dead letters in a PostgreSQL database, as records and as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..._keys import ObjectKey
from .._messages import DeadMessage, MessageKey, NewMessage, StoredMessage
from ._arrays import BigintArray, TextArray, json_array, swap_nul, text_array
from ._shard_function import shard_of
from ._steps import MESSAGE_SHARDS

SENT = (
    "to_type, to_id, lane, token, handler, arguments, sent_at, wake_at, hops, from_type, from_id, "
    "reply_to, failed_to, sender_key, once_key"
)
"""The columns of a message that it is sent with, in the order of `sent_arrays`."""
STORED = f"{SENT}, failures, crashes, last_error"
"""These and the ones that a delivery changes, in the order of `stored_arrays`."""
COPIED = f"seq, {STORED}"
"""The columns of a message, waiting or dead."""

SENT_TYPES = ", ".join(
    f"%s::{'bigint' if name in ('token', 'sent_at', 'wake_at', 'hops') else 'text'}[]"
    for name in SENT.split(", ")
)
STORED_TYPES = f"{SENT_TYPES}, %s::bigint[], %s::bigint[], %s::text[]"

KEYS = "%s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[]"
"""The types of `key_arrays`."""
K = "ms, mt, mi, ml, mq, mk"
"""Names for their columns."""
IS_K = """
m.shard = k.ms AND m.to_type = k.mt AND m.to_id = k.mi AND m.lane = k.ml AND m.seq = k.mq
    AND m.token = k.mk
"""
"""The condition that the message ``m`` is the one with the key of ``k``."""

PLACE = "shard, to_type, to_id, lane, seq"
"""The primary key."""
IN_ORDER = "ORDER BY m.shard, m.to_type, m.to_id, m.lane, m.seq"
"""The order in which statements lock waiting messages."""


def prefixed(alias: str, columns: str) -> str:
    """Columns of a table, with its alias."""
    return ", ".join(f"{alias}.{name}" for name in columns.split(", "))


def same_place(left: str, right: str) -> str:
    """The condition that two rows have the same primary key."""
    return " AND ".join(f"{left}.{name} = {right}.{name}" for name in PLACE.split(", "))


def read_columns(alias: str) -> str:
    """The columns that `MessageRows.message` takes."""
    return prefixed(alias, COPIED).replace(
        f"{alias}.arguments", f"convert_to({alias}.arguments, 'UTF8')"
    )


def shard_of_key(key: ObjectKey) -> int:
    """The value of the column ``shard`` for messages to an object."""
    return shard_of(key.object_id, MESSAGE_SHARDS)


def object_arrays(keys: Sequence[ObjectKey]) -> tuple[BigintArray, TextArray, TextArray]:
    """Shards, types and ids of receivers."""
    return (
        BigintArray([shard_of_key(key) for key in keys]),
        text_array(key.type_name for key in keys),
        text_array(key.object_id for key in keys),
    )


def key_arrays(keys: Sequence[MessageKey]) -> tuple[object, ...]:
    """Keys as parameters, see `KEYS`."""
    return (
        *object_arrays([key.to for key in keys]),
        text_array(key.lane for key in keys),
        BigintArray([key.seq for key in keys]),
        BigintArray([key.token for key in keys]),
    )


def sent_arrays(sent: Sequence[NewMessage | StoredMessage]) -> tuple[object, ...]:
    """Messages as parameters, see `SENT_TYPES`."""
    keys = [message.key for message in sent]
    senders = [message.sender for message in sent]
    return (
        text_array(key.to.type_name for key in keys),
        text_array(key.to.object_id for key in keys),
        text_array(key.lane for key in keys),
        BigintArray([key.token for key in keys]),
        text_array(message.handler for message in sent),
        json_array(message.arguments for message in sent),
        BigintArray([message.sent_at for message in sent]),
        BigintArray([message.wake_at for message in sent]),
        BigintArray([message.hops for message in sent]),
        text_array(None if sender is None else sender.type_name for sender in senders),
        text_array(None if sender is None else sender.object_id for sender in senders),
        text_array(message.reply_to for message in sent),
        text_array(message.failed_to for message in sent),
        text_array(message.sender_key for message in sent),
        text_array(message.once_key for message in sent),
    )


def stored_arrays(messages: Sequence[StoredMessage]) -> tuple[object, ...]:
    """Messages as parameters, see `STORED_TYPES`."""
    return (
        *sent_arrays(messages),
        BigintArray([message.failures for message in messages]),
        BigintArray([message.crashes for message in messages]),
        text_array(message.last_error for message in messages),
    )


class MessageRows:
    """Records of the rows of one tenant."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant

    def object_key(self, type_name: str, object_id: str) -> ObjectKey:
        """The key of an object of this tenant."""
        return ObjectKey(type_name, object_id, self._tenant)

    def key(self, to_type: str, to_id: str, lane: str, seq: int, token: int) -> MessageKey:
        """The key of a message."""
        return MessageKey(self.object_key(to_type, to_id), lane, seq, token)

    def message(self, *row: Any) -> StoredMessage:
        """The record of `read_columns`."""
        seq, to_type, to_id, lane, token, handler, arguments, sent_at, wake_at, hops = row[:10]
        from_type, from_id, reply_to, failed_to, sender_key, once_key = row[10:16]
        failures, crashes, last_error = row[16:]
        return StoredMessage(
            self.key(to_type, to_id, lane, seq, token),
            handler,
            swap_nul(arguments),
            sent_at,
            wake_at,
            failures,
            crashes,
            hops,
            None if from_type is None else self.object_key(from_type, from_id),
            reply_to,
            failed_to,
            sender_key,
            once_key,
            last_error,
        )

    def messages(self, rows: Iterable[tuple[Any, ...]]) -> list[StoredMessage]:
        """The records of rows of `read_columns`."""
        return [self.message(*row) for row in rows]

    def dead(self, rows: Iterable[tuple[Any, ...]]) -> list[DeadMessage]:
        """The records of rows of `read_columns`, the time of death, and whether it is overtaken."""
        return [
            DeadMessage(self.message(*message), died_at, is_overtaken)
            for *message, died_at, is_overtaken in rows
        ]
