"""The view of an SQLite file through which a batch with messages is one statement.

Each row of the statement is one change, and a trigger of the view applies it, see `_changes_view`.
The rows are in the order of the commits, so these apply one after the other. A
stale one undoes the whole statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache

from ..._keys import ObjectKey
from .._messages import MessageChanges, MessageKey, NewMessage, OnceReply
from .._records import Commit
from ._changes_view import (
    ACKNOWLEDGE,
    BURY,
    CHECK,
    COLUMNS,
    DELETE,
    RECORD,
    SAVE,
    SEND,
    VIEW,
    WITHDRAW,
)
from ._messages import MessageTable
from ._names import TableNames
from ._parameters import PADDING, as_text, padded, values
from ._transaction import transaction

MAX_ROWS = 1024
"""The largest number of rows in one statement. SQLite limits its parameters to 32,766."""

_WIDTH = len(COLUMNS)

_Row = tuple[object, ...]


@lru_cache(maxsize=64)
def _insert_sql(view: str, rows: int) -> str:
    columns = ", ".join(f"column{n}" for n in range(1, _WIDTH + 1))
    return f"""
    INSERT INTO {view} ({", ".join(f'"{column}"' for column in COLUMNS)})
    SELECT {columns} FROM ({values(rows, _WIDTH)}) WHERE column1 <> '{PADDING}'
    """


def is_needed(commit: Commit) -> bool:
    """True if a commit has to go through the view: it may change messages or once-keys."""
    return commit.messages is not None or commit.delete


class ChangesView:
    """The view of one tenant, on one connection. Methods raise sqlite3's errors."""

    def __init__(
        self, connection: sqlite3.Connection, names: TableNames, messages: MessageTable
    ) -> None:
        self._connection = connection
        self._names = names
        self._messages = messages

    def create(self) -> None:
        """Create the view. The caller has no transaction open, which could undo it."""
        for statement in VIEW:
            self._connection.execute(statement(self._names))

    def drop(self) -> None:
        """Drop the view, so that the connection doesn't keep those of too many tenants."""
        self._connection.execute(f"DROP VIEW IF EXISTS temp.{self._names.changes}")

    def apply(self, batch: Sequence[Commit], now: int) -> None:
        """Apply a batch but for its alarms, by one statement if it has up to `MAX_ROWS` changes.

        Sets `NewMessage.seq` and `MessageChanges.taken_back`.

        Raises:
            sqlite3.IntegrityError: A commit is stale. Nothing is applied.
        """
        taken_back = self._find_taken_back(batch)
        seq = self._messages.take_numbers(
            sum(len(commit.messages.sent) for commit in batch if commit.messages is not None)
        )
        rows: list[_Row] = []
        for commit in batch:
            changes = commit.messages
            if changes is not None:
                found = taken_back.get(commit.key, {})
                changes.taken_back = set(found)
                for new in changes.sent:
                    new.seq, seq = seq, seq + 1
                rows += _rows(commit, now, [key for keys in found.values() for key in keys])
            else:
                rows += _rows(commit, now, ())
        if len(rows) <= MAX_ROWS:
            self._insert(rows)
        elif self._connection.in_transaction:
            self._insert_all(rows)
        else:
            with transaction(self._connection):
                self._insert_all(rows)

    def _find_taken_back(
        self, batch: Sequence[Commit]
    ) -> dict[ObjectKey, dict[str, list[MessageKey]]]:
        """The messages that the batch removes under sender keys. Most batches have none.

        A read of its own, since a trigger can't return whether it has found anything. Nothing
        changes between this read and the statement, which has no other writer. A message that a
        commit handles or withdraws itself is gone by then: an object may send to itself, and renew
        the key.
        """
        keys = [
            (commit.key, name, commit.messages)
            for commit in batch
            if commit.messages is not None
            for name in commit.messages.sender_keys
        ]
        found: dict[ObjectKey, dict[str, list[MessageKey]]] = {}
        if keys:
            for position, message in self._messages.sent_under([each[:2] for each in keys]):
                sender, name, changes = keys[position]
                if message not in changes.waiting:
                    found.setdefault(sender, {}).setdefault(name, []).append(message)
        return found

    def _insert_all(self, rows: Sequence[_Row]) -> None:
        for start in range(0, len(rows), MAX_ROWS):
            self._insert(rows[start : start + MAX_ROWS])

    def _insert(self, rows: Sequence[_Row]) -> None:
        if not rows:
            return
        size = padded(len(rows))
        parameters: list[object] = []
        for row in rows:
            parameters += row
            parameters += [PADDING] * (_WIDTH - len(row))
        parameters += [PADDING] * (_WIDTH * (size - len(rows)))
        self._connection.execute(_insert_sql(self._names.changes, size), parameters)


def _rows(commit: Commit, now: int, taken_back: Sequence[MessageKey]) -> Iterator[_Row]:
    """The rows of a commit, in the order in which they apply; see `COLUMNS`."""
    key, changes = commit.key, commit.messages or _NOTHING
    if commit.delete:
        pass
    elif commit.state is not None:
        state = as_text(commit.state)
        yield SAVE, key.type_name, key.object_id, commit.revision, PADDING, now, state
    elif commit.revision is not None:
        yield CHECK, key.type_name, key.object_id, commit.revision
    for message in changes.acknowledged:
        yield _of_message(ACKNOWLEDGE, message, now)
    for burial in changes.buried:
        error = burial.last_error
        yield (
            *_of_message(BURY, burial.key, now),
            *(PADDING, PADDING, burial.failures, PADDING, PADDING, PADDING, PADDING, error),
        )
    for message in (*changes.withdrawn, *taken_back):
        yield _of_message(WITHDRAW, message, now)
    if commit.delete:
        yield DELETE, key.type_name, key.object_id, commit.revision, PADDING, now
    for new in changes.sent:
        yield _of_new(new)
    for reply in changes.recorded:
        yield _of_reply(reply, now)


_NOTHING = MessageChanges()


def _of_message(kind: int, key: MessageKey, now: int) -> _Row:
    return kind, key.to.type_name, key.to.object_id, key.seq, key.token, now, PADDING, key.lane


def _of_new(new: NewMessage) -> _Row:
    sender = new.sender
    return (
        SEND,
        new.to.type_name,
        new.to.object_id,
        new.seq,
        new.token,
        new.sent_at,
        as_text(new.arguments),
        new.lane,
        new.handler,
        PADDING if new.wake_at is None else new.wake_at,
        new.hops,
        PADDING if sender is None else sender.type_name,
        PADDING if sender is None else sender.object_id,
        new.reply_to or PADDING,
        new.failed_to or PADDING,
        new.sender_key or PADDING,
        new.once_key or PADDING,
    )


def _of_reply(reply: OnceReply, now: int) -> _Row:
    to = reply.key.to
    return (
        RECORD,
        to.type_name,
        to.object_id,
        reply.expires_at,
        PADDING if reply.token is None else reply.token,
        now,
        PADDING if reply.reply is None else as_text(reply.reply),
        PADDING,
        reply.handler,
        *(PADDING, PADDING, PADDING, PADDING),
        reply.digest,
        reply.signature,
        reply.key.key,
    )
