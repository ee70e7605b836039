"""Storage in a PostgreSQL database: opening it, and its migrations.

A writer is a node of the database, see `_nodes`. One that `open_writer` returns is the only node:
opening it raises `StorageInUse` while another node lives, and waits for the end of the lease of one
that has died, whose claims are released then. Those that `open_member` returns divide the database
by shards, see `_cluster`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

try:
    import psycopg
except ModuleNotFoundError as error:
    if error.name != "psycopg":
        raise
    raise ModuleNotFoundError(
        "objects in PostgreSQL need psycopg: pip install 'trio-durable[postgres]'", name="psycopg"
    ) from None

import attrs
from psycopg.conninfo import make_conninfo

from ..._durations import Duration, interval_seconds
from ..._errors import SchemaTooNew, StorageUnavailable
from .._contract import Durability, Reader, SharedStorage, Writer
from .._faults import StorageFault
from .._membership import MemberRow, NewMember
from .._moves import Move
from .._records import Finding
from . import _errors as problems
from ._cluster import PostgresClusterMembership
from ._connecting import Settings, Side, Unreachable
from ._connection import Connection
from ._conninfo import Conninfo
from ._doctor import diagnose
from ._job_checks import prepare_jobs
from ._job_place import JobPlace
from ._job_queue import JobQueue
from ._jobs import Jobs
from ._leases import CurrentLease
from ._membership import REMEDY, NodeSettings, PostgresMembership
from ._migrations import Schema, down_script, names_of_all, script, tenant_script, unknown
from ._moves import MoveTable
from ._nodes import NodeTable
from ._reader import PostgresReader
from ._reconnecting import ReconnectingConnection
from ._shard_function import Feed
from ._tenants import KnownTenants
from ._verification import Unsuitable, home_schema, require_privileges, verify
from ._writer import PostgresWriter

logger = logging.getLogger("trio_durable.storage")

_MIN_POSTGRES = 14


class PostgresStorage(SharedStorage):
    """Objects in a PostgreSQL database, 14 or newer.

    The tables are created in the first schema of the connection's search path, and the tables of
    each tenant in a schema of its own.

    Args:
        conninfo: A URL, ``postgresql://user:password@host:5432/database``, or ``key=value`` pairs,
            as libpq takes them. Missing parameters come from a service file, the environment
            (``PGHOST``, ``PGPASSWORD``, …) and the password file. ``target_session_attrs`` counts
            for readers alone; a writer needs the primary.
        durability: ``"full"`` waits for the server to have each commit on its disk; ``"normal"``
            may lose the latest commits when the server crashes, never in part.
        connect_timeout: How long to try to connect, also after the connection was lost; all hosts
            share it. A ``timedelta`` or seconds.
        statement_timeout: How long a statement may run, unless the role, the database or
            ``options`` in the connection string set it; a ``timedelta`` or seconds.
        prepared_statements: Prepare statements on the server. Behind a pooler none is prepared;
            False is for a pooler that can't be recognized.

    Raises:
        TypeError: ``conninfo`` isn't a str.
        ValueError: An argument is out of range, or the connection string is malformed.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        durability: Durability = "full",
        connect_timeout: Duration = 10.0,
        statement_timeout: Duration = 30.0,
        prepared_statements: bool = True,
    ) -> None:
        if durability not in ("full", "normal"):
            raise ValueError(f'durability must be "full" or "normal", not {durability!r}')
        self._settings = Settings(
            Conninfo(conninfo),
            durability,
            interval_seconds(connect_timeout, "connect_timeout"),
            interval_seconds(statement_timeout, "statement_timeout"),
            prepared_statements,
        )
        self._tenants = KnownTenants()
        self._current = CurrentLease()
        self._node = NodeSettings()
        self._feed = Feed()
        self._wants_jobs: Jobs | None = None
        self._jobs: Jobs | None = None
        self._queue: JobQueue | None = None

    def __repr__(self) -> str:
        return f"<PostgresStorage at {self.location}>"

    @property
    def location(self) -> str:
        """The database as a URL, without a password."""
        return self._settings.conninfo.location

    @property
    def keeps_messages(self) -> bool:
        """True."""
        return True

    def keep_alarms_as_jobs(self, jobs: Jobs) -> None:
        """Keep alarms as jobs of Oban, in all that is opened from now on."""
        self._wants_jobs = jobs

    def move_alarms(self, to: Jobs | None) -> int:
        """Move all alarms to jobs of Oban, or back to the wheel for None, in one transaction.

        For administrators, while no runtime uses the database.

        Returns:
            The number of alarms, with dead letters and the marks of those that are off; 0 if they
            are there already.

        Raises:
            StorageInUse: A runtime uses it.
            StorageUnavailable: It can't be opened, or Oban's tables can't be used.
        """
        writer = self._open_writer()
        try:
            return writer.move_alarms(to)
        except StorageFault as fault:
            raise StorageUnavailable(self.location, str(fault)) from fault
        finally:
            writer.close()

    @property
    def connection_string(self) -> str:
        """A connection string for other connections to the database, with its secrets."""
        return make_conninfo("", **self._settings.conninfo.parameters())

    @property
    def foreign_alarms(self) -> str | None:
        """See `Storage.foreign_alarms`."""
        return None if self._jobs is None else str(self._jobs)

    @property
    def job_queue(self) -> JobQueue | None:
        """The queue of the latest writer, if alarms are jobs of Oban."""
        return self._queue

    def open_writer(self) -> Writer:
        """See `Storage.open_writer`. May take as long as the lease of a node that has died."""
        return self._open_writer()

    def _open_writer(self, *, may_be_moved: bool = False) -> PostgresWriter:
        with self._opening(may_be_moved=may_be_moved) as (connection, schema):
            current, feed = self._sides()
            membership = PostgresMembership(self._settings, schema.home, self._node, current)
            had_died = membership.join()
            writer = self._writer(connection, schema, membership, current, feed)
            if had_died:
                self._release_claims(writer)
            return writer

    def open_member(self, member: NewMember) -> Writer:
        """See `SharedStorage.open_member`.

        May take as long as the lease of a node that has died, if that wasn't a member.
        """
        with self._opening() as (connection, schema):
            current, feed = self._sides()
            node = attrs.evolve(self._node, remedy=REMEDY)
            membership = PostgresClusterMembership(
                self._settings, schema.home, node, member, current, feed
            )
            membership.join()
            writer = self._writer(connection, schema, membership, current, feed)
            membership.releasing = partial(writer.release_claims, are_crashes=True)
            return writer

    def _sides(self) -> tuple[CurrentLease, Feed]:
        """The lease and the feed of a new writer, which are those of the reader, too.

        A second writer has its own, because the reader has one lease at a time.
        """
        if self._current.take():
            return self._current, self._feed
        return CurrentLease(), Feed()

    def _writer(
        self,
        connection: Connection,
        schema: Schema,
        membership: PostgresMembership,
        current: CurrentLease,
        feed: Feed,
    ) -> PostgresWriter:
        reconnecting = ReconnectingConnection(self._settings, connection, current, read_only=False)
        jobs = schema.jobs
        self._queue = None if jobs is None else JobQueue(reconnecting, schema.home, jobs)
        return PostgresWriter(reconnecting, schema, self._tenants, membership, feed)

    @contextmanager
    def _opening(self, *, may_be_moved: bool = False) -> Iterator[tuple[Connection, Schema]]:
        """An open connection of a writer for the block, which takes ownership."""
        with self._connecting("writer") as (connection, schema):
            self._bring_up_to_date(connection, schema)
            require_privileges(connection, schema.home, may_write=True)
            verify(connection, schema.home)
            self._find_moves(connection, schema)
            if "" in schema.moves and not may_be_moved:
                raise schema.moves[""].refusal(self.location)
            if self._wants_jobs is not None:
                schema.jobs = prepare_jobs(connection, schema, self._wants_jobs)
                self._jobs = schema.jobs
            self._tenants.clear()
            yield connection, schema

    def _find_moves(self, connection: Connection, schema: Schema) -> None:
        schema.moves = {move.tenant: move for move in MoveTable(schema.home).list(connection)}

    def _release_claims(self, writer: PostgresWriter) -> None:
        try:
            writer.release_claims(are_crashes=True)
        except StorageFault as fault:
            logger.warning(
                "%s: alarms that a dead process was handling wait until its claims run out: %s",
                *(self.location, fault),
            )
        except BaseException:
            writer.close()
            raise

    def open_reader(self) -> Reader:
        """See `Storage.open_reader`."""
        with self._connecting("reader") as (connection, schema):
            self._require_tables(connection, schema)
            require_privileges(connection, schema.home, may_write=False)
            verify(connection, schema.home)
            self._find_moves(connection, schema)
            self._tenants.clear()
            return PostgresReader(
                ReconnectingConnection(self._settings, connection, self._current, read_only=True),
                schema,
                self._tenants,
                self._feed,
            )

    def list_members(self) -> list[MemberRow]:
        """See `SharedStorage.list_members`."""
        with self._inspecting() as (connection, schema):
            self._require_tables(connection, schema)
            table = NodeTable(schema.home)
            found, owned = table.list(connection), table.owned(connection)
        return [
            MemberRow(
                node.as_member(),
                node.group,
                1 if node.group is None else owned.get(node.node_id, 0),
            )
            for node in found
        ]

    def list_moves(self) -> list[Move]:
        """See `Storage.list_moves`."""
        with self._inspecting() as (connection, schema):
            return MoveTable(schema.home).list(connection)

    def reopen(self, tenant: str = "") -> bool:
        """See `Storage.reopen`."""
        writer = self._open_writer(may_be_moved=True)
        try:
            return writer.take_back(tenant)
        except StorageFault as fault:
            raise StorageUnavailable(self.location, str(fault)) from fault
        finally:
            writer.close()

    def diagnose(self, thorough: bool = False) -> Iterator[Finding]:
        """See `Storage.diagnose`."""
        return diagnose(self._settings, self._require_suitable_server, thorough)

    # --- migrations ------------------------------------------------------------------------------

    def pending_migrations(self) -> list[str]:
        """See `Storage.pending_migrations`."""
        with self._inspecting() as (connection, schema):
            pending = schema.pending(self._checked(schema.applied(connection)))
        return [f"{name} of tenant {tenant}" if tenant else name for tenant, name in pending]

    def applied_migrations(self) -> list[str]:
        """Names of the applied migrations, in order; the last one is the schema's version.

        Migrations that this release doesn't know come last. Migrations of tenants aren't listed.

        Raises:
            StorageUnavailable: It can't be opened.
        """
        with self._inspecting() as (connection, schema):
            applied = schema.applied(connection)
        names = {name for tenant, name in applied if not tenant}
        known = [name for name in names_of_all() if name in names]
        return known + sorted(names - set(known))

    def migrate_down(self, to: str | None) -> list[str]:
        """Go back to an older schema. Deletes the data that the older schema can't hold.

        For administrators, while no runtime uses the database.

        Args:
            to: The name of the last migration to keep; None keeps none, and removes everything.

        Returns:
            The names of the undone migrations, the last one first.

        Raises:
            ValueError: There is no migration of that name.
            SchemaTooNew: A newer release has migrated it, and only that release can undo it.
            StorageUnavailable: It can't be opened, or a migration can't be undone.
        """
        kept = _up_to(to)
        with self._inspecting() as (connection, schema):
            self._checked(schema.applied(connection))
            return schema.undo(connection, kept)

    def migrate_down_sql(self, to: str | None) -> str:
        """The work of `migrate_down` as SQL, for an administrator to run. Changes nothing.

        Args:
            to: As in `migrate_down`.

        Raises:
            ValueError: There is no migration of that name.
            SchemaTooNew: A newer release has migrated it, and only that release can undo it.
            StorageUnavailable: It can't be opened.
        """
        kept = _up_to(to)
        with self._inspecting() as (connection, schema):
            return down_script(schema.home, self._checked(schema.applied(connection)), kept)

    def migration_sql(self, *, tenant: str = "", everything: bool = False) -> str:
        """The pending migrations as SQL, for an administrator to run. Changes nothing.

        Args:
            tenant: Return the SQL that creates this tenant instead, for a role that may not create
                schemas.
            everything: Return all migrations. They apply to the first schema in the search path of
                the session that runs them. Doesn't connect.

        Raises:
            SchemaTooNew: A newer release has migrated it.
            StorageUnavailable: It can't be opened.
        """
        if everything:
            pending = [("", name) for name in names_of_all()]
            return tenant_script(None, tenant) if tenant else script(None, pending)
        with self._inspecting() as (connection, schema):
            if tenant:
                return tenant_script(schema.home, tenant)
            return script(schema.home, schema.pending(self._checked(schema.applied(connection))))

    def _bring_up_to_date(self, connection: Connection, schema: Schema) -> None:
        if not schema.pending(self._checked(schema.applied(connection))):
            return
        try:
            refused = schema.apply(connection)
        except psycopg.errors.InsufficientPrivilege as error:
            said = problems.statement_problem(error)
        else:
            for tenant, problem in refused.items():
                self._tenants.note(tenant, problem)
            return
        raise StorageUnavailable(
            self.location,
            f"its tables aren't up to date, and the role may not change them ({said}); grant it "
            f"CREATE on schema {schema.home}, or apply the SQL that `trio-durable migrate --sql` "
            "prints",
        )

    def _require_tables(self, connection: Connection, schema: Schema) -> None:
        applied = self._checked(schema.applied(connection))
        if not applied:
            raise StorageUnavailable(
                self.location,
                f"there are no tables in schema {schema.home} yet; open a runtime here first, or "
                "create them with `trio-durable migrate`",
            )
        if any(not tenant for tenant, _ in schema.pending(applied)):
            raise StorageUnavailable(
                self.location,
                "its tables are of an older release; bring them up to date with "
                "`trio-durable migrate`",
            )

    def _checked(self, applied: set[tuple[str, str]]) -> set[tuple[str, str]]:
        if newer := unknown(applied):
            raise SchemaTooNew(self.location, "", tuple(newer))
        return applied

    # --- connecting ------------------------------------------------------------------------------

    @contextmanager
    def _inspecting(self) -> Iterator[tuple[Connection, Schema]]:
        """An open, checked connection for the block."""
        with self._connecting("admin") as (connection, schema):
            try:
                yield connection, schema
            finally:
                connection.discard()

    @contextmanager
    def _connecting(self, side: Side) -> Iterator[tuple[Connection, Schema]]:
        """An open, checked connection. The block takes ownership; it is closed if the block fails.

        Raises:
            StorageUnavailable: Connecting failed, or the server or database isn't suitable.
        """
        connection = self._connect(side)
        try:
            self._require_suitable_server(connection)
            home = home_schema(connection)
            self._jobs = JobPlace(home).find(connection)
            yield connection, Schema(home, self._jobs)
        except psycopg.Error as error:
            connection.discard()
            problem = self._settings.conninfo.censored(problems.statement_problem(error))
            raise StorageUnavailable(self.location, problem) from error
        except Unsuitable as error:
            connection.discard()
            raise StorageUnavailable(self.location, str(error)) from None
        except BaseException:
            connection.discard()
            raise

    def _connect(self, side: Side) -> Connection:
        try:
            return self._settings.connect_with_retries(side, opening=True)
        except Unreachable as error:
            problem = error.problem.text
        raise StorageUnavailable(self.location, problem)

    def _require_suitable_server(self, connection: Connection) -> None:
        version = connection.info.server_version // 10000
        encoding = connection.session.encoding
        if version < _MIN_POSTGRES:
            raise Unsuitable(
                f"the server is PostgreSQL {version}; {_MIN_POSTGRES} or newer is needed"
            )
        if encoding != "UTF8":
            raise Unsuitable(
                f"the database has the encoding {encoding}; create one with UTF8: "
                "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            )


def _up_to(to: str | None) -> list[str]:
    """The names of all migrations up to ``to``; none for None."""
    names = names_of_all()
    if to is not None and to not in names:
        raise ValueError(f"there is no migration {to!r}, only {', '.join(names)}")
    return [] if to is None else names[: names.index(to) + 1]
