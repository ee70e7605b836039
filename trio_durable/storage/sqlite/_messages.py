"""Tables of messages and dead letters in an SQLite file.

The part of a commit is in `_changes`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..._keys import ObjectKey
from .._messages import (
    DeadMessage,
    Deferral,
    DueMessage,
    MessageKey,
    MessageSummary,
    Receiver,
    RetriedMessage,
    StoredMessage,
)
from ._message_rows import DEAD_COLUMNS, KEY_COLUMNS, MessageRows, as_row, message_row
from ._message_schema import MESSAGE_COLUMNS
from ._parameters import as_json

_MIN_TIME = -(2**63)


# An index that a query must not do without is named. The planner has no statistics, and without
# them prefers other indexes for some of these.
_RECEIVERS = """
WITH RECURSIVE receivers(to_type, to_id, n) AS (
    SELECT :type, :id, 0
    UNION ALL
    SELECT m.to_type, m.to_id, n + 1 FROM receivers AS r CROSS JOIN {messages} AS m
    WHERE n < :limit AND m.seq = (
        SELECT seq FROM {messages} INDEXED BY {by_lane}
        -- A blob is above every text.
        WHERE (to_type, to_id, lane) > (r.to_type, r.to_id, x'')
        ORDER BY to_type, to_id, lane, place LIMIT 1))
SELECT to_type, to_id,
    EXISTS (
        SELECT 1 FROM {messages} AS m INDEXED BY {by_lane}
        WHERE m.to_type = r.to_type AND m.to_id = r.to_id AND m.lane > '')
    OR EXISTS (
        SELECT 1 FROM {messages} AS m INDEXED BY {awake}
        WHERE m.to_type = r.to_type AND m.to_id = r.to_id AND m.lane = '' AND m.wake_at IS NULL)
FROM receivers AS r WHERE n > 0 ORDER BY n
"""
_LANES = f"""
WITH RECURSIVE lanes(lane, n) AS (
    SELECT :after, 0
    UNION ALL
    SELECT (
        SELECT m.lane FROM {{messages}} AS m INDEXED BY {{by_lane}}
        WHERE to_type = :type AND to_id = :id AND m.lane > lanes.lane
        ORDER BY m.lane, place LIMIT 1), n + 1
    FROM lanes WHERE lane IS NOT NULL AND n < :lanes)
SELECT {", ".join(f"m.{name}" for name in MESSAGE_COLUMNS.split(", "))}
FROM lanes CROSS JOIN {{messages}} AS m
WHERE n > 0 AND m.seq IN (
    SELECT seq FROM {{messages}} INDEXED BY {{by_lane}}
    WHERE to_type = :type AND to_id = :id AND lane = lanes.lane ORDER BY place LIMIT :limit)
ORDER BY n, m.seq
"""
_LANE = f"""
SELECT {MESSAGE_COLUMNS} FROM {{messages}} INDEXED BY {{by_lane}}
WHERE to_type = ? AND to_id = ? AND lane = ? AND place > ? ORDER BY place LIMIT ?
"""
_AWAKE = f"""
SELECT {MESSAGE_COLUMNS} FROM {{messages}} INDEXED BY {{awake}}
WHERE to_type = ? AND to_id = ? AND lane = '' AND wake_at IS NULL AND place > ?
ORDER BY place LIMIT ?
"""
_LOAD = f"""
SELECT {", ".join(f"m.{name}" for name in MESSAGE_COLUMNS.split(", "))}
FROM json_each(?) AS k CROSS JOIN {{messages}} AS m ON m.seq = k.value
"""
_DUE = f"""
SELECT {KEY_COLUMNS}, wake_at FROM {{messages}} INDEXED BY {{by_time}}
WHERE wake_at IS NOT NULL AND wake_at < ? AND (wake_at, place) > (?, ?)
    AND to_type NOT IN (SELECT value FROM json_each(?))
ORDER BY wake_at, place LIMIT ?
"""
_SENT = f"""
SELECT {KEY_COLUMNS} FROM {{messages}} INDEXED BY {{by_sender_key}}
WHERE from_type = ? AND from_id = ? AND sender_key = ? ORDER BY seq LIMIT 1
"""
_SENT_UNDER = f"""
SELECT k.key, {KEY_COLUMNS}
FROM json_each(?) AS k CROSS JOIN {{messages}} INDEXED BY {{by_sender_key}}
WHERE from_type = k.value ->> 0 AND from_id = k.value ->> 1 AND sender_key = k.value ->> 2
"""
_WAITING = f"""
SELECT {MESSAGE_COLUMNS} FROM {{messages}} INDEXED BY {{by_lane}} WHERE {{where}}
ORDER BY to_type, to_id, lane, place LIMIT :limit
"""
_DEAD = f"""
SELECT {DEAD_COLUMNS} FROM {{dead}} WHERE seq > ? ORDER BY seq LIMIT ?
"""
_DEAD_OF_TYPE = f"""
SELECT {DEAD_COLUMNS} FROM {{dead}} INDEXED BY {{dead_by_type}}
WHERE to_type = ? AND place > ? ORDER BY place LIMIT ?
"""
_LOAD_DEAD = f"""
SELECT {", ".join(f"d.{name}" for name in DEAD_COLUMNS.split(", "))}
FROM json_each(?) AS k CROSS JOIN {{dead}} AS d INDEXED BY {{dead_by_token}} ON d.token = k.value
"""
_SUMMARIZE = """
SELECT to_type, sum(waiting), min(oldest), sum(dead) FROM (
    SELECT to_type, count(*) AS waiting, min(sent_at) AS oldest, 0 AS dead
    FROM {messages} GROUP BY to_type
    UNION ALL SELECT to_type, 0, NULL, count(*) FROM {dead} GROUP BY to_type)
GROUP BY to_type ORDER BY to_type
"""

_THIS = """
seq = k.value ->> 3 AND token = k.value ->> 4 AND to_type = k.value ->> 0
    AND to_id = k.value ->> 1 AND lane = k.value ->> 2
"""
_COUNT = f"""
SELECT count(*) FROM json_each(?) AS k CROSS JOIN {{messages}} WHERE {_THIS}
"""
_DEFER = f"""
UPDATE {{messages}} SET wake_at = k.value ->> 5, failures = k.value ->> 6,
    last_error = k.value ->> 7, crashes = k.value ->> 8, begun = 0
FROM json_each(?) AS k WHERE {_THIS}
"""
_MARK = """
UPDATE {messages} SET begun = 1
WHERE to_type = ? AND to_id = ? AND lane = ? AND seq = ? AND token = ?
"""
_COUNT_CRASHES = """
UPDATE {messages} INDEXED BY {begun} SET crashes = crashes + 1, begun = 0 WHERE begun <> 0
"""
_LAST = """
SELECT max(ifnull((SELECT max(seq) FROM {messages}), 0), ifnull((SELECT max(seq) FROM {dead}), 0))
"""
_RETRY = """
INSERT INTO {messages} (
    seq, place, to_type, to_id, lane, token, handler, arguments, sent_at, hops, from_type,
    from_id, reply_to, failed_to, once_key, last_error)
SELECT k.value ->> 0, k.value ->> 0, to_type, to_id, lane, token, handler, arguments, sent_at, 0,
    from_type, from_id, reply_to, failed_to, once_key, last_error
FROM json_each(?) AS k CROSS JOIN {dead} AS d INDEXED BY {dead_by_token}
    ON d.token = k.value ->> 1
"""
_DROP = """
DELETE FROM {dead} INDEXED BY {dead_by_token} WHERE token IN (SELECT value FROM json_each(?))
"""
_THERE = """
SELECT token FROM {messages} WHERE token IN (SELECT value FROM json_each(:tokens))
UNION ALL SELECT token FROM {dead} WHERE token IN (SELECT value FROM json_each(:tokens))
"""
# The number is used twice. Not by ?4: sqlite3 takes numbered parameters for names, and from Python
# 3.14 on refuses them with a sequence.
_RESTORE = f"""
INSERT INTO {{table}} (place, {MESSAGE_COLUMNS}{{more}})
SELECT column4, {", ".join(f"column{n}" for n in range(1, 7))}, CAST(column7 AS TEXT),
    {", ".join(f"column{n}" for n in range(8, 20))}{{values}}
FROM (VALUES ({{marks}}))
"""
_RENAME = (
    """
    UPDATE {table} SET lane = :new || '/' || from_id
    WHERE from_type = :old AND lane = :old || '/' || from_id
    """,
    "UPDATE {table} SET from_type = :new WHERE from_type = :old",
    "UPDATE {table} SET to_type = :new WHERE to_type = :old",
)


class MessageTable:
    """The tables of one tenant. Methods raise sqlite3's errors.

    Args:
        rows: Statements on the tables.
        tenant: The tenant's name.
        numbers: The last number that the writer gave to a message, by tenant.
    """

    def __init__(self, rows: MessageRows, tenant: str, numbers: dict[str, int]) -> None:
        self._rows = rows
        self._numbers = numbers
        self._tenant = tenant

    # --- for commits -----------------------------------------------------------------------------

    def take_numbers(self, count: int) -> int:
        """The first of ``count`` numbers that no message has had since the writer opened."""
        last = self._numbers.get(self._tenant)
        if last is None:
            last = self._last()
        self._numbers[self._tenant] = last + count
        return last + 1

    def recount(self) -> None:
        """Find the last number once more, in case that another program has written some."""
        self._numbers[self._tenant] = max(self._last(), self._numbers.get(self._tenant, 0))

    def _last(self) -> int:
        last: int = self._rows.execute(_LAST).fetchone()[0]
        return last

    def are_waiting(self, keys: Sequence[MessageKey]) -> bool:
        """True if all of these messages wait."""
        rows = as_json([as_row(key) for key in keys])
        found: int = self._rows.execute(_COUNT, (rows,)).fetchone()[0]
        return found == len(keys)

    def sent_under(self, keys: Sequence[tuple[ObjectKey, str]]) -> list[tuple[int, MessageKey]]:
        """The messages that wait under pairs (sender, sender key), with the positions of these."""
        rows = as_json([(sender.type_name, sender.object_id, name) for sender, name in keys])
        found = self._rows.execute(_SENT_UNDER, (rows,))
        return [(position, self._rows.key(*key)) for position, *key in found]

    # --- writing ---------------------------------------------------------------------------------

    def defer(self, deferrals: Sequence[Deferral]) -> None:
        """See `Writer.defer_messages`."""
        rows = [
            (*as_row(each.key), each.wake_at, each.failures, each.last_error, each.crashes)
            for each in deferrals
        ]
        self._rows.execute(_DEFER, (as_json(rows),))

    def mark(self, key: MessageKey) -> bool:
        """See `Writer.mark_message`."""
        return self._rows.execute(_MARK, as_row(key)).rowcount > 0

    def count_crashes(self) -> None:
        """Count the crashes of the marked, as the file opens."""
        self._rows.execute(_COUNT_CRASHES)

    def retry(self, tokens: Sequence[int]) -> list[RetriedMessage]:
        """See `Writer.retry_messages`. The caller has a transaction open."""
        found = [dead for dead in self.load_dead(tokens) if dead is not None]
        first = self.take_numbers(len(found))
        retried = [
            RetriedMessage(dead.message.key._replace(seq=seq), dead.is_overtaken)
            for seq, dead in enumerate(found, first)
        ]
        rows = as_json([(each.key.seq, each.key.token) for each in retried])
        self._rows.execute(_RETRY, (rows,))
        self._rows.execute(_DROP, (as_json([each.key.token for each in retried]),))
        return retried

    def drop(self, tokens: Sequence[int]) -> list[int]:
        """See `Writer.drop_messages`. The caller has a transaction open."""
        found = [dead.message.key.token for dead in self.load_dead(tokens) if dead is not None]
        self._rows.execute(_DROP, (as_json(found),))
        return found

    def rename(self, old: str, new: str) -> None:
        """See `Writer.rename_messages`. The caller has a transaction open."""
        for table in (self._rows.parts["messages"], self._rows.parts["dead"]):
            for sql in _RENAME:
                self._rows.execute(sql, {"old": old, "new": new}, table=table)

    def restore(
        self,
        waiting: Sequence[StoredMessage],
        dead: Sequence[DeadMessage],
    ) -> list[int]:
        """See `Writer.restore_messages`. The caller has a transaction open."""
        tokens = [message.key.token for message in (*(d.message for d in dead), *waiting)]
        there = {token for (token,) in self._rows.execute(_THERE, {"tokens": as_json(tokens)})}
        new_dead = [each for each in dead if each.message.key.token not in there]
        new_waiting = [each for each in waiting if each.key.token not in there]
        first = self.take_numbers(len(new_dead) + len(new_waiting))
        self._restore(
            "dead",
            [
                (*message_row(each.message, seq), each.died_at, each.is_overtaken)
                for seq, each in enumerate(new_dead, first)
            ],
            more=", died_at, is_overtaken",
            values=", column20, column21",
            marks=", ".join("?" * 21),
        )
        self._restore(
            "messages",
            [message_row(each, seq) for seq, each in enumerate(new_waiting, first + len(new_dead))],
            more="",
            values="",
            marks=", ".join("?" * 19),
        )
        return [token for token in tokens if token in there]

    def _restore(self, table: str, rows: Sequence[Sequence[object]], **parts: str) -> None:
        sql = _RESTORE.format(table=self._rows.parts[table], **parts)
        self._rows.connection.executemany(sql, rows)

    # --- reading ---------------------------------------------------------------------------------

    def receivers(self, after: ObjectKey | None, limit: int) -> list[Receiver]:
        """See `Reader.list_receivers`."""
        last = {
            "type": after.type_name if after else "",
            "id": after.object_id if after else "",
            "limit": limit,
        }
        return self._rows.read(
            _RECEIVERS,
            last,
            "to_type, to_id, awake",
            lambda to_type, to_id, awake: Receiver(
                self._rows.object_key(to_type, to_id), bool(awake)
            ),
        )

    def mail(self, to: ObjectKey, after: str | None, lanes: int, limit: int) -> list[StoredMessage]:
        """See `Reader.read_mail`."""
        found = self.lane(to, "", 0, limit) if after is None else []
        parameters = {
            "type": to.type_name,
            "id": to.object_id,
            "after": after or "",
            "lanes": lanes - bool(found),
            "limit": limit,
        }
        if parameters["lanes"]:
            found += self._rows.read_messages(_LANES, parameters)
        return found

    def lane(self, to: ObjectKey, lane: str, after: int, limit: int) -> list[StoredMessage]:
        """See `Reader.read_lane`."""
        if lane:
            return self._rows.read_messages(_LANE, (to.type_name, to.object_id, lane, after, limit))
        return self._rows.read_messages(_AWAKE, (to.type_name, to.object_id, after, limit))

    def load(self, keys: Sequence[MessageKey]) -> list[StoredMessage | None]:
        """See `Reader.load_messages`."""
        found = self._rows.read_messages(_LOAD, (as_json([key.seq for key in keys]),))
        by_key = {message.key: message for message in found}
        return [by_key.get(key) for key in keys]

    def due(
        self, before: int, after: DueMessage | None, limit: int, except_types: Collection[str]
    ) -> list[DueMessage]:
        """See `Reader.due_messages`."""
        last = (_MIN_TIME, 0) if after is None else (after.wake_at, after.key.seq)
        return self._rows.read(
            _DUE,
            (before, *last, as_json(list(except_types)), limit),
            f"{KEY_COLUMNS}, wake_at",
            lambda *row: DueMessage(row[5], self._rows.key(*row[:5])),
        )

    def find_sent(self, sender: ObjectKey, name: str) -> MessageKey | None:
        """See `Reader.find_sent`."""
        row = self._rows.execute(_SENT, (sender.type_name, sender.object_id, name)).fetchone()
        return None if row is None else self._rows.key(*row)

    def waiting(
        self, type_name: str | None, object_id: str | None, after: MessageKey | None, limit: int
    ) -> list[StoredMessage]:
        """See `Reader.list_messages`."""
        where = "(to_type, to_id, lane, place) > (:type, :id, :lane, :place)"
        last_type = after.to.type_name if after else ""
        last_id = after.to.object_id if after else ""
        if type_name is not None:
            last_type = type_name
            where = "to_type = :type AND (to_id, lane, place) > (:id, :lane, :place)"
            if object_id is not None:
                last_id = object_id
                where = "to_type = :type AND to_id = :id AND (lane, place) > (:lane, :place)"
        parameters = {
            "type": last_type,
            "id": last_id,
            "lane": after.lane if after else "",
            "place": after.seq if after else 0,
            "limit": limit,
        }
        return self._rows.read_messages(_WAITING, parameters, where=where)

    def dead(self, type_name: str | None, after: int, limit: int) -> list[DeadMessage]:
        """See `Reader.list_dead_messages`."""
        if type_name is None:
            return self._rows.read(_DEAD, (after, limit), DEAD_COLUMNS, self._rows.dead_message)
        parameters = (type_name, after, limit)
        return self._rows.read(_DEAD_OF_TYPE, parameters, DEAD_COLUMNS, self._rows.dead_message)

    def load_dead(self, tokens: Sequence[int]) -> list[DeadMessage | None]:
        """See `Reader.load_dead_messages`."""
        listed = (as_json(list(tokens)),)
        found = self._rows.read(_LOAD_DEAD, listed, DEAD_COLUMNS, self._rows.dead_message)
        by_token = {dead.message.key.token: dead for dead in found}
        return [by_token.get(token) for token in tokens]

    def summarize(self) -> list[MessageSummary]:
        """See `Reader.summarize_messages`."""
        return [MessageSummary(*row) for row in self._rows.execute(_SUMMARIZE)]
