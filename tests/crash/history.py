"""Random work on a storage, and what each piece of it leaves, as the storage in memory has it."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from pathlib import Path

import attrs

from trio_durable import MemoryStorage, ObjectKey, SQLiteStorage
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    NewAlarm,
    ObjectRow,
    Postponement,
    Reader,
    Storage,
    StoredAlarm,
    Writer,
)

START = 1_767_225_600_000_000
TENANTS = ["", "acme", "bolt"]
KEYS = [ObjectKey("Cart", name, tenant) for tenant in TENANTS for name in "abc"]
NAMES = ["ring", "tick"]
ALL = 1000
FOREVER = 2**61


@attrs.frozen
class Contents:
    """What there is to see in a storage, when nothing is claimed."""

    tenants: tuple[str, ...]
    objects: tuple[ObjectRow, ...]
    alarms: tuple[tuple[StoredAlarm, int | None], ...]
    """Each with when it is available."""

    @classmethod
    def read(cls, reader: Reader) -> Contents:
        """All of it."""
        tenants = ("", *reader.list_tenants(None, ALL))
        return cls(
            tenants,
            tuple(
                row for tenant in tenants for row in reader.browse_objects(None, None, ALL, tenant)
            ),
            tuple(
                (row.alarm, row.available_at)
                for tenant in tenants
                for row in reader.browse_alarms(None, 0, None, None, ALL, tenant)
            ),
        )


@contextmanager
def opened(storage: Storage) -> Iterator[tuple[Writer, Reader]]:
    """Both sides of a storage."""
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        yield writer, reader


class Job:
    """A piece of work for a writer, drawn when nobody knows yet on which storage it will run."""

    def __init__(self, kind: str, *arguments: object) -> None:
        self.kind = kind
        self.arguments = arguments

    def __repr__(self) -> str:
        return f"{self.kind}{self.arguments}"

    def do(self, writer: Writer) -> object:
        """Do it; what comes out of it, in a form to compare."""
        outcome = getattr(writer, self.kind)(*self.arguments)
        return sorted(outcome, key=repr) if isinstance(outcome, (list, set, tuple)) else outcome


class Work:
    """Draws jobs that fit what was done so far, and knows what they leave."""

    def __init__(self, seed: object) -> None:
        self.rng = random.Random(str(seed))
        self.model = MemoryStorage()
        self.writer = self.model.open_writer()
        self._reader = self.model.open_reader()
        self._now = START
        self._claims = 0
        self._held: dict[AlarmKey, int] = {}

    def contents(self) -> Contents:
        """What is stored, if nothing is claimed any more."""
        return self.unclaimed(Contents.read(self._reader))

    def unclaimed(self, found: Contents) -> Contents:
        """The same, if what is held were given back, as the claims of a process that has died."""
        return attrs.evolve(
            found,
            alarms=tuple(
                (attrs.evolve(row, crashes=row.crashes or 0), row.due_at)
                if row.key in self._held
                else (row, available_at)
                for row, available_at in found.alarms
            ),
        )

    def reopen(self) -> None:
        """Note that the storage was closed and opened again."""
        self.writer.close()
        self.writer = self.model.open_writer()
        self._held.clear()

    def fork(self) -> Work:
        """A copy that goes its own way."""
        return deepcopy(self)

    def after(self, job: Job) -> Contents:
        """What there would be if a job were done."""
        fork = self.fork()
        fork.done(job)
        return fork.contents()

    def draw(self) -> Job:
        """What to do next. It must be done before the next one is drawn, with `done`."""
        self._now += 1000
        rng = self.rng
        match rng.choices(
            ["commit", "claim", "postpone", "renew", "revive", "drop_tenant"],
            [12, 4, 2, 1, 1, 1],
        )[0]:
            case "claim":
                self._claims += 1
                wanted = rng.sample([key.alarm(n) for key in KEYS for n in NAMES], 6)
                return Job("claim", wanted, self._claims, self._now + FOREVER // 2, FOREVER)
            case "postpone" if self._held:
                key, claim = rng.choice(list(self._held.items()))
                again_at = rng.choice([None, self._now + 5])
                return Job("postpone", [Postponement(key, claim, again_at, 1, "it failed")])
            case "renew" if self._held:
                return Job("renew", list(self._held.items()), FOREVER)
            case "revive":
                return Job("revive", rng.choice(KEYS).alarm(rng.choice(NAMES)), self._now)
            case "drop_tenant":
                return Job("drop_tenant", rng.choice(TENANTS[1:]))
            case _:
                return Job("commit", self._batch(), self._now)

    def done(self, job: Job) -> object:
        """Note that it was done; what has to come out of it."""
        outcome = job.do(self.writer)
        contents = self.model._contents
        if job.kind == "claim":
            keys, claim, *_ = job.arguments
            assert isinstance(keys, list)
            assert isinstance(claim, int)
            self._held.update({k: claim for k in keys if contents.alarms.holds(k, claim)})
        self._held = {
            key: claim for key, claim in self._held.items() if contents.alarms.holds(key, claim)
        }
        return outcome

    def _batch(self) -> list[Commit]:
        count = self.rng.choice([1, 1, 1, 2, 3, 6])
        revisions = {row.key: row.revision for row in self.contents().objects}
        return [self._commit(key, revisions.get(key, 0)) for key in self.rng.sample(KEYS, count)]

    def _commit(self, key: ObjectKey, revision: int) -> Commit:
        rng = self.rng
        if rng.random() < 0.05:
            revision += 7  # stale
        alarms = self._alarms(key) if rng.random() < 0.5 else None
        kind = rng.random()
        if kind < 0.75 or not (revision or alarms):
            size = rng.choice([0, 20, 20, 300, 6000])
            state = b'{"n":%d,"fill":"%s"}' % (
                self._now,
                bytes([97 + self._now // 1000 % 26]) * size,
            )
            return Commit(key, revision, state, alarms=alarms)
        if kind < 0.85:
            return Commit(key, revision, delete=True, alarms=AlarmChanges(clear=True))
        return Commit(key, revision if kind < 0.95 else None, alarms=alarms)

    def _alarms(self, key: ObjectKey) -> AlarmChanges:
        rng = self.rng
        changes = AlarmChanges(clear=rng.random() < 0.1)
        for name in NAMES:
            claim = self._held.get(key.alarm(name))
            if claim is not None and rng.random() < 0.7:
                changes.acknowledged[name] = claim
            if rng.random() < 0.6:
                changes.changed[name] = NewAlarm(self._now, b'{"n":%d}' % self._now)
            elif rng.random() < 0.2:
                changes.changed[name] = None
        return changes


def old_file(path: Path) -> None:
    """A file of the first release, before there were alarms, tenants and messages."""
    with opened(SQLiteStorage(path)) as (writer, _):
        writer.commit(
            [Commit(ObjectKey("Page", f"old {n}"), 0, b'{"total":1}') for n in range(9)], 0
        )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP VIEW durable_objects_v1")
        for table in ("alarms", "tenants", "messages", "dead_messages", "once"):
            connection.execute(f"DROP TABLE durable_{table}")
        connection.execute("DELETE FROM _sqlite_migrations WHERE name <> 'm001_objects'")
