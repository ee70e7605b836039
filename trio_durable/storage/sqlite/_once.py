"""Table of once-keys in an SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._messages import OnceKey, OnceReply
from ._message_rows import MessageRows
from ._parameters import as_json

_COLUMNS = "type_name, object_id, key, handler, digest, signature, reply, expires_at, token"

_FIND_ONCE = f"""
SELECT {", ".join(f"o.{name}" for name in _COLUMNS.split(", "))}
FROM json_each(?) AS k CROSS JOIN {{once}} AS o
    ON o.type_name = k.value ->> 0 AND o.object_id = k.value ->> 1 AND o.key = k.value ->> 2
WHERE o.expires_at > ?
"""
_LIST_ONCE = f"""
SELECT {_COLUMNS} FROM {{once}} WHERE (type_name, object_id, key) > (?, ?, ?)
ORDER BY type_name, object_id, key LIMIT ?
"""
_CLEAN = """
DELETE FROM {once} WHERE (type_name, object_id, key) IN (
    SELECT type_name, object_id, key FROM {once} INDEXED BY {once_by_expiry}
    WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)
"""
_RESTORE_ONCE = f"""
INSERT OR REPLACE INTO {{once}} ({_COLUMNS})
VALUES (?, ?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?)
"""
_RENAME_ONCE = (
    "UPDATE OR IGNORE {once} SET type_name = :new WHERE type_name = :old",
    "DELETE FROM {once} WHERE type_name = :old",
)


class OnceTable:
    """The table of one tenant. Methods raise sqlite3's errors."""

    def __init__(self, rows: MessageRows) -> None:
        self._rows = rows

    def clean(self, now: int, limit: int) -> int:
        """See `Writer.clean_once`."""
        return self._rows.execute(_CLEAN, (now, limit)).rowcount

    def find(self, keys: Sequence[OnceKey], now: int) -> list[OnceReply | None]:
        """See `Reader.find_once`."""
        rows = as_json([(key.to.type_name, key.to.object_id, key.key) for key in keys])
        found = self._rows.read(_FIND_ONCE, (rows, now), _COLUMNS, self._once_reply)
        by_key = {reply.key: reply for reply in found}
        return [by_key.get(key) for key in keys]

    def page(self, after: OnceKey | None, limit: int) -> list[OnceReply]:
        """See `Reader.list_once`."""
        last = (after.to.type_name, after.to.object_id, after.key) if after else ("", "", "")
        return self._rows.read(_LIST_ONCE, (*last, limit), _COLUMNS, self._once_reply)

    def rename(self, old: str, new: str) -> None:
        """See `Writer.rename_messages`. The caller has a transaction open."""
        for sql in _RENAME_ONCE:
            self._rows.execute(sql, {"old": old, "new": new})

    def restore(self, once: Sequence[OnceReply], now: int) -> list[OnceKey]:
        """See `Writer.restore_messages`. The caller has a transaction open."""
        there = self.find([each.key for each in once], now)
        taken = {reply.key for reply in there if reply is not None}
        self._rows.connection.executemany(
            _RESTORE_ONCE.format(**self._rows.parts),
            [_once_row(each) for each in once if each.key not in taken],
        )
        return [each.key for each in once if each.key in taken]

    def _once_reply(self, *row: Any) -> OnceReply:
        type_name, object_id, key, handler, digest, signature, reply, expires_at, token = row
        return OnceReply(
            OnceKey(self._rows.object_key(type_name, object_id), key),
            handler,
            digest,
            signature,
            None if reply is None else reply.encode(),
            expires_at,
            token,
        )


def _once_row(reply: OnceReply) -> tuple[object, ...]:
    to = reply.key.to
    return (
        *(to.type_name, to.object_id, reply.key.key, reply.handler, reply.digest),
        *(reply.signature, reply.reply, reply.expires_at, reply.token),
    )
