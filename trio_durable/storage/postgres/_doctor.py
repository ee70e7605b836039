"""Checks of a PostgreSQL database, its server and the way to it, for ``trio-durable doctor``.

Each check is a function from an open connection to findings. One that fails, for want of a
privilege, say, becomes a warning, and the next ones run all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from time import time

import attrs
import psycopg

from .._records import Finding
from . import _errors as problems
from ._connecting import Settings, Unreachable
from ._connection import Connection
from ._job_findings import job_findings
from ._migrations import Schema, unknown
from ._names import Names
from ._node_checks import mark_findings, node_finding
from ._servers import Server
from ._verification import Unsuitable, home_schema, require_privileges, verify, verify_tenants

_CONNECTIONS_OF_RUNTIME = 3
_MAX_SKEW_SECONDS = 1.0
_MAX_XACT_MINUTES = 60
_MANY_TENANTS = 10_000
_RELATIONS = 30
"""Tables, indexes, sequences and TOAST of one tenant."""
_WRAPAROUND_AGE = 1_500_000_000
"""Age in transactions beyond which autovacuum is failing; the server stops at about 2.1 billion."""


@attrs.frozen
class Context:
    """The subject of the checks."""

    settings: Settings
    connection: Connection
    home: str
    """The schema of the nameless tenant."""
    schema: Schema

    def one(self, query: str, *parameters: object) -> tuple[object, ...]:
        """The only row of a query."""
        row = self.connection.execute(query.encode(), parameters or None).fetchone()
        assert row is not None
        return row


Check = Callable[[Context], Iterator[Finding]]


def diagnose(
    settings: Settings, require_suitable: Callable[[Connection], None], thorough: bool
) -> Iterator[Finding]:
    """Run the checks.

    Args:
        settings: Of the storage.
        require_suitable: Raises `Unsuitable` for a server or database that no runtime can use.
        thorough: Read all rows, too.
    """
    connection = None
    try:
        connection = settings.connect_with_retries("doctor", opening=True)
    except Unreachable as error:
        yield Finding("connection", "problem", error.problem.text, "see docs/postgres.md")
    if connection is None:
        return
    try:
        yield from _connection(settings, connection)
        try:
            require_suitable(connection)
            home = home_schema(connection)
        except Unsuitable as error:
            yield Finding("schema", "problem", str(error), "see docs/postgres.md")
            return
        context = Context(settings, connection, home, Schema(home))
        checks = (*_CHECKS, _rows) if thorough else _CHECKS
        for check in checks:
            name = check.__name__.strip("_").replace("_", " ")
            try:
                yield from check(context)
            except Unsuitable as error:
                yield Finding(name, "problem", str(error), "see docs/postgres.md")
            except psycopg.Error as error:
                text = settings.conninfo.censored(problems.statement_problem(error))
                yield Finding(name, "warning", f"it can't be checked: {text}")
                if not connection.is_usable():
                    return
    finally:
        connection.discard()


# --- the way to the server -----------------------------------------------------------------------


def _connection(settings: Settings, connection: Connection) -> Iterator[Finding]:
    info = connection.info
    version = info.parameter_status("server_version") or "?"
    yield Finding(
        "connection",
        "ok",
        f"PostgreSQL {version} at {info.host or info.hostaddr}:{info.port}, "
        f"database {info.dbname}, role {info.user}",
    )
    if connection.session.is_pooled:
        yield Finding(
            "pooler",
            "warning",
            "a pooler shares connections between clients, so nothing is prepared, and each commit "
            "takes three round trips",
            "connect to the server directly; a runtime has three connections",
        )
    else:
        yield Finding("pooler", "ok", "the connection is the library's own")
    yield _encryption(settings, connection)
    if len(settings.conninfo.hosts()) > 1:
        yield _hosts(settings)


def _encryption(settings: Settings, connection: Connection) -> Finding:
    address = connection.info.hostaddr
    if not address or address == "::1" or address.startswith("127."):
        return Finding("encryption", "ok", "the server is on this machine")
    if not connection.pgconn.ssl_in_use:
        return Finding(
            "encryption",
            "warning",
            "passwords and data cross the network in plain text",
            "set up TLS on the server, and use sslmode=verify-full",
        )
    if settings.conninfo.get("sslmode") != "verify-full":
        return Finding(
            "encryption",
            "warning",
            "the connection is encrypted, but the server's name isn't verified",
            "use sslmode=verify-full with sslrootcert",
        )
    return Finding("encryption", "ok", "TLS, with the server's name verified")


def _hosts(settings: Settings) -> Finding:
    found = settings.servers()
    primaries = {
        server.started_at
        for _, server in found
        if isinstance(server, Server) and not server.is_standby
    }
    text = ", ".join(
        f"{host}: {server}"
        if isinstance(server, str)
        else f"{host}: {'standby' if server.is_standby else 'primary'}"
        for host, server in found
    )
    if len(primaries) > 1:
        return Finding(
            "hosts",
            "problem",
            f"{text}; there must be one primary",
            "find out which one is up to date, and stop the others",
        )
    if any(isinstance(server, str) for _, server in found):
        return Finding(
            "hosts", "warning", text, "start the missing host, or leave it out of the string"
        )
    return Finding("hosts", "ok", text)


# --- the server ----------------------------------------------------------------------------------


def _durability(context: Context) -> Iterator[Finding]:
    fsync, full_pages, level = context.one(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'), "
        "current_setting('synchronous_commit')"
    )
    if "off" in (fsync, full_pages):
        yield Finding(
            "durability",
            "problem",
            f"fsync is {fsync} and full_page_writes is {full_pages}: a crash of the machine may "
            "corrupt the database",
            "switch both on in postgresql.conf",
        )
    elif context.settings.durability == "normal":
        yield Finding("durability", "ok", "a crash of the server may undo the latest commits")
    else:
        yield Finding("durability", "ok", f"full (synchronous_commit = {level})")


def _standbys(context: Context) -> Iterator[Finding]:
    wanted, known, hidden, waiting = context.one(
        "SELECT current_setting('synchronous_standby_names'), "
        "count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), "
        "count(*) FILTER (WHERE sync_state IS NULL), "
        "(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep') "
        "FROM pg_stat_replication"
    )
    if not wanted:
        yield Finding("standbys", "ok", "no standby is synchronous")
    elif known:
        yield Finding(
            "standbys", "ok", f"{known} connected of synchronous_standby_names = {wanted}"
        )
    elif hidden:
        yield Finding(
            "standbys",
            "warning",
            f"synchronous_standby_names = {wanted}, and the role may not see which are connected",
            "GRANT pg_monitor TO …",
        )
    else:
        yield Finding(
            "standbys",
            "problem",
            f"no standby of synchronous_standby_names = {wanted} is connected, so commits wait "
            f"({waiting} do)",
            "start the standby, or change synchronous_standby_names",
        )


def _clock(context: Context) -> Iterator[Finding]:
    before = time()
    (there,) = context.one("SELECT extract(epoch FROM clock_timestamp())::float8")
    assert isinstance(there, float)
    after = time()
    skew = max(before - there, there - after, 0.0)
    if skew > _MAX_SKEW_SECONDS:
        yield Finding(
            "clock",
            "warning",
            f"this machine's clock and the server's differ by {skew:.1f} s; alarms are due by the "
            "clocks of the processes",
            "synchronize the clocks (NTP)",
        )
    else:
        yield Finding("clock", "ok", "this machine's clock and the server's agree")


def _connections(context: Context) -> Iterator[Finding]:
    free, limit = context.one(
        "SELECT current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
        " - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
        " (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)"
    )
    assert isinstance(free, int)
    assert isinstance(limit, int)
    if free < _CONNECTIONS_OF_RUNTIME or 0 <= limit < _CONNECTIONS_OF_RUNTIME:
        yield Finding(
            "connections",
            "warning",
            f"{max(free, 0)} are free, and the role's limit is {limit}; a runtime takes three",
            "close others, or raise max_connections and the role's CONNECTION LIMIT",
        )
    else:
        yield Finding("connections", "ok", f"{free} are free; a runtime takes three")


def _timeouts(context: Context) -> Iterator[Finding]:
    statement, idle = context.one(
        "SELECT current_setting('statement_timeout'), current_setting('idle_session_timeout')"
    )
    if statement == "0" and not context.connection.session.is_pooled:
        yield Finding(
            "timeouts",
            "warning",
            "statement_timeout is 0, so nothing bounds a statement that waits for a lock",
            "leave it out of the options, and let the library set it",
        )
    elif idle != "0":
        yield Finding(
            "timeouts",
            "warning",
            f"idle_session_timeout = {idle} closes the connections of an idle runtime",
            "ALTER ROLE … SET idle_session_timeout = 0",
        )
    else:
        yield Finding("timeouts", "ok", f"statement_timeout = {statement}")


# --- the schema ----------------------------------------------------------------------------------


def _schema(context: Context) -> Iterator[Finding]:
    connection, home = context.connection, context.home
    applied = context.schema.applied(connection)
    newer, pending = unknown(applied), context.schema.pending(applied)
    if newer:
        yield Finding(
            "schema",
            "problem",
            f"a newer release has migrated schema {home} ({', '.join(newer)})",
            "upgrade trio_durable",
        )
    elif pending:
        names = dict.fromkeys(name for _, name in pending)
        yield Finding(
            "schema",
            "warning",
            f"migrations are pending in schema {home}: {', '.join(names)}",
            "apply them with `trio-durable migrate`, or open a runtime",
        )
    else:
        require_privileges(connection, home, may_write=True)
        verify(connection, home)
        yield Finding("schema", "ok", f"the tables in schema {home} are as this release makes them")


_TENANTS_LACKING = """
SELECT t.name FROM {tenants} AS t WHERE (
    SELECT count(*) FILTER (
        WHERE has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, p)
    )
    FROM pg_namespace AS n JOIN pg_class AS c ON c.relnamespace = n.oid,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
    WHERE n.nspname = 'durable_' || t.name AND c.relname IN (
        'durable_objects', 'durable_alarms', 'durable_messages', 'durable_dead_messages',
        'durable_once'
    )
) < 20 ORDER BY t.name LIMIT 5
"""


def _tenants(context: Context) -> Iterator[Finding]:
    if not context.schema.applied(context.connection):
        return
    names = Names(context.home)
    lacking = context.connection.execute(names.statement(_TENANTS_LACKING).encode()).fetchall()
    count, may_create = context.one(
        names.statement(
            "SELECT count(*), has_database_privilege(current_database(), 'CREATE') FROM {tenants}"
        )
    )
    assert isinstance(count, int)
    flaws = _flaws_of_tenants(context)
    if flaws:
        yield Finding(
            "tenants",
            "problem",
            f"{len(flaws):,} can't be used: {'; '.join(flaws[:5])}",
            "repair these, or drop them; a runtime refuses them, and uses the others",
        )
    elif lacking:
        yield Finding(
            "tenants",
            "problem",
            f"the role may not use the tables of {', '.join(name for (name,) in lacking)}",
            "grant it USAGE on their schemas, and SELECT, INSERT, UPDATE, DELETE on their tables",
        )
    elif count > _MANY_TENANTS:
        yield Finding(
            "tenants",
            "warning",
            f"{count:,} tenants are {_RELATIONS * count:,} relations, which slow down the server's "
            "catalogue, dumps and vacuum",
            "see docs/postgres.md",
        )
    else:
        makes = "may create" if may_create else "may not create"
        yield Finding("tenants", "ok", f"{count:,}; the role {makes} others")


def _flaws_of_tenants(context: Context) -> list[str]:
    """The tenants whose tables aren't as the migrations have made them, with their problems."""
    connection, home = context.connection, context.home
    return [
        f"{tenant}: {problem}"
        for page in _pages_of_tenants(context)
        for tenant, problem in verify_tenants(connection, home, page).items()
    ]


def _vacuum(context: Context) -> Iterator[Finding]:
    autovacuum, age = context.one(
        "SELECT current_setting('autovacuum'), age(datfrozenxid) FROM pg_database "
        "WHERE datname = current_database()"
    )
    assert isinstance(age, int)
    if autovacuum == "off" or age > _WRAPAROUND_AGE:
        yield Finding(
            "vacuum",
            "problem",
            f"autovacuum is {autovacuum}, and the oldest transaction id is {age:,} old; the server "
            "stops before 2,100,000,000",
            "switch autovacuum on, and run VACUUM",
        )
        return
    minutes, pid = context.one(
        "SELECT coalesce(max(extract(epoch FROM now() - xact_start)) / 60, 0)::int, "
        "(array_agg(pid ORDER BY xact_start))[1] FROM pg_stat_activity "
        "WHERE xact_start < now() AND backend_type = 'client backend'"
    )
    assert isinstance(minutes, int)
    if minutes >= _MAX_XACT_MINUTES:
        yield Finding(
            "vacuum",
            "warning",
            f"a transaction (pid {pid}) has been open for {minutes} minutes, which keeps all old "
            "versions of rows",
            "end it, or set idle_in_transaction_session_timeout for its role",
        )
    else:
        yield Finding("vacuum", "ok", "autovacuum is on, and no transaction holds it up")


def _nodes(context: Context) -> Iterator[Finding]:
    if context.schema.pending(context.schema.applied(context.connection)):
        return  # another check says so
    yield node_finding(context.connection, context.home)


def _marks(context: Context) -> Iterator[Finding]:
    if context.schema.pending(context.schema.applied(context.connection)):
        return  # another check says so
    tenants = chain([""], chain.from_iterable(_pages_of_tenants(context)))
    yield from mark_findings(context.connection, context.home, tenants)


def _jobs(context: Context) -> Iterator[Finding]:
    yield from job_findings(context.connection, context.home)


# --- thorough ------------------------------------------------------------------------------------


_INVALID_MESSAGES = """
SELECT (SELECT count(*) FROM {messages} WHERE arguments IS NOT JSON OR failures < 0)
    + (SELECT count(*) FROM {dead_messages} WHERE arguments IS NOT JSON OR failures < 0)
    + (SELECT count(*) FROM {once} WHERE reply IS NOT JSON)
"""


def _rows(context: Context) -> Iterator[Finding]:
    if context.connection.info.server_version < 160000:
        yield Finding("rows", "warning", "they can be checked by PostgreSQL 16 or newer")
        return
    broken: list[str] = []
    total = 0
    for tenant in ("", *chain.from_iterable(_pages_of_tenants(context))):
        names = Names(context.home, tenant)
        count, invalid = context.one(
            names.statement(
                "SELECT count(*), count(*) FILTER (WHERE state IS NOT JSON OR revision < 1) "
                "FROM {objects}"
            )
        )
        _, invalid_alarms = context.one(
            names.statement(
                "SELECT count(*), count(*) FILTER (WHERE payload IS NOT JSON OR failures < 0) "
                "FROM {alarms}"
            )
        )
        (invalid_messages,) = context.one(names.statement(_INVALID_MESSAGES))
        assert isinstance(count, int)
        total += count
        if invalid or invalid_alarms or invalid_messages:
            broken.append(
                f"{names.schema}: {invalid} objects, {invalid_alarms} alarms, "
                f"{invalid_messages} messages or once-keys"
            )
    if broken:
        yield Finding(
            "rows",
            "problem",
            f"some rows can't be read: {'; '.join(broken[:5])}",
            "find them by state IS NOT JSON, and restore them from a backup",
        )
    else:
        yield Finding("rows", "ok", f"all {total:,} objects, their alarms and messages can be read")


def _pages_of_tenants(context: Context) -> Iterator[list[str]]:
    after = ""
    while page := context.schema.tenants(context.connection, after, 1000):
        yield page
        after = page[-1]


_CHECKS: tuple[Check, ...] = (
    _durability,
    _standbys,
    _clock,
    _connections,
    _timeouts,
    _schema,
    _tenants,
    _vacuum,
    _nodes,
    _marks,
    _jobs,
)
