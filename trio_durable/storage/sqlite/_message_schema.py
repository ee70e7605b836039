"""Tables of messages, dead letters and once-keys in an SQLite file.

Each statement is a function of the names of a tenant's tables. A file holds their texts, so after
a release they never change.
"""

from __future__ import annotations

from collections.abc import Callable

from ._names import TableNames

_WAITING = """
    seq        INTEGER PRIMARY KEY,
    place      INTEGER NOT NULL,  -- seq once more: planners use a rowid behind an index badly
    to_type    TEXT NOT NULL,
    to_id      TEXT NOT NULL,
    lane       TEXT NOT NULL,     -- '' if it waits for no other message
    token      INTEGER NOT NULL,  -- its public id
    handler    TEXT NOT NULL,
    arguments  TEXT NOT NULL,     -- JSON
    sent_at    INTEGER NOT NULL,  -- microseconds since 1970 UTC
    wake_at    INTEGER,           -- the same; NULL if it is awake
    failures   INTEGER NOT NULL DEFAULT 0,
    crashes    INTEGER NOT NULL DEFAULT 0,
    hops       INTEGER NOT NULL,
    from_type  TEXT,
    from_id    TEXT,
    reply_to   TEXT,
    failed_to  TEXT,
    sender_key TEXT,
    once_key   TEXT,
    last_error TEXT"""
MESSAGE_COLUMNS = (
    "to_type, to_id, lane, seq, token, handler, arguments, sent_at, wake_at, failures, crashes, "
    "hops, from_type, from_id, reply_to, failed_to, sender_key, once_key, last_error"
)
"""The columns of a message, waiting or dead, in the order of `StoredMessage`."""


def _messages(names: TableNames) -> str:
    return f"""
        CREATE TABLE {names.messages} ({_WAITING},
            begun      INTEGER NOT NULL DEFAULT 0  -- 1 if the delivery of a suspect has begun
        )
        """


def _by_lane(names: TableNames) -> str:
    name = names.of("durable_messages_by_lane")
    return f"CREATE INDEX {name} ON {names.messages} (to_type, to_id, lane, place)"


def _awake(names: TableNames) -> str:
    return f"""
        CREATE INDEX {names.of("durable_messages_awake")} ON {names.messages}
        (to_type, to_id, place) WHERE lane = '' AND wake_at IS NULL
        """


def _by_time(names: TableNames) -> str:
    return f"""
        CREATE INDEX {names.of("durable_messages_by_time")} ON {names.messages}
        (wake_at, place) WHERE wake_at IS NOT NULL
        """


def _by_sender_key(names: TableNames) -> str:
    return f"""
        CREATE INDEX {names.of("durable_messages_by_sender_key")} ON {names.messages}
        (from_type, from_id, sender_key) WHERE sender_key IS NOT NULL
        """


def _begun(names: TableNames) -> str:
    return f"""
        CREATE INDEX {names.of("durable_messages_begun")} ON {names.messages} (begun)
        WHERE begun <> 0
        """


def _dead_messages(names: TableNames) -> str:
    return f"""
        CREATE TABLE {names.dead_messages} ({_WAITING},
            died_at      INTEGER NOT NULL,
            is_overtaken INTEGER NOT NULL DEFAULT 0
        )
        """


def _dead_by_token(names: TableNames) -> str:
    name = names.of("durable_dead_messages_by_token")
    return f"CREATE UNIQUE INDEX {name} ON {names.dead_messages} (token)"


def _dead_by_type(names: TableNames) -> str:
    name = names.of("durable_dead_messages_by_type")
    return f"CREATE INDEX {name} ON {names.dead_messages} (to_type, place)"


def _dead_by_lane(names: TableNames) -> str:
    return f"""
        CREATE INDEX {names.of("durable_dead_messages_by_lane")} ON {names.dead_messages}
        (to_type, to_id, lane, place) WHERE lane <> '' AND is_overtaken = 0
        """


def _once(names: TableNames) -> str:
    return f"""
        CREATE TABLE {names.once} (
            type_name  TEXT NOT NULL,
            object_id  TEXT NOT NULL,
            key        TEXT NOT NULL,
            handler    TEXT NOT NULL,
            digest     TEXT NOT NULL,     -- of the arguments
            signature  TEXT NOT NULL,     -- of the handler
            reply      TEXT,              -- JSON; NULL until the message has been handled
            expires_at INTEGER NOT NULL,  -- microseconds since 1970 UTC
            token      INTEGER,           -- of the message that was sent with the key
            PRIMARY KEY (type_name, object_id, key)
        ) WITHOUT ROWID
        """


def _once_by_expiry(names: TableNames) -> str:
    name = names.of("durable_once_by_expiry")
    return f"CREATE INDEX {name} ON {names.once} (expires_at)"


SCHEMA: tuple[Callable[[TableNames], str], ...] = (
    _messages,
    _by_lane,
    _awake,
    _by_time,
    _by_sender_key,
    _begun,
    _dead_messages,
    _dead_by_token,
    _dead_by_type,
    _dead_by_lane,
    _once,
    _once_by_expiry,
)
"""The statements that create the tables, in order."""
