"""Schema of a PostgreSQL database, as versioned migrations.

Each tenant has a PostgreSQL schema of its own with the same tables. The schema of the nameless
tenant, which every database has, also keeps the list of tenants and the record of applied
migrations.

Invariants:

- A migration that has been released never changes.
- A migration and its record are one transaction, under an advisory lock. Of several processes that
  start at once, each sees the work of the previous one.
- Tenants are made under the same lock, by the newest release only: a release that finds migrations
  which it doesn't know makes none. The nameless tenant is migrated first, so once that is done no
  tenant appears any more whose tables are old.
- A process that takes the lock holds no other, so waits for it form no circle.
- A tenant whose tables can't be migrated stays old, and keeps no other tenant from its migrations.

Prior art: Alembic needs SQLAlchemy; yoyo keeps its record and its lock in tables of one schema.
Neither applies one set of migrations to many schemas, or prints the SQL for an administrator. The
part of their work that is needed here is a list and a loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg

from .._moves import Move
from ._arrays import text_array
from ._connection import Connection
from ._errors import statement_problem
from ._isolation import Reach, limit_lock_waits, reach_of_error
from ._job_place import JobPlace
from ._jobs import Jobs
from ._moves import MoveTable
from ._names import Names
from ._steps import MESSAGES, REFUSE_IF_FILLED, SHARED_STEPS, TENANT_STEPS, TENANTS, Migration

_FOREVER = "0"
"""As ``lock_timeout``: only ``statement_timeout`` bounds the wait."""
_MAKING_WAIT = "5s"
"""How long a writer waits for others that make tenants, and opening for the locks of a tenant."""
_CATCHING_UP_WAIT = "250ms"
"""How long the migration of a tenant in use waits for each lock, which keeps others waiting."""
_DROP_WAIT = "250ms"
"""How long a tenant's removal waits for each lock, which keeps the writer from other work."""

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('trio_durable migrations', 0))"
_HAS_LIST = """
SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'durable_migrations'
"""
_CREATE_LIST = """CREATE TABLE IF NOT EXISTS {migrations} (
    tenant     text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT durable_migrations_pkey PRIMARY KEY (tenant, name)
)"""
_RECORD = "INSERT INTO {{migrations}} (tenant, name) VALUES ('{tenant}', '{name}')"
_UNRECORD = "DELETE FROM {{migrations}} WHERE tenant = '{tenant}' AND name = '{name}'"
_ADD_TENANT = "INSERT INTO {{tenants}} (name) VALUES ('{tenant}')"
_REMOVE_TENANT = "DELETE FROM {{tenants}} WHERE name = '{tenant}'"
_FORGET_TENANT = "DELETE FROM {{migrations}} WHERE tenant = '{tenant}'"
_DROP_LIST = "DROP TABLE IF EXISTS {migrations}"


def names_of_all() -> list[str]:
    """Names of all migrations of this release, in order."""
    return [step.name for step in _steps_of("")]


def _steps_of(tenant: str) -> tuple[Migration, ...]:
    if tenant:
        return TENANT_STEPS
    return tuple(sorted((*TENANT_STEPS, *SHARED_STEPS), key=lambda step: step.name))


def _up(step: Migration, tenant: str) -> list[str]:
    """Statements that apply a step. The names of tenants and steps need no quoting."""
    return [_LOCK, _CREATE_LIST, *step.up, _RECORD.format(tenant=tenant, name=step.name)]


def _new_tenant(tenant: str) -> list[str]:
    """Statements that create a tenant."""
    statements = [_LOCK, "CREATE SCHEMA {schema}", _ADD_TENANT.format(tenant=tenant)]
    for step in _steps_of(tenant):
        statements += (*step.up, _RECORD.format(tenant=tenant, name=step.name))
    return statements


def _down(step: Migration, tenant: str) -> list[str]:
    """Statements that undo a step."""
    return [_LOCK, *step.down, _UNRECORD.format(tenant=tenant, name=step.name)]


def _drop_tenant(tenant: str) -> list[str]:
    """Statements that remove a tenant. The second one's row count is 0 if it didn't exist."""
    return [
        _LOCK,
        _REMOVE_TENANT.format(tenant=tenant),
        "DROP SCHEMA IF EXISTS {schema} CASCADE",
        _FORGET_TENANT.format(tenant=tenant),
    ]


def _down_tenant(tenant: str) -> list[str]:
    """Statements that remove a tenant because the list of tenants is undone."""
    lock, *others = _drop_tenant(tenant)
    return [lock, *REFUSE_IF_FILLED, *others]


def _undo_plan(
    applied: set[tuple[str, str]], kept: Sequence[str]
) -> tuple[list[str], list[tuple[str, Migration]]]:
    """The tenants to remove, and then the steps to undo, to keep only the migrations ``kept``.

    Undoing the list of tenants removes all tenants.
    """
    tenants = sorted({tenant for tenant, _ in applied} - {""})
    gone = [] if TENANTS.name in kept else tenants
    steps = [
        (tenant, step)
        for step in reversed(_steps_of(""))
        for tenant in ("", *tenants)
        if step.name not in kept and tenant not in gone and (tenant, step.name) in applied
    ]
    return gone, steps


def _with_messages(applied: set[tuple[str, str]], kept: Sequence[str]) -> list[str]:
    """The tenants whose tables of messages would be undone, to keep only ``kept``."""
    if MESSAGES.name in kept:
        return []
    return sorted(tenant for tenant, name in applied if name == MESSAGES.name)


def down_script(home: str, applied: set[tuple[str, str]], kept: Sequence[str]) -> str:
    """SQL that undoes the applied migrations, except ``kept``."""
    gone, steps = _undo_plan(applied, kept)
    transactions: list[tuple[Names, Sequence[str]]] = [
        (Names(home, tenant), REFUSE_IF_FILLED) for tenant in _with_messages(applied, kept)
    ]
    transactions += [(Names(home, tenant), _down_tenant(tenant)) for tenant in gone]
    transactions += [(Names(home, tenant), _down(step, tenant)) for tenant, step in steps]
    if applied and not kept:
        transactions.append((Names(home), [_LOCK, _DROP_LIST]))
    return _script(transactions)


def script(home: str | None, pending: Sequence[tuple[str, str]]) -> str:
    """SQL that applies migrations, given as (tenant, name)."""
    return _script(
        (Names(home, tenant), _up(step, tenant))
        for tenant, name in pending
        for step in _steps_of(tenant)
        if step.name == name
    )


def tenant_script(home: str | None, tenant: str) -> str:
    """SQL that creates a tenant."""
    return _script([(Names(home, tenant), _new_tenant(tenant))])


def _script(transactions: Iterable[tuple[Names, Sequence[str]]]) -> str:
    lines: list[str] = []
    for names, statements in transactions:
        lines += ("BEGIN;", *(f"{names.statement(each)};" for each in statements), "COMMIT;", "")
    return "\n".join(lines)


class NewerRelease(Exception):
    """A newer release has migrated the database, so this one makes no tenants."""

    def __init__(self, migrations: Sequence[str]) -> None:
        super().__init__(
            f"a newer release has migrated the database ({', '.join(migrations)}), so this one "
            "makes no new tenants; upgrade it"
        )


class Schema:
    """The schema of a database: its migrations and its list of tenants.

    Args:
        home: The schema of the nameless tenant.
        jobs: The place of alarms that are jobs of Oban.
    """

    def __init__(self, home: str, jobs: Jobs | None = None) -> None:
        self.home = home
        self.jobs = jobs
        self.moves: dict[str, Move] = {}
        """The marks, by tenant, as they were when the storage was opened."""
        self._names = Names(home)
        self._list = self._names.statement("SELECT tenant, name FROM {migrations}").encode()
        self._query_tenants = self._names.query(
            "SELECT name FROM {tenants} WHERE name > %s AND name <> ALL (%s) ORDER BY name LIMIT %s"
        )
        self._query_existing = self._names.query(
            "SELECT t.name, count(m.name) FROM {tenants} AS t LEFT JOIN {migrations} AS m "
            "ON m.tenant = t.name AND m.name = ANY(%s) WHERE t.name = ANY(%s) GROUP BY t.name"
        )
        self._query_newer = self._names.query(
            "SELECT name FROM {migrations} WHERE tenant = '' AND name <> ALL(%s) ORDER BY name"
        )

    # --- reading ---------------------------------------------------------------------------------

    def applied(self, connection: Connection) -> set[tuple[str, str]]:
        """The applied migrations, as (tenant, name)."""
        # Looked for first, because an error would be in the server's log. Not by ``to_regclass``,
        # which may answer from a cache that is older than the transaction's advisory lock.
        if connection.execute(_HAS_LIST, (self.home,)).fetchone() is None:
            return set()
        return set(connection.execute(self._list))

    def pending(self, applied: set[tuple[str, str]]) -> list[tuple[str, str]]:
        """The migrations to apply, as (tenant, name)."""
        tenants = {tenant for tenant, _ in applied} - {""}
        return [
            (tenant, step.name)
            for tenant in ("", *sorted(tenants))
            for step in _steps_of(tenant)
            if (tenant, step.name) not in applied
        ]

    # --- applying --------------------------------------------------------------------------------

    def apply(self, connection: Connection) -> dict[str, str]:
        """Apply the pending migrations.

        Returns:
            The tenants to which some can't be applied, each with the problem.

        Raises:
            psycopg.Error: Those of the nameless tenant can't be applied.
        """
        for tenant, name in self.pending(self.applied(connection)):
            if not tenant:
                self._apply_one(connection, "", name, _FOREVER)
        # Read again, because an older release may have made a tenant before the first migration.
        pending = self.pending(self.applied(connection))
        return self._catch_up(connection, pending, _MAKING_WAIT)

    def _catch_up(
        self, connection: Connection, pending: Iterable[tuple[str, str]], wait: str
    ) -> dict[str, str]:
        """Apply migrations of tenants, given as (tenant, name).

        After a wait that ended without its lock no other migration is tried, since a dump of the
        database locks the tables of all tenants.

        Returns:
            The tenants to which some can't be applied, each with the problem.
        """
        problems: dict[str, str] = {}
        locked = ""
        for tenant, name in pending:
            if locked:
                problems.setdefault(tenant, locked)
            if tenant in problems:
                continue
            try:
                self._apply_one(connection, tenant, name, wait)
            except psycopg.Error as error:
                if reach_of_error(error) is Reach.SERVER:
                    raise
                said = statement_problem(error)
                problems[tenant] = f"migrations can't be applied to its tables: {said}"
                if isinstance(error, psycopg.errors.LockNotAvailable):
                    locked = problems[tenant]
        return problems

    def _apply_one(self, connection: Connection, tenant: str, name: str, wait: str) -> None:
        (step,) = (step for step in _steps_of(tenant) if step.name == name)
        with connection.transaction():
            limit_lock_waits(connection, wait)
            connection.execute(_LOCK)
            if (tenant, name) not in self.applied(connection):
                self._execute(connection, tenant, _up(step, tenant))

    def undo(self, connection: Connection, kept: Sequence[str]) -> list[str]:
        """Undo all migrations except ``kept``, and delete the data in their tables.

        Undoing the list of tenants removes all tenants. Returns the names of the undone migrations,
        in that order.

        Raises:
            psycopg.Error: Messages, dead letters or once-keys are there, which would be deleted.
        """
        undone = []
        applied = self.applied(connection)
        # All of them first, so that a refusal leaves everything as it is.
        for tenant in _with_messages(applied, kept):
            self._execute(connection, tenant, REFUSE_IF_FILLED)
        gone, steps = _undo_plan(applied, kept)
        for tenant in gone:
            with connection.transaction():
                limit_lock_waits(connection, _FOREVER)
                self._execute(connection, tenant, _down_tenant(tenant))
        for tenant, step in steps:
            with connection.transaction():
                limit_lock_waits(connection, _FOREVER)
                connection.execute(_LOCK)
                if (tenant, step.name) in self.applied(connection):
                    self._execute(connection, tenant, _down(step, tenant))
                    undone.append(step.name)
        if not kept:
            connection.execute(self._names.statement(_DROP_LIST).encode())
            JobPlace(self.home).drop(connection)
            MoveTable(self.home).drop(connection)
        return list(dict.fromkeys(undone))

    def _execute(self, connection: Connection, tenant: str, statements: Sequence[str]) -> None:
        names = Names(self.home, tenant)
        for statement in statements:
            connection.execute(names.statement(statement).encode())

    # --- tenants ---------------------------------------------------------------------------------

    def tenants(
        self, connection: Connection, after: str, limit: int, without: Iterable[str] = ()
    ) -> list[str]:
        """The names of the tenants after ``after``, in order."""
        parameters = (after, text_array(without), limit)
        return [name for (name,) in connection.execute(self._query_tenants, parameters)]

    def existing(self, connection: Connection, tenants: Sequence[str]) -> dict[str, str]:
        """Those of ``tenants`` that exist. Brings the ones of an older release up to date.

        Returns:
            Each with the problem that keeps its tables from being brought up to date, or "".
        """
        known = text_array(step.name for step in TENANT_STEPS)
        found = connection.execute(self._query_existing, (known, text_array(tenants))).fetchall()
        pending = [
            (tenant, step.name)
            for tenant, migrations in found
            if migrations < len(TENANT_STEPS)
            for step in TENANT_STEPS
        ]
        problems = self._catch_up(connection, pending, _CATCHING_UP_WAIT)
        problems |= {
            tenant: self.moves[tenant].refusal_of_tenant()
            for tenant, _ in found
            if tenant in self.moves
        }
        return {tenant: problems.get(tenant, "") for tenant, _ in found}

    def add_tenants(self, connection: Connection, tenants: Sequence[str]) -> None:
        """Create those of ``tenants`` that don't exist.

        The caller has begun a transaction, which holds no locks yet.

        Raises:
            NewerRelease: A newer release has migrated the database.
        """
        earlier_wait = limit_lock_waits(connection, _MAKING_WAIT)
        connection.execute(_LOCK)
        newer = connection.execute(self._query_newer, (text_array(names_of_all()),)).fetchall()
        if newer:
            raise NewerRelease([name for (name,) in newer])
        missing = sorted(set(tenants) - self.existing(connection, tenants).keys())

        def send() -> None:
            for tenant in missing:
                self._execute(connection, tenant, _new_tenant(tenant)[1:])

        connection.pipelined(send)
        limit_lock_waits(connection, earlier_wait)

    def drop_tenant(self, connection: Connection, tenant: str) -> bool:
        """Remove a tenant and all its data, in one transaction. Returns whether it existed.

        The tables may be missing or broken.
        """
        lock, remove, *others = _drop_tenant(tenant)
        with connection.transaction():
            limit_lock_waits(connection, _DROP_WAIT)
            self._execute(connection, tenant, [lock])
            gone = connection.execute(Names(self.home, tenant).statement(remove).encode())
            if gone.rowcount:
                self._execute(connection, tenant, others)
            if self.moves.pop(tenant, None) is not None:
                MoveTable(self.home).take_back(connection, tenant)
        return gone.rowcount > 0


def unknown(applied: set[tuple[str, str]]) -> list[str]:
    """The names of applied migrations that this release doesn't know."""
    return sorted({name for _, name in applied} - set(names_of_all()))
