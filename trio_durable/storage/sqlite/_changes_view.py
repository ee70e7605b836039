"""The view through which a batch with messages changes an SQLite file, and its triggers.

The view ``durable_changes`` is empty. It exists for its triggers, which let one INSERT apply a
batch in which saves, deletions, messages and once-keys are rows of different kinds. So such a batch
is one statement, too, see `_objects`. A stale row raises, which undoes the whole statement.

View and triggers are temporary: they belong to the writer's connection and not to the file. So a
release may change them, and a file with many tenants doesn't have a schema that takes long to read.
"""

from __future__ import annotations

from collections.abc import Callable

from .._messages import RECEIVER_DELETED
from ._names import TableNames

SAVE, CHECK, DELETE, ACKNOWLEDGE, BURY, WITHDRAW, SEND, RECORD = range(1, 9)
"""Kinds of rows of the view."""

COLUMNS = (
    "kind",
    "type_name",  # of the object that commits; of the receiver or sender of a message
    "object_id",
    "number",  # the expected revision; a message's seq; the expiry of a once-key
    "token",
    "at",  # the wall time of the commit, or of sending
    "body",  # a state, arguments or a reply
    "lane",
    "handler",
    "wake_at",
    "count",  # hops, or failures
    "from_type",
    "from_id",
    "reply_to",  # or a digest
    "failed_to",  # or a signature
    "name",  # a sender key, a once-key, or an error
    "once_key",
)
"""Columns of the view. Kinds that don't need them all leave some empty, see `_parameters`."""


def _changes(names: TableNames) -> str:
    columns = ", ".join(f"NULL AS {column}" for column in COLUMNS)
    return f"CREATE TEMP VIEW IF NOT EXISTS {names.changes} AS SELECT {columns} WHERE 0"


def _trigger(names: TableNames, kind: str, number: int, body: str) -> str:
    return f"""
        CREATE TEMP TRIGGER IF NOT EXISTS {names.of(f"durable_changes_{kind}")}
        INSTEAD OF INSERT ON {names.changes}
        WHEN NEW.kind = {number} BEGIN {body} END
        """


def _save(names: TableNames) -> str:
    body = f"""
            INSERT INTO {names.objects} (type_name, object_id, revision, updated_at, state)
            VALUES (NEW.type_name, NEW.object_id, NEW.number + 1, NEW.at, CAST(NEW.body AS TEXT))
            ON CONFLICT (type_name, object_id) DO UPDATE SET
                revision = CASE WHEN revision = excluded.revision - 1 THEN excluded.revision END,
                updated_at = excluded.updated_at,
                state = excluded.state;"""
    return _trigger(names, "save", SAVE, body)


def _stored_revision(names: TableNames) -> str:
    return f"""ifnull((
                SELECT revision FROM {names.objects}
                WHERE type_name = NEW.type_name AND object_id = NEW.object_id), 0)"""


def _check(names: TableNames) -> str:
    body = f"""
            SELECT RAISE(ABORT, 'stale') WHERE NEW.number <> {_stored_revision(names)};"""
    return _trigger(names, "check", CHECK, body)


def _bury_where(names: TableNames, failures: str, error: str, where: str) -> str:
    copied = (
        "seq, place, to_type, to_id, lane, token, handler, arguments, sent_at, wake_at, crashes, "
        "hops, from_type, from_id, reply_to, failed_to, sender_key, once_key"
    )
    return f"""
            INSERT INTO {names.dead_messages} ({copied}, failures, last_error, died_at)
            SELECT {copied}, {failures}, {error}, NEW.at FROM {names.messages} WHERE {where};"""


def _delete(names: TableNames) -> str:
    of_object = "to_type = NEW.type_name AND to_id = NEW.object_id"
    body = f"""
            SELECT RAISE(ABORT, 'stale') WHERE NEW.number <> {_stored_revision(names)};
            DELETE FROM {names.objects}
            WHERE type_name = NEW.type_name AND object_id = NEW.object_id;
            {_bury_where(names, "failures", f"'{RECEIVER_DELETED}'", of_object)}
            DELETE FROM {names.messages} WHERE {of_object};"""
    return _trigger(names, "delete", DELETE, body)


_THIS = (
    "seq = NEW.number AND token = NEW.token AND to_type = NEW.type_name "
    "AND to_id = NEW.object_id AND lane = NEW.lane"
)
_REMOVED = "SELECT RAISE(ABORT, 'stale') WHERE changes() <> 1;"


def _acknowledge(names: TableNames) -> str:
    body = f"""
            UPDATE {names.dead_messages} SET is_overtaken = 1
            WHERE to_type = NEW.type_name AND to_id = NEW.object_id AND lane = NEW.lane
                AND place < NEW.number AND lane <> '' AND is_overtaken = 0;
            DELETE FROM {names.messages} WHERE {_THIS};
            {_REMOVED}"""
    return _trigger(names, "acknowledge", ACKNOWLEDGE, body)


def _bury(names: TableNames) -> str:
    body = f"""
            {_bury_where(names, "NEW.count", "NEW.name", _THIS)}
            DELETE FROM {names.messages} WHERE {_THIS};
            {_REMOVED}"""
    return _trigger(names, "bury", BURY, body)


def _withdraw(names: TableNames) -> str:
    body = f"""
            DELETE FROM {names.messages} WHERE {_THIS};
            {_REMOVED}"""
    return _trigger(names, "withdraw", WITHDRAW, body)


def _send(names: TableNames) -> str:
    body = f"""
            INSERT INTO {names.messages} (
                seq, place, to_type, to_id, lane, token, handler, arguments, sent_at, wake_at,
                hops, from_type, from_id, reply_to, failed_to, sender_key, once_key)
            VALUES (
                NEW.number, NEW.number, NEW.type_name, NEW.object_id, NEW.lane, NEW.token,
                NEW.handler, CAST(NEW.body AS TEXT), NEW.at, nullif(NEW.wake_at, ''), NEW.count,
                nullif(NEW.from_type, ''), nullif(NEW.from_id, ''), nullif(NEW.reply_to, ''),
                nullif(NEW.failed_to, ''), nullif(NEW.name, ''), nullif(NEW.once_key, ''));"""
    return _trigger(names, "send", SEND, body)


def _record(names: TableNames) -> str:
    # A key that is taken gets no handler, which the table's constraint refuses.
    body = f"""
            INSERT INTO {names.once} (
                type_name, object_id, key, handler, digest, signature, reply, expires_at, token)
            VALUES (
                NEW.type_name, NEW.object_id, NEW.name, NEW.handler, NEW.reply_to, NEW.failed_to,
                CAST(nullif(NEW.body, '') AS TEXT), NEW.number, nullif(NEW.token, ''))
            ON CONFLICT (type_name, object_id, key) DO UPDATE SET
                handler = CASE
                    WHEN expires_at <= NEW.at OR (reply IS NULL AND token = excluded.token)
                    THEN excluded.handler END,
                digest = excluded.digest, signature = excluded.signature, reply = excluded.reply,
                expires_at = excluded.expires_at, token = excluded.token;"""
    return _trigger(names, "record", RECORD, body)


VIEW: tuple[Callable[[TableNames], str], ...] = (
    _changes,
    _save,
    _check,
    _delete,
    _acknowledge,
    _bury,
    _withdraw,
    _send,
    _record,
)
"""The statements that create the view of a tenant, in order. Its tables need not exist yet."""
