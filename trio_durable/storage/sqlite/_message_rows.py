"""Rows of messages and once-keys in an SQLite file, as records.

Reads return one row of JSON, as those of alarms do, and read row by row if one of the rows isn't
UTF-8 text or holds a value of another type. Then they skip that row.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from ..._keys import ObjectKey
from .._messages import DeadMessage, MessageKey, StoredMessage
from ._message_schema import MESSAGE_COLUMNS
from ._names import TableNames

logger = logging.getLogger("trio_durable.storage")

R = TypeVar("R")

KEY_COLUMNS = "to_type, to_id, lane, seq, token"
DEAD_COLUMNS = f"{MESSAGE_COLUMNS}, died_at, is_overtaken"


class MessageRows:
    """Statements on the tables of one tenant, on one connection. Methods raise sqlite3's errors."""

    def __init__(self, connection: sqlite3.Connection, names: TableNames) -> None:
        self.connection = connection
        self._tenant = names.tenant
        self.parts = {
            "messages": names.messages,
            "dead": names.dead_messages,
            "once": names.once,
            "by_lane": names.of("durable_messages_by_lane"),
            "awake": names.of("durable_messages_awake"),
            "by_time": names.of("durable_messages_by_time"),
            "by_sender_key": names.of("durable_messages_by_sender_key"),
            "begun": names.of("durable_messages_begun"),
            "dead_by_token": names.of("durable_dead_messages_by_token"),
            "dead_by_type": names.of("durable_dead_messages_by_type"),
            "once_by_expiry": names.of("durable_once_by_expiry"),
        }
        """The placeholders of names in the statements."""

    def object_key(self, type_name: str, object_id: str) -> ObjectKey:
        """The key of an object of this tenant."""
        return ObjectKey(type_name, object_id, self._tenant)

    def execute(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = (), **parts: str
    ) -> sqlite3.Cursor:
        """Execute a statement, with the names of the tables put in."""
        return self.connection.execute(sql.format(**self.parts, **parts), parameters)

    def read_messages(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object], **parts: str
    ) -> list[StoredMessage]:
        """Read messages, see `read`."""
        return self.read(sql, parameters, MESSAGE_COLUMNS, self.message, **parts)

    def read(
        self,
        sql: str,
        parameters: Sequence[object] | Mapping[str, object],
        columns: str,
        make: Callable[..., R],
        **parts: str,
    ) -> list[R]:
        """Read records: ``make`` of the ``columns`` of each row that the statement selects."""
        names = columns.split(", ")
        aliases = ", ".join(f"c{n}" for n in range(len(names)))
        # An outer query, since the aggregate would ignore ORDER BY and LIMIT of the inner one.
        page = f"WITH page({aliases}) AS ({sql})"
        whole = f"{page} SELECT json_group_array(json_array({aliases})) FROM page"
        try:
            rows = orjson.loads(self.execute(whole, parameters, **parts).fetchone()[0])
            return [make(*row) for row in rows]
        except (sqlite3.OperationalError, ValueError, TypeError, AttributeError):
            return list(self._read_singly(sql, parameters, names, make, **parts))

    def _read_singly(
        self,
        sql: str,
        parameters: Sequence[object] | Mapping[str, object],
        names: Sequence[str],
        make: Callable[..., R],
        **parts: str,
    ) -> Iterator[R]:
        aliases = [f"c{n}" for n in range(len(names))]
        casts = ", ".join(
            f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END"
            for name in aliases
        )
        listed = f"WITH page({', '.join(aliases)}) AS ({sql}) SELECT {casts} FROM page"
        for row in self.execute(listed, parameters, **parts):
            try:
                decoded = [part.decode() if isinstance(part, bytes) else part for part in row]
                yield make(*decoded)
            except (ValueError, TypeError, AttributeError):
                logger.warning(
                    "a row of %s can't be read, %r; repair or delete it",
                    *(self.parts["messages"], row[:5]),
                )

    def key(self, to_type: str, to_id: str, lane: str, seq: int, token: int) -> MessageKey:
        """The key of a message."""
        return MessageKey(self.object_key(to_type, to_id), lane, seq, token)

    def message(self, *row: Any) -> StoredMessage:
        """The record of `MESSAGE_COLUMNS`."""
        (*key, handler, arguments, sent_at, wake_at, failures, crashes, hops) = row[:12]
        from_type, from_id, reply_to, failed_to, sender_key, once_key, last_error = row[12:]
        return StoredMessage(
            self.key(*key),
            handler,
            arguments.encode(),
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

    def dead_message(self, *row: Any) -> DeadMessage:
        """The record of `DEAD_COLUMNS`."""
        *message, died_at, is_overtaken = row
        return DeadMessage(self.message(*message), died_at, bool(is_overtaken))


def as_row(key: MessageKey) -> tuple[str, str, str, int, int]:
    """The values of `KEY_COLUMNS`."""
    return key.to.type_name, key.to.object_id, key.lane, key.seq, key.token


def message_row(message: StoredMessage, seq: int) -> tuple[object, ...]:
    """The values of `MESSAGE_COLUMNS`, with another number."""
    sender = message.sender
    return (
        *as_row(message.key._replace(seq=seq)),
        message.handler,
        message.arguments,
        message.sent_at,
        message.wake_at,
        message.failures,
        message.crashes,
        message.hops,
        sender and sender.type_name,
        sender and sender.object_id,
        message.reply_to,
        message.failed_to,
        message.sender_key,
        message.once_key,
        message.last_error,
    )
