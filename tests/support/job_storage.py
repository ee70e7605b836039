"""A storage whose alarms are jobs of Oban, behind the contract's claims.

The number of a claim is that of a job and its attempt, which Oban gives. The conformance suite
gives numbers of its own, and times at which claims run out; this adapter keeps both in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict

from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    AlarmRow,
    AlarmStatus,
    Commit,
    DueAlarm,
    ForwardingReader,
    ForwardingStorage,
    ForwardingWriter,
    Postponement,
    Reader,
    StoredAlarm,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._job_queue import JobQueue
from trio_durable.storage.postgres._jobs import Jobs, claim_of

from .oban_tables import install_tables

PRODUCER = "7b8e0f3e-9a1c-4b3d-8f6a-0d5b0a3c1a11"
_RUNNING = """
SELECT args->>'type', args->>'id', args->>'name', args->>'tenant', id, attempt FROM oban_jobs
WHERE state = 'executing'
"""


def schema_of(conninfo: str) -> str:
    """The schema that a connection string of the fixture ``postgres`` leads to."""
    options = conninfo_to_dict(conninfo)["options"]
    assert isinstance(options, str)
    return options.removeprefix("-csearch_path=")


def storage_with_jobs(conninfo: str) -> PostgresStorage:
    """A storage whose alarms are jobs, in tables of Oban that are made for it."""
    install_tables(conninfo)
    storage = PostgresStorage(conninfo)
    storage.keep_alarms_as_jobs(Jobs(schema_of(conninfo), "durable"))
    return storage


class JobStorage(ForwardingStorage):
    """The storage of one test."""

    def __init__(self, conninfo: str) -> None:
        self._postgres = storage_with_jobs(conninfo)
        super().__init__(self._postgres)
        self._conninfo = conninfo
        self._claims = Claims(conninfo)

    def open_writer(self) -> Writer:
        writer = self._postgres.open_writer()
        queue = self._postgres.job_queue
        assert queue is not None
        queue.register(PRODUCER)
        return JobWriter(writer, queue, self._claims)

    def open_reader(self) -> Reader:
        return JobReader(self._postgres.open_reader(), self._claims)


class Claims:
    """The claims that are held, by the suite's numbers and by those of Oban."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self.of_jobs: dict[tuple[AlarmKey, int], int] = {}
        """The job's claim, by alarm and by the suite's number."""
        self.ends: dict[int, int] = {}
        """When a job's claim runs out."""

    def held(self, alarms: Sequence[AlarmKey]) -> dict[AlarmKey, int]:
        """The ends of the claims that are held."""
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            rows = connection.execute(_RUNNING).fetchall()
        running = {AlarmKey(*key): claim_of(job, attempt) for *key, job, attempt in rows}
        return {key: self.ends[running[key]] for key in alarms if key in running}


class JobReader(ForwardingReader):
    """A reader that knows when claims run out."""

    def __init__(self, inner: Reader, claims: Claims) -> None:
        super().__init__(inner)
        self._claims = claims

    def due_alarms(
        self,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueAlarm]:
        found = self.inner.due_alarms(before, after, limit, except_types, tenant)
        held = self._claims.held([each.key for each in found])
        if not held:
            return found
        due = (DueAlarm(held.get(each.key, each.available_at), each.key) for each in found)
        return sorted(
            (each for each in due if each.available_at < before),
            key=lambda each: (each.available_at, each.key),
        )

    def browse_alarms(
        self,
        status: AlarmStatus | None,
        now: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[AlarmRow]:
        found = self.inner.browse_alarms(status, now, type_name, after, limit, tenant)
        held = self._claims.held([each.alarm.key for each in found])
        return [
            attrs.evolve(each, available_at=held.get(each.alarm.key, each.available_at))
            for each in found
        ]


class JobWriter(ForwardingWriter):
    """A writer that knows claims by the numbers that it was given."""

    def __init__(self, inner: Writer, queue: JobQueue, claims: Claims) -> None:
        super().__init__(inner)
        self._queue = queue
        self._claims = claims

    def _of_job(self, alarm: AlarmKey, claim: int) -> int:
        return self._claims.of_jobs.get((alarm, claim), claim)

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        return self.inner.commit([self._translated(commit) for commit in batch], now)

    def _translated(self, commit: Commit) -> Commit:
        alarms = commit.alarms
        if alarms is None or not alarms.acknowledged:
            return commit
        known = {
            name: self._of_job(commit.key.alarm(name), claim)
            for name, claim in alarms.acknowledged.items()
        }
        return attrs.evolve(commit, alarms=AlarmChanges(known, alarms.clear, alarms.changed))

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        found: list[StoredAlarm] = []
        held = self._claims.held(alarms)
        for key in alarms:
            if held.get(key, now) > now:
                continue
            job = self._queue.claim(key, "node", PRODUCER)
            if job is not None:
                self._claims.of_jobs[key, claim] = job.claim
                self._claims.ends[job.claim] = until
                found.append(job.alarm)
        return found

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        of_jobs = [(key, self._of_job(key, claim)) for key, claim in claims]
        self.inner.renew(of_jobs, until)
        self._claims.ends |= {claim: until for _, claim in of_jobs}

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        self.inner.postpone(
            [attrs.evolve(each, claim=self._of_job(each.key, each.claim)) for each in postponements]
        )

    def mark(self, alarm: AlarmKey, claim: int) -> bool:
        return self.inner.mark(alarm, self._of_job(alarm, claim))

    def acquit(self, alarm: AlarmKey, claim: int) -> bool:
        return self.inner.acquit(alarm, self._of_job(alarm, claim))
