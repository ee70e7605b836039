"""The first statements of a connection: its server, poolers in between, and its settings.

The first statement is one that a pooler with load balancing takes for a read, the second one that
it takes for a write. If they reach different servers, reads could be older than commits, so such a
connection is refused.

A setting is made for the session only where the session is the library's own, and for each
transaction behind a pooler. The server's process id tells: a pooler announces another one than
``pg_backend_pid()`` returns.
"""

from __future__ import annotations

import psycopg

from .._contract import Durability
from ._arrays import register_dumpers
from ._connection import Connection, Session, WrongServer
from ._servers import Server

_ROUND_TRIP_SECONDS = 1.0
"""Time that a result may take to arrive after the server's ``statement_timeout``."""

_MAX_PREPARED = 1000
"""Bound on prepared statements per connection. Each tenant has statements of its own."""

_LOCK_TIMEOUT = "1s"
"""How long a statement waits for a lock of another session, unless the user sets another bound. All
commits of a batch wait that long for one row."""

_STARTED_AT = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"
_IS_READ_ONLY = "current_setting('transaction_read_only') = 'on'"

# A read for poolers: all its functions are stable, and it reads no table of the catalogue.
_PROBE = f"""
SELECT {_STARTED_AT}, {_IS_READ_ONLY}, pg_backend_pid(),
    host(inet_server_addr()), inet_server_port()
"""

_PROBES_OF_PROXY = 10
"""Number of probes unless the server has the address that was connected to. A pooler may choose a
server for each statement."""

# For one transaction (`local`) or the whole session. client_min_messages lets warnings through.
_SETTINGS = """
    CASE WHEN {durability} = 'normal' THEN set_config('synchronous_commit', 'off', {local})
        WHEN current_setting('synchronous_commit') = 'off'
        THEN set_config('synchronous_commit', 'on', {local}) END,
    CASE WHEN current_setting('client_min_messages') = 'error'
        THEN set_config('client_min_messages', 'warning', {local}) END,
    CASE WHEN current_setting('idle_in_transaction_session_timeout') = '0'
        THEN set_config('idle_in_transaction_session_timeout', {timeout}, {local}) END,
    CASE WHEN current_setting('lock_timeout') = '0'
        THEN set_config('lock_timeout', {lock_timeout}, {local}) END,
    CASE WHEN {sets_timeout} AND current_setting('statement_timeout') = '0'
        THEN set_config('statement_timeout', {timeout}, {local}) END
"""

# A write for poolers, because set_config and pg_is_in_recovery are volatile.
_SET_UP = (
    f"""
SELECT pg_backend_pid(), {_STARTED_AT}, {_IS_READ_ONLY}, pg_is_in_recovery(),
    current_setting('server_encoding'), current_setting('session_replication_role'),
    current_setting('search_path'), current_schemas(false)::text[],
    s.setting::bigint, s.source <> 'client',
    has_function_privilege('pg_control_system()', 'EXECUTE')
        AND has_function_privilege('pg_current_wal_lsn()', 'EXECUTE')
        AND has_function_privilege('pg_walfile_name(pg_lsn)', 'EXECUTE'),
    set_config('default_transaction_isolation', 'read committed', p.local),
"""
    + _SETTINGS.format(
        durability="%(durability)s",
        timeout="%(timeout)s",
        lock_timeout="%(lock_timeout)s",
        sets_timeout="s.source <> 'client'",
        local="p.local",
    )
    + """
FROM pg_settings AS s, (SELECT %(pooled)s OR pg_backend_pid() <> %(pid)s AS local) AS p
WHERE s.name = 'statement_timeout'
"""
)


def _begin(durability: Durability, timeout: str, sets_timeout: bool) -> str:
    """Statements that begin a transaction with the settings of the library, as one message."""
    settings = _SETTINGS.format(
        durability=f"'{durability}'",
        timeout=f"'{timeout}'",
        lock_timeout=f"'{_LOCK_TIMEOUT}'",
        sets_timeout=sets_timeout,
        local=True,
    )
    return (
        "BEGIN ISOLATION LEVEL READ COMMITTED; "
        f"SELECT pg_backend_pid(), {_STARTED_AT}, {_IS_READ_ONLY}, {settings}"
    )


# The first eight digits of the name of a WAL file are the timeline. The control file's would lag.
_HISTORY = """
SELECT (SELECT system_identifier FROM pg_control_system()),
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
"""


def start_session(
    connection: Connection,
    *,
    durability: Durability,
    statement_timeout: float,
    may_prepare: bool,
    wanted: str,
) -> Session:
    """Identify the server at the end of a new connection, and make its settings.

    Args:
        connection: Becomes ready for use.
        durability: See `PostgresStorage`.
        statement_timeout: In seconds.
        may_prepare: Statements may be prepared, unless there is a pooler.
        wanted: A value of ``target_session_attrs``. It isn't checked here.

    Raises:
        psycopg.Error: The server can't be used.
    """
    pids, servers = _probe(connection)
    timeout = str(max(1, round(statement_timeout * 1000)))
    announced_pid = connection.info.backend_pid
    parameters = {
        "durability": durability,
        "timeout": timeout,
        "lock_timeout": _LOCK_TIMEOUT,
        "pooled": pids != {announced_pid},
        "pid": announced_pid,
    }
    row = connection.execute(_SET_UP, parameters).fetchone()
    assert row is not None
    pid, started_at, is_read_only, is_standby, encoding, role, path, schemas = row[:8]
    own_timeout, sets_timeout, may_read_history = row[8:11]
    if servers != {(started_at, is_read_only)}:
        raise psycopg.OperationalError(
            "a pooler in between sends reads to another server than writes, whose data may be "
            "older; connect to the primary directly, or switch off the pooler's load balancing"
        )
    if role == "replica" and wanted == "read-write":
        raise psycopg.OperationalError(
            "session_replication_role is replica, so the triggers that guard deleted objects "
            "don't run; reset it for the role and the database"
        )
    history = _history(connection) if may_read_history and not is_standby else ()
    server = Server(started_at, is_standby, is_read_only, *history)
    begin = None
    if pids | {pid} != {announced_pid}:
        begin = _begin(durability, timeout, sets_timeout)
    connection.backend_pid = pid
    connection.prepare_threshold = 5 if may_prepare and begin is None else None
    connection.prepared_max = _MAX_PREPARED
    register_dumpers(connection)
    if not own_timeout and sets_timeout:
        own_timeout = int(timeout)
    connection.silence_timeout = own_timeout / 1000 + _ROUND_TRIP_SECONDS if own_timeout else None
    connection.session = Session(
        server, encoding, path, tuple(schemas), wanted == "read-write", begin
    )
    if begin is not None:
        try:
            connection.perform(lambda _: None)  # which fails if the pooler pools statements
        except WrongServer as error:
            raise psycopg.OperationalError(str(error)) from None
    return connection.session


def _probe(connection: Connection) -> tuple[set[int], set[tuple[int, bool]]]:
    """The backends and the servers that reads lead to."""
    info = connection.info
    reached: tuple[str | None, int | None] = None, None  # as the server reports a Unix socket
    if info.hostaddr:
        reached = info.hostaddr, info.port
    pids: set[int] = set()
    servers: set[tuple[int, bool]] = set()
    for _ in range(_PROBES_OF_PROXY):
        row = connection.execute(_PROBE).fetchone()
        assert row is not None
        started_at, is_read_only, pid, address, port = row
        pids.add(pid)
        servers.add((started_at, is_read_only))
        if (address, port) == reached:
            break
    return pids, servers


def _history(connection: Connection) -> tuple[int, ...]:
    """The system identifier and the timeline; empty where a provider has none."""
    try:
        return tuple(*connection.execute(_HISTORY))
    except psycopg.Error:
        if not connection.is_usable():
            raise
        return ()
