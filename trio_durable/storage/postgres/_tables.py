"""Tables of one tenant in a PostgreSQL database, and the statements that apply a batch to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import psycopg

from ..._keys import ObjectKey
from .._batch import GroupedChanges, acknowledgements, both_names
from .._faults import PartialFault
from .._records import Commit
from ._alarms import AlarmTable
from ._connection import Connection
from ._job_alarms import JobAlarmTable
from ._job_recurrences import JobRecurrences
from ._jobs import Jobs
from ._message_commits import MessageCommits
from ._message_groups import Author, MessageGroup, Numbered, author_of, parts
from ._messages import MessageTable
from ._names import Names
from ._objects import ObjectTable
from ._once import OnceTable
from ._recurrences import Recurrences

MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
"""Errors of statements on the tables of a tenant that doesn't exist."""

Result = psycopg.Cursor[tuple[Any, ...]]

_BOTH = """
WITH named AS (
    SELECT type_name, object_id FROM {objects} UNION SELECT type_name, object_id FROM {alarms} AS a
)
SELECT o.object_id FROM named AS o JOIN named AS n USING (object_id)
WHERE o.type_name = %s AND n.type_name = %s ORDER BY o.object_id LIMIT 1
"""
_RENAME = "UPDATE {table} SET type_name = %s WHERE type_name = %s"

MAX_CACHED_TENANTS = 256
"""Number of tenants whose statements are kept in memory."""


class Applied:
    """The results of `TenantTables.apply`, to be read when the statements have been executed."""

    def __init__(self) -> None:
        self.stale: list[Result] = []
        """Each has a row if commits are stale: an array of types and one of ids, see `author_of`.
        """
        self.sent: list[tuple[Result, MessageGroup]] = []
        self.taken_back: list[tuple[Result, MessageGroup]] = []

    def authors(self) -> Iterator[Author]:
        """The authors of the stale commits."""
        for cursor in self.stale:
            for types, ids in ((row[0], row[1]) for row in cursor):
                yield from zip(types, ids, strict=True)

    def write_results(self) -> None:
        """Write the results of commits with messages into their records."""
        for cursor, group in self.sent:
            numbers: dict[int, int] = dict(cursor)
            for _, new in group.sent:
                new.seq = numbers.get(new.token, 0)
        for cursor, group in self.taken_back:
            for type_name, object_id, name in cursor:
                group.changes[type_name, object_id].taken_back |= {name}


class TenantTables:
    """The tables of a tenant. Methods raise psycopg's errors."""

    def __init__(self, names: Names) -> None:
        self._tenant = names.tenant
        self._both = names.query(_BOTH)
        self.objects = ObjectTable(names)
        self.alarms: AlarmTable = AlarmTable(names)
        self.recurrences: Recurrences = Recurrences(names)
        rename = names.query(_RENAME.replace("{table}", "{alarms}"))
        self.drop_alarms: bytes | None = None
        """The statement that removes the tenant's alarms, if they aren't in its own schema."""
        if names.jobs is not None:
            self.alarms = jobs = JobAlarmTable(names, names.jobs)
            self.recurrences = JobRecurrences(names, names.jobs)
            rename, self.drop_alarms = jobs.rename, jobs.drop
        self._renames = [names.query(_RENAME.replace("{table}", "{objects}")), rename]
        self.messages = MessageTable(names)
        self.once = OnceTable(names)
        self._message_commits = MessageCommits(names)

    def rename(self, connection: Connection, old: str, new: str) -> int:
        """Rename a type everywhere. Part of a transaction. Returns the number of objects.

        Raises:
            PartialFault: Something has both names.
        """
        taken = connection.execute(self._both, (old, new)).fetchone()
        if taken is not None:
            raise PartialFault(both_names(old, ObjectKey(new, taken[0], self._tenant)))
        renamed, _ = (connection.execute(query, (new, old)) for query in self._renames)
        self.messages.rename(connection, old, new)
        self.once.rename(connection, old, new)
        return renamed.rowcount

    def apply(self, connection: Connection, batch: Sequence[Numbered], now: int) -> Applied:
        """Apply the commits that aren't stale, by one statement for each kind of change.

        The method reads no results, so the statements can go to the server as a pipeline. It is
        part of a transaction. A claim that was lost in this very moment makes a statement fail, as
        does a save whose row was deleted, a message that was removed, and a once-key that was
        taken; then the transaction must be rolled back.

        Deadlocks are avoided by locking rows in the order of keys, those of objects before those of
        alarms, and these before those of messages. A statement does so by itself. If several
        statements would lock existing rows, one statement locks all of them first.

        Args:
            connection: It has a transaction or a pipeline open.
            batch: Pairs (number, commit).
            now: The current wall time.
        """
        applied = Applied()
        divided = parts(batch)
        if len(divided) > 1:
            commits = [commit for _, commit in batch]
            if stored := [commit for commit in commits if commit.revision]:
                applied.stale.append(self.objects.require_fresh(connection, stored))
            if any(commit.alarms for commit in commits):
                self._lock_alarms(connection, GroupedChanges(commits))
            self._message_commits.lock(connection, batch)
        for part in divided:
            self._apply_part(connection, part, now, applied, are_locked=len(divided) > 1)
        return applied

    def _apply_part(
        self,
        connection: Connection,
        batch: Sequence[Numbered],
        now: int,
        applied: Applied,
        *,
        are_locked: bool,
    ) -> None:
        stale = applied.stale
        commits = [commit for _, commit in batch]
        grouped, group = GroupedChanges(commits), MessageGroup(batch)
        if grouped.acknowledged:
            stale.append(self.alarms.check(connection, grouped.acknowledged))
        if group.waiting:
            stale.append(self._message_commits.check(connection, group))
        if group.recorded:
            stale.append(self.once.check(connection, group, now))
        unchanged = [commit for commit in grouped.unchanged if commit.revision]
        # A missing row can't be locked. So it is inserted, for which a concurrent insert waits, and
        # removed again.
        missing = [commit for commit in grouped.unchanged if not commit.revision]
        if unchanged or (grouped.deleted and grouped.saved):
            stored = [commit for commit in commits if commit.revision]
            stale.append(self.objects.require_fresh(connection, stored))
        if grouped.saved or missing:
            stale.append(self.objects.save(connection, [*grouped.saved, *missing], now))
        if missing:
            self.objects.remove(connection, missing)
        if grouped.deleted:
            stale.append(self.objects.delete(connection, grouped.deleted))
        removed = (grouped.acknowledged, grouped.cleared, grouped.cancelled)
        if sum(map(bool, (*removed, grouped.scheduled, grouped.conditional))) > 1:
            self._lock_alarms(connection, grouped)
        if grouped.acknowledged:
            self.alarms.acknowledge_all(connection, grouped.acknowledged)
        if grouped.cleared:
            self.alarms.clear(connection, grouped.cleared)
        if grouped.cancelled:
            self.alarms.cancel(connection, grouped.cancelled)
        if grouped.scheduled:
            self.alarms.set(connection, grouped.scheduled)
        if grouped.conditional:
            self.recurrences.set_onto(connection, grouped.conditional, now)
        if group.locks > 1 and not are_locked:
            self._message_commits.lock(connection, batch)
        if group.waiting:
            self._message_commits.use_up(connection, group, now)
        if group.sender_keys:
            applied.taken_back.append((self._message_commits.cancel(connection, group), group))
        if group.deleted:
            self._message_commits.bury_all(connection, group, now)
        if group.sent:
            applied.sent.append((self._message_commits.send(connection, group), group))
        if group.recorded:
            self.once.record(connection, group, now)

    def stale(self, connection: Connection, batch: Sequence[Numbered], now: int) -> set[int]:
        """The numbers of the commits that are stale by the rows as they are.

        Locks the rows of the others, in the order of keys, until the transaction ends. A commit may
        still be stale by an earlier one of the batch.
        """
        conditional = [(number, commit) for number, commit in batch if commit.revision is not None]
        positions = self.objects.stale(connection, [commit for _, commit in conditional])
        found = {conditional[position][0] for position in positions}
        if any(commit.alarms for _, commit in batch):
            self._lock_alarms(connection, GroupedChanges(commit for _, commit in batch))
        claims = acknowledgements(batch)
        if claims:
            found |= self.alarms.lost(connection, claims)
        if any(commit.messages or commit.delete for _, commit in batch):
            self._message_commits.lock(connection, batch)
            found |= self._message_commits.lost(connection, batch)
            found |= self.once.taken(connection, batch, now)
        return found

    def locked(self, connection: Connection, batch: Sequence[Numbered]) -> set[int]:
        """The numbers of the commits whose rows, alarms or messages other sessions have locked.

        Waits for locks of the tables only. Locks the rows of the others.

        Args:
            connection: It has a transaction open.
            batch: Pairs (number, commit).
        """
        of_objects = [(number, commit) for number, commit in batch if author_of(number, commit)[0]]
        positions = self.objects.locked(connection, [commit for _, commit in of_objects])
        numbers = {of_objects[position][0] for position in positions}
        if any(commit.alarms for _, commit in batch):
            numbers |= self.alarms.locked(connection, batch)
        if any(commit.messages or commit.delete for _, commit in batch):
            numbers |= self._message_commits.locked(connection, batch)
            numbers |= self.once.locked(connection, batch)
        return numbers

    def _lock_alarms(self, connection: Connection, grouped: GroupedChanges) -> None:
        """Lock all alarms that the batch changes, by one statement."""
        named = [key for key, _ in grouped.acknowledged]
        named += [key for key, _ in (*grouped.scheduled, *grouped.conditional)]
        self.alarms.lock(connection, named + grouped.cancelled, grouped.cleared)


def stale_positions(batch: Sequence[Commit], results: Iterable[tuple[str, Applied]]) -> set[int]:
    """The positions of the commits that are stale by the results of `TenantTables.apply`.

    Writes what the others have answered into their records.

    Args:
        batch: All commits.
        results: Pairs (tenant, results).
    """
    stale: set[tuple[str, str, str]] = set()
    for tenant, applied in results:
        applied.write_results()
        stale.update((tenant, *author) for author in applied.authors())
    if not stale:
        return set()
    return {
        position
        for position, commit in enumerate(batch)
        if (commit.key.tenant, *author_of(position, commit)) in stale
    }


def tables_by_tenant(home: str, jobs: Jobs | None) -> Callable[[str], TenantTables]:
    """A cached function from a tenant's name to its tables, which need not exist.

    Args:
        home: The schema of the nameless tenant.
        jobs: The place of alarms that are jobs of Oban.
    """
    return lru_cache(MAX_CACHED_TENANTS)(lambda tenant: TenantTables(Names(home, tenant, jobs)))
