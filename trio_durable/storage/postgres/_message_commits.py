"""Changes of messages in a PostgreSQL database that are part of commits.

A message is removed by its whole key, in the order of keys, and the count must match; so a stale
receiver or a removal by another process can't make two effects of one message. A sent message needs
no lock: nothing waits for its number.

Statements lock objects and alarms first, then waiting messages, dead letters, and once-keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from .._messages import RECEIVER_DELETED
from ._arrays import BigintArray, TextArray, text_array
from ._connection import Connection
from ._message_groups import ACKNOWLEDGED, BURIED, Author, MessageGroup, Numbered
from ._message_rows import (
    COPIED,
    IN_ORDER,
    IS_K,
    KEYS,
    PLACE,
    SENT,
    SENT_TYPES,
    K,
    key_arrays,
    object_arrays,
    prefixed,
    same_place,
    sent_arrays,
)
from ._names import Names
from ._objects import IS_FRESH, MARK_STALE, REQUIRE_ALL

Result = psycopg.Cursor[tuple[Any, ...]]

_AUTHORS = "%s::text[], %s::text[]"
_K_IS_FRESH = IS_FRESH.format(type="k.t", id="k.i")
_M_PLACE = prefixed("m", PLACE)
_LOCKED_IN_ORDER = f"{IN_ORDER} FOR UPDATE OF m"

_CHECK = f"""
SELECT {MARK_STALE} FROM unnest({_AUTHORS}, {KEYS}) AS k (t, i, {K})
LEFT JOIN {{messages}} AS m ON {IS_K}
WHERE m.token IS NULL
HAVING count(*) > 0
"""
_LOST = f"""
WITH held AS MATERIALIZED (
    SELECT k.n FROM unnest({KEYS}) WITH ORDINALITY AS k ({K}, n)
    JOIN {{messages}} AS m ON {IS_K}
    {_LOCKED_IN_ORDER}
)
SELECT n FROM generate_series(1, %s) AS n WHERE n NOT IN (SELECT n FROM held)
"""

_FOUND = f"""
WITH found AS MATERIALIZED (
    SELECT k.n, {_M_PLACE} FROM unnest({KEYS}, %s::bigint[]) AS k ({K}, n)
    JOIN {{messages}} AS m ON {IS_K}
    UNION ALL
    SELECT k.n, {_M_PLACE}
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) AS k (ft, fi, sk, n)
    JOIN {{messages}} AS m ON m.from_type = k.ft AND m.from_id = k.fi AND m.sender_key = k.sk
    UNION ALL
    SELECT k.n, {_M_PLACE}
    FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[]) AS k (ms, mt, mi, n)
    JOIN {{messages}} AS m ON m.shard = k.ms AND m.to_type = k.mt AND m.to_id = k.mi
), places AS MATERIALIZED (
    SELECT DISTINCT {PLACE} FROM found
)
"""
_LOCK = f"""
{_FOUND}, locked AS MATERIALIZED (
    SELECT FROM places AS p JOIN {{messages}} AS m ON {same_place("m", "p")} {_LOCKED_IN_ORDER}
)
SELECT count(*) FROM locked
"""
_LOCKED = f"""
{_FOUND}, free AS MATERIALIZED (
    SELECT {_M_PLACE} FROM places AS p JOIN {{messages}} AS m ON {same_place("m", "p")}
    {_LOCKED_IN_ORDER} SKIP LOCKED
)
SELECT DISTINCT n FROM found AS m
WHERE NOT EXISTS (SELECT FROM free AS f WHERE {same_place("m", "f")})
"""

_BURIED_AS = COPIED.replace("failures", "{failures}").replace("last_error", "{last_error}")
_GONE = f"""
DELETE FROM {{{{messages}}}} AS m USING held AS h WHERE {same_place("m", "h")}
RETURNING {prefixed("m", COPIED)}
"""
# One DELETE for all kinds of change. The conditions of the dead letters fit no other index than
# that of lanes, and name a range in it besides the lane: where most dead letters are of one lane,
# planners would take it for no better than that of numbers, or than none, and read all older ones.
_USE_UP = f"""
WITH k AS MATERIALIZED (
    SELECT * FROM unnest({_AUTHORS}, {KEYS}, %s::bigint[], %s::bigint[], %s::text[])
        AS k (t, i, {K}, kind, f, e)
    WHERE {_K_IS_FRESH}
), held AS MATERIALIZED (
    SELECT {_M_PLACE}, k.kind, k.f, k.e FROM k JOIN {{messages}} AS m ON {IS_K}
    {_LOCKED_IN_ORDER}
), done AS (
    {_GONE.format()}, h.kind, h.f, h.e
), buried AS (
    INSERT INTO {{dead_messages}} ({COPIED}, died_at)
    SELECT {_BURIED_AS.format(failures="f", last_error="e")}, %s FROM done WHERE kind = {BURIED}
), late AS MATERIALIZED (
    SELECT d.seq FROM {{dead_messages}} AS d
    WHERE d.seq = ANY (ARRAY(
        SELECT l.seq FROM held AS h CROSS JOIN LATERAL (
            SELECT d.seq FROM {{dead_messages}} AS d
            WHERE d.to_id = h.to_id AND d.lane = h.lane AND d.to_type || '' = h.to_type
                AND (d.to_id, d.lane, d.seq) >= (h.to_id, h.lane, 0)
                AND (d.to_id, d.lane, d.seq) < (h.to_id, h.lane, h.seq)
                AND d.lane <> '' AND NOT d.is_overtaken
        ) AS l
        WHERE h.kind = {ACKNOWLEDGED}
    ))
    ORDER BY d.seq FOR UPDATE
), overtaken AS (
    UPDATE {{dead_messages}} AS d SET is_overtaken = true
    WHERE d.seq = ANY (ARRAY(SELECT seq FROM late))
) {REQUIRE_ALL}
"""
_CANCEL = f"""
WITH k AS MATERIALIZED (
    SELECT * FROM unnest({_AUTHORS}, %s::text[], %s::text[], %s::text[]) AS k (t, i, ft, fi, sk)
    WHERE {_K_IS_FRESH}
), held AS MATERIALIZED (
    SELECT {_M_PLACE}, k.t, k.i FROM k
    JOIN {{messages}} AS m ON m.from_type = k.ft AND m.from_id = k.fi AND m.sender_key = k.sk
    {_LOCKED_IN_ORDER}
), gone AS (
    {_GONE.format()}, h.t, h.i
)
SELECT t, i, sender_key FROM gone
"""
_DELETE = f"""
WITH k AS MATERIALIZED (
    SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS k (ms, t, i) WHERE {_K_IS_FRESH}
), held AS MATERIALIZED (
    SELECT {_M_PLACE} FROM k
    JOIN {{messages}} AS m ON m.shard = k.ms AND m.to_type = k.t AND m.to_id = k.i
    {_LOCKED_IN_ORDER}
), gone AS (
    {_GONE.format()}
)
INSERT INTO {{dead_messages}} ({COPIED}, died_at)
SELECT {_BURIED_AS.format(failures="failures", last_error=f"'{RECEIVER_DELETED}'")}, %s FROM gone
"""
# The numbers are given in the order of the rows.
_SEND = f"""
INSERT INTO {{messages}} ({SENT})
SELECT {SENT} FROM unnest({_AUTHORS}, {SENT_TYPES}) WITH ORDINALITY AS k (t, i, {SENT}, n)
WHERE {_K_IS_FRESH}
ORDER BY n
RETURNING token, seq
"""


class MessageCommits:
    """The table of messages of one tenant, as commits change it. Methods raise psycopg's errors."""

    def __init__(self, names: Names) -> None:
        self._check = names.query(_CHECK)
        self._lost = names.query(_LOST)
        self._lock = names.query(_LOCK)
        self._locked = names.query(_LOCKED)
        self._use_up = names.query(_USE_UP)
        self._cancel = names.query(_CANCEL)
        self._delete = names.query(_DELETE)
        self._send = names.query(_SEND)

    # --- conditions and locks --------------------------------------------------------------------

    def check(self, connection: Connection, group: MessageGroup) -> Result:
        """Find the commits whose messages aren't waiting, without locks, as of `ObjectTable.save`.

        A message may be removed between this and `use_up`, which then fails.
        """
        authors = _authors([each[0] for each in group.waiting])
        keys = key_arrays([each[1] for each in group.waiting])
        return connection.execute(self._check, (*authors, *keys))

    def lost(self, connection: Connection, batch: Sequence[Numbered]) -> set[int]:
        """The numbers of the commits whose messages aren't waiting. Locks the others."""
        waiting = [
            (number, key)
            for number, commit in batch
            if commit.messages is not None
            for key in commit.messages.waiting
        ]
        if not waiting:
            return set()
        parameters = (*key_arrays([key for _, key in waiting]), len(waiting))
        return {waiting[n - 1][0] for (n,) in connection.execute(self._lost, parameters)}

    def lock(self, connection: Connection, batch: Sequence[Numbered]) -> None:
        """Lock all messages that a batch removes, until the transaction ends."""
        connection.execute(self._lock, _found(batch))

    def locked(self, connection: Connection, batch: Sequence[Numbered]) -> set[int]:
        """The numbers of the commits with messages that other sessions have locked.

        Locks the messages of the others.
        """
        return {n for (n,) in connection.execute(self._locked, _found(batch))}

    # --- changes ---------------------------------------------------------------------------------

    def use_up(self, connection: Connection, group: MessageGroup, now: int) -> None:
        """Remove or bury messages. If one isn't waiting, this and the rest of the pipeline fail."""
        waiting = group.waiting
        connection.execute(
            self._use_up,
            (
                *_authors([each[0] for each in waiting]),
                *key_arrays([each[1] for each in waiting]),
                BigintArray([each[2] for each in waiting]),
                BigintArray([each[3] for each in waiting]),
                text_array(each[4] for each in waiting),
                now,
            ),
        )

    def cancel(self, connection: Connection, group: MessageGroup) -> Result:
        """Remove what waits under sender keys. The result is authors and keys of the removed."""
        keys = group.sender_keys
        return connection.execute(
            self._cancel,
            (
                *_authors([author for author, _, _ in keys]),
                text_array(sender.type_name for _, sender, _ in keys),
                text_array(sender.object_id for _, sender, _ in keys),
                text_array(name for _, _, name in keys),
            ),
        )

    def bury_all(self, connection: Connection, group: MessageGroup, now: int) -> None:
        """Bury all that waits for deleted objects."""
        connection.execute(self._delete, (*object_arrays([key for _, key in group.deleted]), now))

    def send(self, connection: Connection, group: MessageGroup) -> Result:
        """Store messages. The result is tokens and numbers of the stored ones."""
        authors = _authors([author for author, _ in group.sent])
        return connection.execute(
            self._send, (*authors, *sent_arrays([new for _, new in group.sent]))
        )


def _authors(authors: Sequence[Author]) -> tuple[TextArray, TextArray]:
    return text_array(each[0] for each in authors), text_array(each[1] for each in authors)


def _found(batch: Sequence[Numbered]) -> tuple[object, ...]:
    """The parameters of `_FOUND`: the messages that a batch removes, with numbers of commits."""
    changed = [(number, commit, commit.messages) for number, commit in batch if commit.messages]
    waiting = [(number, key) for number, _, changes in changed for key in changes.waiting]
    names = [
        (number, commit.key, name)
        for number, commit, changes in changed
        for name in changes.sender_keys
    ]
    deleted = [(number, commit.key) for number, commit in batch if commit.delete]
    return (
        *key_arrays([key for _, key in waiting]),
        BigintArray([number for number, _ in waiting]),
        text_array(sender.type_name for _, sender, _ in names),
        text_array(sender.object_id for _, sender, _ in names),
        text_array(name for _, _, name in names),
        BigintArray([number for number, _, _ in names]),
        *object_arrays([key for _, key in deleted]),
        BigintArray([number for number, _ in deleted]),
    )
