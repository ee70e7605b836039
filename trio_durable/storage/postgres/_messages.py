"""Tables of messages and dead letters in a PostgreSQL database.

The part of a commit is in `_message_commits`. A page begins by an index search behind the last
row of the page before it. Receivers and lanes are found by one search each, since a condition on
several of them would walk through all messages in between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

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
from ._arrays import BigintArray, text_array
from ._connection import Connection
from ._message_rows import (
    COPIED,
    IN_ORDER,
    IS_K,
    KEYS,
    PLACE,
    STORED,
    STORED_TYPES,
    K,
    MessageRows,
    key_arrays,
    prefixed,
    read_columns,
    same_place,
    shard_of_key,
    stored_arrays,
)
from ._names import Names
from ._nodes import FENCE
from ._shard_function import ShardSet
from ._steps import MESSAGE_SHARDS

_MIN_TIME = -(2**63)

_READ = read_columns("m")
_READ_DEAD = f"{read_columns('d')}, d.died_at, d.is_overtaken"
_KEY = "to_type, to_id, lane, seq, token"
_OF_SHARDS = " AND get_bit(%s::bytea, shard)::boolean"
_OF_RECEIVER = "m.shard = %s AND m.to_type = %s AND m.to_id = %s"

# --- writing -------------------------------------------------------------------------------------

_DEFER = f"""
WITH {FENCE}, k AS MATERIALIZED (
    SELECT {prefixed("m", PLACE)}, k.w, k.f, k.e, k.c FROM fence CROSS JOIN
        unnest({KEYS}, %s::bigint[], %s::bigint[], %s::text[], %s::bigint[]) AS k ({K}, w, f, e, c)
    JOIN {{messages}} AS m ON {IS_K} AND passed = 1
    {IN_ORDER} FOR NO KEY UPDATE OF m
)
UPDATE {{messages}} AS m
SET wake_at = k.w, failures = k.f, last_error = k.e, crashes = k.c, begun = false
FROM k WHERE {same_place("m", "k")}
"""
_MARK = f"""
WITH {FENCE}
UPDATE {{messages}} AS m SET begun = true FROM fence
WHERE passed = 1 AND {_OF_RECEIVER} AND m.lane = %s AND m.seq = %s AND m.token = %s
"""
# In the order of keys, as all that locks several messages.
_END_MARKS = f"""
WITH {FENCE}, k AS MATERIALIZED (
    SELECT {prefixed("m", PLACE)} FROM fence
    JOIN {{messages}} AS m ON m.begun AND passed = 1{{of_shards}}
    {IN_ORDER} FOR NO KEY UPDATE OF m
)
UPDATE {{messages}} AS m SET begun = false, crashes = m.crashes + %s::int
FROM k WHERE {same_place("m", "k")}
"""
_BACK = (
    "lane, token, handler, arguments, sent_at, from_type, from_id, reply_to, failed_to, once_key, "
    "last_error"
)
_RETRY = f"""
WITH {FENCE}, held AS MATERIALIZED (
    SELECT d.*, k.n
    FROM fence CROSS JOIN unnest(%s::bigint[]) WITH ORDINALITY AS k (token, n)
    JOIN {{dead_messages}} AS d ON d.token = k.token AND passed = 1
    ORDER BY d.seq FOR UPDATE OF d
), gone AS (
    DELETE FROM {{dead_messages}} AS d USING held AS h WHERE d.seq = h.seq
), back AS (
    INSERT INTO {{messages}} (to_type, to_id, {_BACK})
    SELECT to_type, to_id, {_BACK} FROM held ORDER BY n
    RETURNING to_type, to_id, lane, seq, token
)
SELECT {prefixed("b", _KEY)}, h.is_overtaken FROM back AS b JOIN held AS h USING (token)
ORDER BY h.n
"""
_DROP = f"""
WITH {FENCE}, held AS MATERIALIZED (
    SELECT d.seq, d.token, k.n
    FROM fence CROSS JOIN unnest(%s::bigint[]) WITH ORDINALITY AS k (token, n)
    JOIN {{dead_messages}} AS d ON d.token = k.token AND passed = 1
    ORDER BY d.seq FOR UPDATE OF d
), gone AS (
    DELETE FROM {{dead_messages}} AS d USING held AS h WHERE d.seq = h.seq
)
SELECT token FROM held ORDER BY n
"""
_THERE = """
SELECT token FROM {messages} WHERE token = ANY (%s)
UNION ALL SELECT token FROM {dead_messages} WHERE token = ANY (%s)
"""
_RESTORE = f"""
INSERT INTO {{messages}} ({STORED})
SELECT {STORED} FROM unnest({STORED_TYPES}) WITH ORDINALITY AS k ({STORED}, n) ORDER BY n
RETURNING to_type, to_id, lane, seq, token
"""
_BURY_RESTORED = f"""
WITH gone AS (
    DELETE FROM {{messages}} AS m
    USING unnest({KEYS}, %s::bigint[], %s::bigint[]) AS k ({K}, died_at, late)
    WHERE {IS_K}
    RETURNING {prefixed("m", COPIED)}, k.died_at, k.late
)
INSERT INTO {{dead_messages}} ({COPIED}, died_at, is_overtaken)
SELECT {COPIED}, died_at, late <> 0 FROM gone
"""
_RENAME = """
UPDATE {table} SET
    lane = CASE WHEN from_type = k.old AND lane = k.old || '/' || from_id
        THEN k.new || '/' || from_id ELSE lane END,
    from_type = CASE WHEN from_type = k.old THEN k.new ELSE from_type END,
    to_type = CASE WHEN to_type = k.old THEN k.new ELSE to_type END
FROM (SELECT %s::text, %s::text) AS k (old, new)
WHERE to_type = k.old OR from_type = k.old
"""

# --- reading -------------------------------------------------------------------------------------

# The next receiver of the same shard, or else the first one of the next shard that has any. The
# rows of the recursion come in order.
_RECEIVERS = """
WITH RECURSIVE receivers (shard, to_type, to_id, n) AS (
    SELECT %s::integer, %s::text COLLATE "C", %s::text COLLATE "C", 0
    UNION ALL
    SELECT f.shard, f.to_type, f.to_id, r.n + 1 FROM receivers AS r CROSS JOIN LATERAL (
        (
            SELECT m.shard, m.to_type, m.to_id FROM {messages} AS m
            WHERE m.shard = r.shard AND (m.to_type, m.to_id) > (r.to_type, r.to_id)
            ORDER BY m.to_type, m.to_id LIMIT 1
        ) UNION ALL (
            SELECT m.shard, m.to_type, m.to_id FROM unnest(%s::bigint[]) AS s (shard)
            CROSS JOIN LATERAL (
                SELECT m.shard, m.to_type, m.to_id FROM {messages} AS m WHERE m.shard = s.shard
                ORDER BY m.to_type, m.to_id LIMIT 1
            ) AS m
            WHERE s.shard > r.shard LIMIT 1
        ) LIMIT 1
    ) AS f
    WHERE r.n < %s
)
SELECT r.to_type, r.to_id, EXISTS (
    SELECT FROM {messages} AS m
    WHERE m.shard = r.shard AND m.to_type = r.to_type AND m.to_id = r.to_id AND m.lane > ''
) OR EXISTS (
    SELECT FROM {messages} AS m
    WHERE m.shard = r.shard AND m.to_type = r.to_type AND m.to_id = r.to_id AND m.lane = ''
        AND m.wake_at IS NULL
)
FROM receivers AS r WHERE n > 0 ORDER BY n
"""
_AWAKE = f"""
SELECT {_READ} FROM {{messages}} AS m
WHERE {_OF_RECEIVER} AND m.lane = '' AND m.wake_at IS NULL AND m.seq > %s
ORDER BY m.seq LIMIT %s
"""
_LANE = f"""
SELECT {_READ} FROM {{messages}} AS m
WHERE {_OF_RECEIVER} AND m.lane = %s AND m.seq > %s ORDER BY m.seq LIMIT %s
"""
_LANES = f"""
WITH RECURSIVE own AS MATERIALIZED (
    SELECT {_READ} FROM {{messages}} AS m
    WHERE %s AND {_OF_RECEIVER} AND m.lane = '' AND m.wake_at IS NULL ORDER BY m.seq LIMIT %s
), lanes (lane, n) AS (
    SELECT %s::text COLLATE "C", 0
    UNION ALL
    SELECT (
        SELECT m.lane FROM {{messages}} AS m
        WHERE {_OF_RECEIVER} AND m.lane > lanes.lane ORDER BY m.lane LIMIT 1
    ), n + 1
    FROM lanes WHERE lane IS NOT NULL AND n < %s - (SELECT count(*) > 0 FROM own)::int
)
SELECT 0 AS n, own.* FROM own UNION ALL
SELECT n, m.* FROM lanes CROSS JOIN LATERAL (
    SELECT {_READ} FROM {{messages}} AS m
    WHERE {_OF_RECEIVER} AND m.lane = lanes.lane ORDER BY m.seq LIMIT %s
) AS m
WHERE n > 0 ORDER BY n, seq
"""
_LOAD = f"""
SELECT k.n, {_READ} FROM unnest({KEYS}) WITH ORDINALITY AS k ({K}, n)
JOIN {{messages}} AS m ON {IS_K}
"""
_DUE = f"""
SELECT {_KEY}, wake_at FROM {{messages}}
WHERE wake_at < %s AND (wake_at, seq) > (%s, %s) AND to_type <> ALL (%s::text[]){{of_shards}}
ORDER BY wake_at, seq LIMIT %s
"""
_SENT_UNDER = f"""
SELECT {_KEY} FROM {{messages}}
WHERE from_type = %s AND from_id = %s AND sender_key = %s ORDER BY seq LIMIT 1
"""
_WAITING = f"""
SELECT {_READ} FROM {{messages}} AS m
WHERE (m.shard, m.to_type, m.to_id, m.lane, m.seq) > (%s, %s, %s, %s, %s) {IN_ORDER} LIMIT %s
"""
# The shards come in order, and with them what is found in each.
_WAITING_OF_TYPE = f"""
SELECT m.* FROM generate_series(%s::integer, {MESSAGE_SHARDS - 1}) AS s (shard) CROSS JOIN LATERAL (
    SELECT {_READ} FROM {{messages}} AS m
    WHERE m.shard = s.shard AND m.to_type = %s
        AND (m.to_id, m.lane, m.seq) > (CASE WHEN s.shard = %s THEN %s ELSE '' END, %s, %s)
    ORDER BY m.to_id, m.lane, m.seq LIMIT %s
) AS m LIMIT %s
"""
_WAITING_OF_RECEIVER = f"""
SELECT {_READ} FROM {{messages}} AS m
WHERE {_OF_RECEIVER} AND (m.lane, m.seq) > (%s, %s) ORDER BY m.lane, m.seq LIMIT %s
"""
_DEAD = f"""
SELECT {_READ_DEAD} FROM {{dead_messages}} AS d WHERE d.seq > %s ORDER BY d.seq LIMIT %s
"""
_DEAD_OF_TYPE = f"""
SELECT {_READ_DEAD} FROM {{dead_messages}} AS d
WHERE d.to_type = %s AND d.seq > %s ORDER BY d.seq LIMIT %s
"""
_LOAD_DEAD = f"""
SELECT {_READ_DEAD} FROM unnest(%s::bigint[]) AS k (token)
JOIN {{dead_messages}} AS d ON d.token = k.token
"""
_SUMMARIZE = """
SELECT to_type, sum(waiting)::bigint, min(oldest), sum(dead)::bigint FROM (
    SELECT to_type, count(*) AS waiting, min(sent_at) AS oldest, 0 AS dead
    FROM {messages} GROUP BY to_type
    UNION ALL SELECT to_type, 0, NULL, count(*) FROM {dead_messages} GROUP BY to_type
) AS s GROUP BY to_type ORDER BY to_type
"""


class MessageTable:
    """The tables of one tenant. Methods raise psycopg's errors."""

    def __init__(self, names: Names) -> None:
        self._rows = MessageRows(names.tenant)
        self._defer = names.query(_DEFER)
        self._mark = names.query(_MARK)
        self._end_marks = names.query(_END_MARKS, of_shards="")
        self._end_marks_of_shards = names.query(_END_MARKS, of_shards=_OF_SHARDS)
        self._retry = names.query(_RETRY)
        self._drop = names.query(_DROP)
        self._there = names.query(_THERE)
        self._restore = names.query(_RESTORE)
        self._bury_restored = names.query(_BURY_RESTORED)
        self._renames = [
            names.query(_RENAME.replace("{table}", table))
            for table in ("{messages}", "{dead_messages}")
        ]
        self._receivers = names.query(_RECEIVERS)
        self._awake = names.query(_AWAKE)
        self._lane = names.query(_LANE)
        self._lanes = names.query(_LANES)
        self._load = names.query(_LOAD)
        self._due = names.query(_DUE, of_shards="")
        self._due_of_shards = names.query(_DUE, of_shards=_OF_SHARDS)
        self._sent_under = names.query(_SENT_UNDER)
        self._waiting = names.query(_WAITING)
        self._waiting_of_type = names.query(_WAITING_OF_TYPE)
        self._waiting_of_receiver = names.query(_WAITING_OF_RECEIVER)
        self._dead = names.query(_DEAD)
        self._dead_of_type = names.query(_DEAD_OF_TYPE)
        self._load_dead = names.query(_LOAD_DEAD)
        self._summarize = names.statement(_SUMMARIZE).encode()

    # --- writing ---------------------------------------------------------------------------------

    def defer(self, connection: Connection, deferrals: Sequence[Deferral]) -> None:
        """See `Writer.defer_messages`."""
        parameters = (
            *key_arrays([each.key for each in deferrals]),
            BigintArray([each.wake_at for each in deferrals]),
            BigintArray([each.failures for each in deferrals]),
            text_array(each.last_error for each in deferrals),
            BigintArray([each.crashes for each in deferrals]),
        )
        connection.execute(self._defer, connection.fenced(*parameters))

    def mark(self, connection: Connection, key: MessageKey) -> bool:
        """See `Writer.mark_message`."""
        parameters = (*_receiver(key.to), key.lane, key.seq, key.token)
        return connection.execute(self._mark, connection.fenced(*parameters)).rowcount > 0

    def end_marks(
        self, connection: Connection, shards: ShardSet | None, *, are_crashes: bool
    ) -> None:
        """End the marks of former nodes.

        Args:
            connection: For the statement.
            shards: Only those of messages in these shards.
            are_crashes: The processes that made them are dead, so their messages are charged.
        """
        if shards is None:
            parameters = connection.fenced(are_crashes)
            connection.execute(self._end_marks, parameters)
        else:
            parameters = connection.fenced(shards.bitmap, are_crashes)
            connection.execute(self._end_marks_of_shards, parameters)

    def retry(self, connection: Connection, tokens: Sequence[int]) -> list[RetriedMessage]:
        """See `Writer.retry_messages`."""
        rows = connection.execute(self._retry, connection.fenced(BigintArray(tokens)))
        return [RetriedMessage(self._rows.key(*key), is_overtaken) for *key, is_overtaken in rows]

    def drop(self, connection: Connection, tokens: Sequence[int]) -> list[int]:
        """See `Writer.drop_messages`."""
        rows = connection.execute(self._drop, connection.fenced(BigintArray(tokens)))
        return [token for (token,) in rows]

    def rename(self, connection: Connection, old: str, new: str) -> None:
        """See `Writer.rename_messages`. Part of a transaction."""
        for query in self._renames:
            connection.execute(query, (old, new))

    def restore(
        self,
        connection: Connection,
        waiting: Sequence[StoredMessage],
        dead: Sequence[DeadMessage],
    ) -> list[int]:
        """See `Writer.restore_messages`. Part of a transaction.

        All get their numbers as messages that wait, since only their table gives numbers.
        """
        tokens = [message.key.token for message in (*(d.message for d in dead), *waiting)]
        wanted = BigintArray(tokens)
        there = {token for (token,) in connection.execute(self._there, (wanted, wanted))}
        letters = [each for each in dead if each.message.key.token not in there]
        messages = [each.message for each in letters]
        messages += [each for each in waiting if each.key.token not in there]
        if messages:
            rows = connection.execute(self._restore, stored_arrays(messages))
            keys = [self._rows.key(*row) for row in rows]
            if letters:
                parameters = (
                    *key_arrays(sorted(keys, key=lambda key: key.seq)[: len(letters)]),
                    BigintArray([each.died_at for each in letters]),
                    BigintArray([each.is_overtaken for each in letters]),
                )
                connection.execute(self._bury_restored, parameters)
        return [token for token in tokens if token in there]

    # --- reading ---------------------------------------------------------------------------------

    def receivers(
        self, connection: Connection, after: ObjectKey | None, limit: int, shards: Sequence[int]
    ) -> list[Receiver]:
        """See `Reader.list_receivers`. By shard, type and id.

        Args:
            connection: For the statement.
            after: Only receivers after this one.
            limit: The length of the page.
            shards: Only receivers in these shards, in order.
        """
        last = (-1, "", "") if after is None else _receiver(after)
        behind = [shard for shard in shards if shard >= last[0]]
        if last[0] not in behind:
            last = (-1, "", "")
        rows = connection.execute(self._receivers, (*last, BigintArray(behind), limit))
        return [
            Receiver(self._rows.object_key(to_type, to_id), is_awake)
            for to_type, to_id, is_awake in rows
        ]

    def mail(
        self, connection: Connection, to: ObjectKey, after: str | None, lanes: int, limit: int
    ) -> list[StoredMessage]:
        """See `Reader.read_mail`."""
        receiver = _receiver(to)
        own = (after is None, *receiver, limit)
        parameters = (*own, after or "", *receiver, lanes, *receiver, limit)
        rows = connection.execute(self._lanes, parameters, binary=True)
        return [self._rows.message(*row) for _, *row in rows]

    def lane(
        self, connection: Connection, to: ObjectKey, lane: str, after: int, limit: int
    ) -> list[StoredMessage]:
        """See `Reader.read_lane`."""
        if lane:
            parameters: tuple[object, ...] = (*_receiver(to), lane, after, limit)
            rows = connection.execute(self._lane, parameters, binary=True)
        else:
            rows = connection.execute(self._awake, (*_receiver(to), after, limit), binary=True)
        return self._rows.messages(rows)

    def load(
        self, connection: Connection, keys: Sequence[MessageKey]
    ) -> list[StoredMessage | None]:
        """See `Reader.load_messages`."""
        found: list[StoredMessage | None] = [None] * len(keys)
        for n, *row in connection.execute(self._load, key_arrays(keys), binary=True):
            found[n - 1] = self._rows.message(*row)
        return found

    def due(
        self,
        connection: Connection,
        before: int,
        after: DueMessage | None,
        limit: int,
        except_types: Collection[str],
        shards: ShardSet | None,
    ) -> list[DueMessage]:
        """See `Reader.due_messages`. Only messages to objects in ``shards``, if some are given."""
        last = (_MIN_TIME, 0) if after is None else (after.wake_at, after.key.seq)
        query, of_shards = self._due, tuple[object, ...]()
        if shards is not None:
            query, of_shards = self._due_of_shards, (shards.bitmap,)
        parameters = (before, *last, text_array(except_types), *of_shards, limit)
        rows = connection.execute(query, parameters, binary=True)
        return [DueMessage(wake_at, self._rows.key(*key)) for *key, wake_at in rows]

    def find_sent(self, connection: Connection, sender: ObjectKey, name: str) -> MessageKey | None:
        """See `Reader.find_sent`."""
        parameters = (sender.type_name, sender.object_id, name)
        row = connection.execute(self._sent_under, parameters).fetchone()
        return None if row is None else self._rows.key(*row)

    def waiting(
        self,
        connection: Connection,
        type_name: str | None,
        object_id: str | None,
        after: MessageKey | None,
        limit: int,
    ) -> list[StoredMessage]:
        """See `Reader.list_messages`. By the receiver's shard, type and id, lane, and number."""
        last: tuple[Any, ...] = (-1, "", "")
        place: tuple[Any, ...] = ("", 0)
        if after is not None:
            last, place = _receiver(after.to), (after.lane, after.seq)
        if type_name is None:
            query, parameters = self._waiting, (*last, *place, limit)
        elif object_id is None:
            shard = last[0]
            query = self._waiting_of_type
            parameters = (max(shard, 0), type_name, shard, last[2], *place, limit, limit)
        else:
            query = self._waiting_of_receiver
            parameters = (*_receiver(self._rows.object_key(type_name, object_id)), *place, limit)
        return self._rows.messages(connection.execute(query, parameters, binary=True))

    def dead(
        self, connection: Connection, type_name: str | None, after: int, limit: int
    ) -> list[DeadMessage]:
        """See `Reader.list_dead_messages`."""
        if type_name is None:
            rows = connection.execute(self._dead, (after, limit), binary=True)
        else:
            parameters = (type_name, after, limit)
            rows = connection.execute(self._dead_of_type, parameters, binary=True)
        return self._rows.dead(rows)

    def load_dead(self, connection: Connection, tokens: Sequence[int]) -> list[DeadMessage | None]:
        """See `Reader.load_dead_messages`."""
        rows = connection.execute(self._load_dead, (BigintArray(tokens),), binary=True)
        by_token = {dead.message.key.token: dead for dead in self._rows.dead(rows)}
        return [by_token.get(token) for token in tokens]

    def summarize(self, connection: Connection) -> list[MessageSummary]:
        """See `Reader.summarize_messages`."""
        return [MessageSummary(*row) for row in connection.execute(self._summarize)]


def _receiver(key: ObjectKey) -> tuple[int, str, str]:
    return shard_of_key(key), key.type_name, key.object_id
