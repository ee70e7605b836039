"""The tables of a PostgreSQL database, as versioned migrations.

Each tenant has a schema of its own with the same tables; the nameless tenant, which everybody has,
also keeps the list of the others and of what was applied to whom. A migration is applied in a
transaction of its own, together with the note that it was, under an advisory lock, so that of
processes that start at once each finds the work of the one before done. A migration that has been
released is never edited.

Own code rather than a library: Alembic asks for SQLAlchemy, yoyo keeps its list and its lock in
tables without regard to schemas, and neither applies one set of migrations to many schemas or
prints them for somebody else to run. What remains of their work here is a list and a loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import psycopg

from ._connection import Connection
from ._names import Names

GONE = "DU001"
"""The state of the error with which a save fails that finds its row gone."""


@attrs.frozen
class Migration:
    """One step from an older schema to a newer, and back."""

    name: str
    up: tuple[str, ...]
    down: tuple[str, ...]


_OBJECTS = Migration(
    "m001_objects",
    (
        # Text in the order of its UTF-8 bytes. Room is left in each page, and nothing but the key
        # is indexed, so that a save finds its place beside the old row and touches no index.
        """CREATE TABLE {objects} (
    type_name  text COLLATE "C" NOT NULL,
    object_id  text COLLATE "C" NOT NULL,
    owner      uuid,             -- for runtimes that share objects; not used yet
    epoch      bigint NOT NULL,  -- which of the objects that ever had this key
    revision   bigint NOT NULL,  -- the object's commit number, from 1
    updated_at bigint NOT NULL,  -- microseconds since 1970 UTC
    state      text NOT NULL,    -- JSON
    CONSTRAINT durable_objects_pkey PRIMARY KEY (type_name, object_id)
) WITH (fillfactor = 70)""",
        # The half of the fence that an upsert can't express: a save that finds its row gone would
        # insert it anew. It costs nothing where the row is there.
        f"""CREATE FUNCTION {{begin_at_1}}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'stale: the object is gone' USING ERRCODE = '{GONE}';
END
$$""",
        """CREATE TRIGGER durable_objects_begin_at_1 AFTER INSERT ON {objects}
    FOR EACH ROW WHEN (NEW.revision <> 1) EXECUTE FUNCTION {begin_at_1}()""",
    ),
    ("DROP TABLE {objects}", "DROP FUNCTION {begin_at_1}()"),
)
_ALARMS = Migration(
    "m002_alarms",
    (
        """CREATE TABLE {alarms} (
    type_name    text COLLATE "C" NOT NULL,
    object_id    text COLLATE "C" NOT NULL,
    name         text COLLATE "C" NOT NULL,
    due_at       bigint NOT NULL,  -- microseconds since 1970 UTC
    available_at bigint,           -- the same; NULL for a dead letter
    claim        bigint,           -- whose it is, until available_at
    failures     bigint NOT NULL DEFAULT 0,
    last_error   text,
    payload      text,             -- JSON
    CONSTRAINT durable_alarms_pkey PRIMARY KEY (type_name, object_id, name)
)""",
        # With the key, so that the horizon feed reads nothing else, and dead letters come in order.
        """CREATE INDEX durable_alarms_by_time
    ON {alarms} (available_at, type_name, object_id, name)""",
    ),
    ("DROP TABLE {alarms}",),
)
_TENANTS = Migration(
    "m003_tenants",
    (
        """CREATE TABLE {tenants} (
    name text COLLATE "C" NOT NULL,
    CONSTRAINT durable_tenants_pkey PRIMARY KEY (name)
)""",
    ),
    ("DROP TABLE {tenants}",),
)

_TENANT_STEPS = (_OBJECTS, _ALARMS)
_SHARED_STEPS = (_TENANTS,)

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('trio_durable migrations', 0))"
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
    """The names of all migrations that this release knows, in order."""
    return [step.name for step in _steps_of("")]


def _steps_of(tenant: str) -> tuple[Migration, ...]:
    return _TENANT_STEPS if tenant else (*_TENANT_STEPS, *_SHARED_STEPS)


def _up(step: Migration, tenant: str) -> list[str]:
    """The statements that apply a step. The names of tenants and steps need no quoting."""
    return [_LOCK, _CREATE_LIST, *step.up, _RECORD.format(tenant=tenant, name=step.name)]


def _new_tenant(tenant: str) -> list[str]:
    """The statements that make a tenant."""
    statements = [_LOCK, "CREATE SCHEMA {schema}", _ADD_TENANT.format(tenant=tenant)]
    for step in _steps_of(tenant):
        statements += (*step.up, _RECORD.format(tenant=tenant, name=step.name))
    return statements


def _down(step: Migration, tenant: str) -> list[str]:
    """The statements that undo a step."""
    return [_LOCK, *step.down, _UNRECORD.format(tenant=tenant, name=step.name)]


def _drop_tenant(tenant: str) -> list[str]:
    """The statements that remove a tenant. The count of the second tells whether it was there."""
    return [
        _LOCK,
        _REMOVE_TENANT.format(tenant=tenant),
        "DROP SCHEMA {schema} CASCADE",
        _FORGET_TENANT.format(tenant=tenant),
    ]


def _undo_plan(
    applied: set[tuple[str, str]], kept: Sequence[str]
) -> tuple[list[str], list[tuple[str, Migration]]]:
    """What undoes all migrations but ``kept``: tenants to remove, then steps with their tenants.

    Without the list of tenants no tenant is left.
    """
    tenants = sorted({tenant for tenant, _ in applied} - {""})
    gone = [] if _TENANTS.name in kept else tenants
    steps = [
        (tenant, step)
        for step in reversed(_steps_of(""))
        for tenant in ("", *tenants)
        if step.name not in kept and tenant not in gone and (tenant, step.name) in applied
    ]
    return gone, steps


def down_script(home: str, applied: set[tuple[str, str]], kept: Sequence[str]) -> str:
    """The SQL that undoes all migrations but ``kept``, of those that were applied."""
    gone, steps = _undo_plan(applied, kept)
    transactions = [(Names(home, tenant), _drop_tenant(tenant)) for tenant in gone]
    transactions += [(Names(home, tenant), _down(step, tenant)) for tenant, step in steps]
    if applied and not kept:
        transactions.append((Names(home), [_LOCK, _DROP_LIST]))
    return _script(transactions)


def script(home: str | None, pending: Sequence[tuple[str, str]]) -> str:
    """The SQL that applies migrations, given as (tenant, name)."""
    return _script(
        (Names(home, tenant), _up(step, tenant))
        for tenant, name in pending
        for step in _steps_of(tenant)
        if step.name == name
    )


def tenant_script(home: str | None, tenant: str) -> str:
    """The SQL that makes a tenant."""
    return _script([(Names(home, tenant), _new_tenant(tenant))])


def _script(transactions: Iterable[tuple[Names, Sequence[str]]]) -> str:
    lines: list[str] = []
    for names, statements in transactions:
        lines += ("BEGIN;", *(f"{names.statement(each)};" for each in statements), "COMMIT;", "")
    return "\n".join(lines)


class Schema:
    """The migrations of a database, applied and to be applied.

    Args:
        home: The schema of the nameless tenant.
    """

    def __init__(self, home: str) -> None:
        self.home = home
        self._names = Names(home)
        self._list = self._names.statement("SELECT tenant, name FROM {migrations}").encode()
        self._query_tenants = self._names.query(
            "SELECT name FROM {tenants} WHERE name > %s ORDER BY name LIMIT %s"
        )
        self._query_tenant = self._names.query("SELECT FROM {tenants} WHERE name = %s")

    # --- looking ---------------------------------------------------------------------------------

    def applied(self, connection: Connection) -> set[tuple[str, str]]:
        """The migrations that were applied, as (tenant, name)."""
        # Not by asking whether the list is there: what a connection once found missing it takes for
        # missing, until it locks something in the catalogue.
        try:
            with connection.transaction():
                return set(connection.execute(self._list))
        except psycopg.errors.UndefinedTable:
            return set()

    def pending(self, applied: set[tuple[str, str]]) -> list[tuple[str, str]]:
        """The migrations that are to be applied to those who have any, as (tenant, name)."""
        tenants = {tenant for tenant, _ in applied} - {""}
        return [
            (tenant, step.name)
            for tenant in ("", *sorted(tenants))
            for step in _steps_of(tenant)
            if (tenant, step.name) not in applied
        ]

    # --- applying --------------------------------------------------------------------------------

    def apply(self, connection: Connection) -> None:
        """Apply what is pending."""
        for tenant, name in self.pending(self.applied(connection)):
            (step,) = (step for step in _steps_of(tenant) if step.name == name)
            with connection.transaction():
                connection.execute(_LOCK)
                if (tenant, name) not in self.applied(connection):
                    self._execute(connection, tenant, _up(step, tenant))

    def undo(self, connection: Connection, kept: Sequence[str]) -> list[str]:
        """Undo all migrations but those that are called so, with all that is in their tables.

        Without the list of tenants no tenant is left. Returns what was undone, in that order.
        """
        undone = []
        gone, steps = _undo_plan(self.applied(connection), kept)
        for tenant in gone:
            self.drop_tenant(connection, tenant)
        for tenant, step in steps:
            with connection.transaction():
                connection.execute(_LOCK)
                if (tenant, step.name) in self.applied(connection):
                    self._execute(connection, tenant, _down(step, tenant))
                    undone.append(step.name)
        if not kept:
            connection.execute(self._names.statement(_DROP_LIST).encode())
        return list(dict.fromkeys(undone))

    def _execute(self, connection: Connection, tenant: str, statements: Sequence[str]) -> None:
        names = Names(self.home, tenant)
        for statement in statements:
            connection.execute(names.statement(statement).encode())

    # --- tenants ---------------------------------------------------------------------------------

    def tenants(self, connection: Connection, after: str, limit: int) -> list[str]:
        """The names of the tenants behind ``after``, in order."""
        return [name for (name,) in connection.execute(self._query_tenants, (after, limit))]

    def has_tenant(self, connection: Connection, tenant: str) -> bool:
        """Whether there are tables of a tenant."""
        return connection.execute(self._query_tenant, (tenant,)).fetchone() is not None

    def add_tenant(self, connection: Connection, tenant: str) -> None:
        """Make the tables of a tenant, as part of a transaction. Fine if it is there."""
        connection.execute(_LOCK)
        if not self.has_tenant(connection, tenant):
            self._execute(connection, tenant, _new_tenant(tenant))

    def drop_tenant(self, connection: Connection, tenant: str) -> bool:
        """Remove all that is stored of a tenant, in one transaction; whether there was one."""
        lock, remove, *others = _drop_tenant(tenant)
        with connection.transaction():
            self._execute(connection, tenant, [lock])
            gone = connection.execute(Names(self.home, tenant).statement(remove).encode())
            if gone.rowcount:
                self._execute(connection, tenant, others)
        return gone.rowcount > 0


def unknown(applied: set[tuple[str, str]]) -> list[str]:
    """The names of migrations that were applied and that this release doesn't know."""
    return sorted({name for _, name in applied} - set(names_of_all()))
