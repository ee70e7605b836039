"""Verification of the tables in a PostgreSQL database.

The tables might have been restored from a dump of a part of them, altered by hand, or be in another
schema than the search path leads to. Then commits would fail later, or the fence would let a stale
save through. So opening refuses such a schema, and its error names the remedy. The tables of a
tenant are verified before their first use, and their flaws refuse that tenant alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ._arrays import text_array
from ._connection import Connection
from ._names import Names

_SCHEMAS = """
SELECT n.nspname::text, n.nspname = current_user, c.oid IS NOT NULL,
    has_table_privilege(c.oid, 'SELECT')
FROM pg_namespace AS n
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = 'durable_migrations'
WHERE n.nspname = ANY (%s) OR n.nspname = current_user
"""

_COLUMNS = """
SELECT e.relation || '.' || e.name
FROM (VALUES
    ('durable_objects', 'type_name', 'text'), ('durable_objects', 'object_id', 'text'),
    ('durable_objects', 'epoch', 'bigint'), ('durable_objects', 'revision', 'bigint'),
    ('durable_objects', 'updated_at', 'bigint'), ('durable_objects', 'state', 'text'),
    ('durable_alarms', 'type_name', 'text'), ('durable_alarms', 'object_id', 'text'),
    ('durable_alarms', 'name', 'text'), ('durable_alarms', 'due_at', 'bigint'),
    ('durable_alarms', 'available_at', 'bigint'), ('durable_alarms', 'claim', 'bigint'),
    ('durable_alarms', 'failures', 'bigint'), ('durable_alarms', 'last_error', 'text'),
    ('durable_alarms', 'payload', 'text'), ('durable_alarms', 'crashes', 'bigint'),
    ('durable_alarms', 'marked', 'bigint'), ('durable_alarms', 'recurrence', 'text'),
    ('durable_tenants', 'name', 'text'),
    ('durable_nodes', 'node_id', 'uuid'), ('durable_nodes', 'server', 'text'),
    ('durable_nodes', 'serves', 'boolean'), ('durable_nodes', 'types', 'jsonb'),
    ('durable_nodes', 'app_release', 'bigint'), ('durable_shards', 'term', 'bigint'),
    ('durable_beats', 'node_id', 'uuid'), ('durable_beats', 'renewals', 'bigint'),
    ('durable_cluster', 'secret', 'bytea'), ('durable_shards', 'owner', 'uuid'),
    ('durable_messages', 'shard', 'integer'), ('durable_messages', 'to_type', 'text'),
    ('durable_messages', 'to_id', 'text'), ('durable_messages', 'lane', 'text'),
    ('durable_messages', 'seq', 'bigint'), ('durable_messages', 'token', 'bigint'),
    ('durable_messages', 'wake_at', 'bigint'), ('durable_messages', 'begun', 'boolean'),
    ('durable_messages', 'sender_key', 'text'), ('durable_dead_messages', 'seq', 'bigint'),
    ('durable_dead_messages', 'token', 'bigint'),
    ('durable_dead_messages', 'is_overtaken', 'boolean'), ('durable_once', 'type_name', 'text'),
    ('durable_once', 'object_id', 'text'), ('durable_once', 'key', 'text'),
    ('durable_once', 'expires_at', 'bigint'), ('durable_once', 'token', 'bigint')
) AS e (relation, name, type)
LEFT JOIN pg_namespace AS n ON n.nspname = %s
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = e.relation
LEFT JOIN pg_attribute AS a
    ON a.attrelid = c.oid AND a.attname = e.name AND a.atttypid = e.type::regtype
    AND (e.name IN ('state', 'last_error', 'payload', 'server') OR e.type <> 'text'
        OR a.attcollation = 'pg_catalog."C"'::regcollation)
WHERE a.attnum IS NULL
LIMIT 5
"""

_OF_TENANTS = (
    "durable_objects",
    "durable_alarms",
    "durable_messages",
    "durable_dead_messages",
    "durable_once",
)
_SHARED = ("durable_cluster", "durable_nodes", "durable_beats", "durable_shards")

# A tenant that is dropped meanwhile has no flaws: the list of tenants and the catalogue are read
# in one snapshot.
_FLAWS = """
SELECT tenant, schema || '.' || name || ' ' || flaw FROM (
    SELECT r.tenant, r.schema, r.name, CASE
        WHEN c.oid IS NULL THEN 'is missing'
        WHEN NOT EXISTS (
            SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid
        ) THEN 'has no primary key'
        WHEN row_security_active(c.oid) THEN 'hides rows from this role (row-level security)'
        WHEN r.name = 'durable_objects' AND NOT EXISTS (
            SELECT FROM pg_trigger AS t
            WHERE t.tgrelid = c.oid AND t.tgname = 'durable_objects_begin_at_1'
                AND t.tgtype = 5 AND t.tgenabled IN ('O', 'A')  -- AFTER INSERT FOR EACH ROW
        ) THEN 'lacks the trigger durable_objects_begin_at_1, or it is disabled'
    END AS flaw
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS r (tenant, schema, name)
    LEFT JOIN pg_namespace AS n ON n.nspname = r.schema
    LEFT JOIN pg_class AS c
        ON c.relnamespace = n.oid AND c.relname = r.name AND c.relkind IN ('r', 'p')
    WHERE r.tenant = '' OR EXISTS (SELECT FROM {tenants} AS t WHERE t.name = r.tenant)
) AS found WHERE flaw IS NOT NULL
"""

_LACKING = """
SELECT name || ' (' || string_agg(privilege, ', ') || ')'
FROM unnest(%s::text[], %s::text[]) AS wanted (name, privilege)
WHERE NOT has_table_privilege(name, privilege) GROUP BY name ORDER BY name
"""


class Unsuitable(Exception):
    """The schema can't be used. The argument names the reason and the remedy."""


def home_schema(connection: Connection) -> str:
    """The schema that the search path asks for.

    It is the first one that the path names. For ``"$user"``, which may be a schema that was made
    later for something else, it is the first one that has the tables, as in any statement.

    Raises:
        Unsuitable: That schema doesn't exist, or the role may not use it.
    """
    session = connection.session
    path = _names(session.search_path)
    has_tables: dict[str, bool] = {}
    own: str | None = None
    readable: set[str] = set()
    for name, is_own, has, may_read in connection.execute(_SCHEMAS, (path,)):
        has_tables[name] = has
        if may_read:
            readable.add(name)
        if is_own:
            own = name
    candidate: str | None = None
    for name in path:
        if name == "$user":
            if own is None:
                continue
            _require(own, session.schemas, has_tables)
            if has_tables[own]:
                return own
            candidate = candidate or own
        elif not name.startswith("pg_"):
            if candidate is not None and not has_tables.get(name):
                return candidate
            _require(name, session.schemas, has_tables)
            if candidate is not None and name not in readable:
                raise Unsuitable(
                    f"schema {candidate} is empty, and the tables in schema {name} aren't for this "
                    "role; name the schema to use: ?options=-csearch_path%3D…, or ALTER ROLE … SET "
                    "search_path = …"
                )
            return name
    if candidate is None:
        raise Unsuitable(
            "no schema of the search path exists, or the role may not use it; create one, or name "
            "one: ?options=-c%20search_path%3D…"
        )
    return candidate


def _require(name: str, usable: Sequence[str], existing: Iterable[str]) -> None:
    if name in usable:
        return
    if name in existing:
        raise Unsuitable(
            f"the search path asks for schema {name}, which the role may not use: GRANT USAGE ON "
            f'SCHEMA "{name}" TO …'
        )
    raise Unsuitable(
        f"no schema of the search path exists up to {name}; create it (CREATE SCHEMA), or name "
        "another one: ?options=-c%20search_path%3D…"
    )


def _names(search_path: str) -> list[str]:
    """The names in a search path, with ``"$user"`` as it is."""
    found = re.findall(r'"((?:[^"]|"")*)"|([^,\s]+)', search_path)
    return [quoted.replace('""', '"') if quoted else plain.lower() for quoted, plain in found]


def verify(connection: Connection, home: str) -> None:
    """Check the tables of the nameless tenant, and the shared ones of all tenants.

    Raises:
        Unsuitable: Some aren't as the migrations have made them.
    """
    flaws = [
        f"{column} is missing or of another type or collation"
        for (column,) in connection.execute(_COLUMNS, (home,))
    ]
    if not flaws:
        relations = [("", home, table) for table in (*_OF_TENANTS, *_SHARED)]
        flaws = _flaws(connection, home, relations).get("", [])
    if flaws:
        raise Unsuitable(_described(flaws, "everything=True"))


def verify_tenants(connection: Connection, home: str, tenants: Sequence[str]) -> dict[str, str]:
    """The tenants whose tables aren't as the migrations have made them, each with the problem.

    A tenant that doesn't exist isn't among them.

    Args:
        connection: Any.
        home: The schema of the nameless tenant.
        tenants: The names to check, without the nameless tenant.
    """
    schemas = {tenant: Names(home, tenant).schema or "" for tenant in tenants}
    relations = [(each, schemas[each], table) for each in tenants for table in _OF_TENANTS]
    return {
        tenant: _described(flaws, f'tenant="{tenant}"')
        for tenant, flaws in _flaws(connection, home, relations).items()
    }


def _flaws(
    connection: Connection, home: str, relations: Sequence[tuple[str, str, str]]
) -> dict[str, list[str]]:
    """The flaws of tables, given as (tenant, schema, table), by tenant."""
    columns = [text_array(column) for column in zip(*relations, strict=True)]
    flaws: dict[str, list[str]] = {}
    if relations:
        for tenant, flaw in connection.execute(Names(home).query(_FLAWS), columns):
            flaws.setdefault(tenant, []).append(flaw)
    return flaws


def _described(flaws: Sequence[str], arguments: str) -> str:
    return (
        f"the tables aren't as the migrations have made them: {'; '.join(flaws)}; restore them "
        "from a dump of the whole schema (pg_dump -n, not -t), or create what is missing: "
        f"PostgresStorage(…).migration_sql({arguments}) returns the SQL"
    )


def require_privileges(connection: Connection, home: str, *, may_write: bool) -> None:
    """Check the role's privileges on the tables of the nameless tenant.

    Raises:
        Unsuitable: Some are lacking.
    """
    names = Names(home)
    wanted = [(names.statement(table), "SELECT") for table in ("{tenants}", "{migrations}")]
    needed = ("SELECT", "INSERT", "UPDATE", "DELETE") if may_write else ("SELECT",)
    wanted += [
        (names.statement(table), each)
        for table in ("{objects}", "{alarms}", "{messages}", "{dead_messages}", "{once}")
        for each in needed
    ]
    if may_write:
        wanted += [
            (names.statement(table), each)
            for table in ("{cluster}", "{nodes}", "{beats}", "{shards}")
            for each in needed
        ]
    tables, privileges = zip(*wanted, strict=True)
    lacking = [
        text
        for (text,) in connection.execute(_LACKING, (text_array(tables), text_array(privileges)))
    ]
    if lacking:
        raise Unsuitable(
            f"the role may not {'read and write' if may_write else 'read'} the tables in schema "
            f"{home}: {', '.join(lacking)}; grant it that, see docs/postgres.md"
        )
