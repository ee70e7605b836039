"""The runtime: the public class, its arguments, and its tenants."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from contextvars import Token
from functools import partial
from heapq import nlargest
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, cast
from weakref import WeakValueDictionary

import attrs

from .._activations.calls import LocalCalls
from .._activations.eviction import DEFAULT_MAX_RESIDENT
from .._activations.object_type import ObjectType
from .._clock import Clock
from .._cluster.nodes import Node
from .._cluster.settings import Cluster, check_file_settings, cluster_settings
from .._declarations.keywords import converter_argument
from .._durations import Duration, interval_seconds, optional_seconds, positive_int, seconds
from .._errors import RuntimeClosed
from .._eventloop import current
from .._eventloop.current import Dispatcher
from .._eventloop.runner import InlineRunner, Runner, ThreadRunner
from .._eventloop.running import running_loop_token
from .._json.state import DEFAULT_MAX_STATE_SIZE
from .._runtime.administration import Administration
from .._runtime.open_runtime import OpenRuntime, open_runtime
from .._runtime.settings import ClusterOfMembers, ClusterOnFile, ObanOnPostgres, Settings
from ..scheduler.oban import ObanScheduler
from ..storage import Durability, MemoryStorage, SharedStorage, SQLiteStorage, Storage
from ..storage._urls import storage_at
from .durable_object import DurableObject
from .instrument import Closed, Instrument, Opened
from .messages import checked_limit
from .objects import Objects
from .registry import TypeRegistry
from .statistics import NAMED, RuntimeStatistics
from .tenant import Tenant, check_tenant

if TYPE_CHECKING:
    from cattrs import Converter

    from .._cluster.service import Targets
    from .._runtime.sharing import Sharing

Kind = TypeVar("Kind", bound=Instrument)

DEFAULT_CALL_TIMEOUT = 5.0
DEFAULT_GRACE_PERIOD = 5.0
DEFAULT_CLOSE_TIMEOUT = 4.0
"""With the grace period less than the 10 seconds that container runtimes wait before they kill."""
DEFAULT_POLLING_INTERVAL = 30.0
DEFAULT_CLAIM_TTL = 60.0


class DurableRuntime(Objects):
    """Durable objects, served inside the current event loop.

    ::

        async with DurableRuntime("app.db") as runtime:
            cart = runtime.get(Cart, "user-123")
            await cart.add("apple")

    Leaving the block refuses new calls, lets queued turns finish within ``grace_period``, waits for
    their commits, and closes the storage. It may be entered in one task and left in another.

    Args:
        storage: The path of an SQLite file or ``sqlite:///path``; the URL of a PostgreSQL database,
            ``postgresql://user@host/database``; ``":memory:"`` for objects that go with the
            runtime; or a `Storage`.
        objects: The classes to serve; None for all that are imported.
        durability: ``"full"`` or ``"normal"``, see `SQLiteStorage` and `PostgresStorage`.
        call_timeout: How long callers wait for a reply unless class or handle say otherwise;
            None for ever.
        polling_interval: The interval at which the storage is read for alarms that are due soon.
            Alarms that this runtime sets itself need no poll.
        claim_ttl: How long other runtimes wait before they take over alarms that a runtime was
            handling, on a storage that doesn't know of its death. A living one renews its claims.
        grace_period: How long turns may continue while the runtime closes.
        close_timeout: How long the storage may take after that, for its last commits and to close.
            A storage that hangs is left with an error then; it stays in use until its thread ends.
        max_resident: The number of objects that may stay in memory; beyond it, idle ones leave.
        max_state_size: The most bytes of JSON that one object's state may take.
        converter: Hooks for types that have no exact JSON by themselves, see `make_converter`. A
            class with a converter of its own has that.
        runner: The place where storage work runs; a thread unless the storage is in memory.
        clock: The source of the time of alarms; the system's clock, or the event loop's if that is
            virtual.
        instruments: Observers of the runtime's work, see `trio_durable.telemetry`.
        cluster: True or a `Cluster` to share the storage with the runtimes of other processes that
            say so, too. On an SQLite file one of them has the objects, and the others call it; on
            PostgreSQL they divide the objects, and call each other for the rest.
        scheduler: An `ObanScheduler` for alarms that are jobs of Oban, on a PostgreSQL database;
            None for the timing wheel.
        control: Whether commands of ``trio-durable`` reach a runtime on an SQLite file while it is
            open, over a socket beside the file that only its owner can open. A member of a cluster
            has a socket anyway.

    Durations are a ``timedelta`` or a number of seconds.

    Raises:
        ValueError: An argument is invalid.
        StorageInUse: Another runtime has the storage; from entering.
        StorageUnavailable: The storage can't be opened; from entering. `SchemaTooNew`, if a newer
            release has migrated it.
    """

    def __init__(
        self,
        storage: str | os.PathLike[str] | Storage,
        *,
        objects: Iterable[type[DurableObject]] | None = None,
        durability: Durability = "full",
        call_timeout: Duration | None = DEFAULT_CALL_TIMEOUT,
        polling_interval: Duration = DEFAULT_POLLING_INTERVAL,
        claim_ttl: Duration = DEFAULT_CLAIM_TTL,
        grace_period: Duration = DEFAULT_GRACE_PERIOD,
        close_timeout: Duration = DEFAULT_CLOSE_TIMEOUT,
        max_resident: int = DEFAULT_MAX_RESIDENT,
        max_state_size: int = DEFAULT_MAX_STATE_SIZE,
        converter: Converter | None = None,
        runner: type[Runner] | None = None,
        clock: Clock | None = None,
        instruments: Iterable[Instrument] = (),
        cluster: bool | Cluster = False,
        scheduler: ObanScheduler | None = None,
        control: bool = True,
    ) -> None:
        positive_int(max_resident, "max_resident")
        positive_int(max_state_size, "max_state_size")
        self._storage = storage_at(storage, durability)
        in_memory = isinstance(self._storage, MemoryStorage)
        self._registry = TypeRegistry(
            objects,
            self._serve,
            optional_seconds(call_timeout, "call_timeout"),
            max_state_size,
            converter_argument(converter),
        )
        self._settings = Settings(
            storage=self._storage,
            runner=runner or (InlineRunner if in_memory else ThreadRunner),
            clock=clock,
            instruments=_checked(instruments),
            max_resident=max_resident,
            polling_interval=interval_seconds(polling_interval, "polling_interval"),
            claim_ttl=interval_seconds(claim_ttl, "claim_ttl"),
            grace_period=seconds(grace_period, "grace_period"),
            close_timeout=seconds(close_timeout, "close_timeout"),
            cluster=_clustered(cluster_settings(cluster), self._storage, self._registry),
            oban=_on_postgres(scheduler, self._storage),
            commands_at=_commands_at(control, self._storage),
        )
        self._is_entered = False
        self._opened: OpenRuntime | None = None
        self._token: Token[Dispatcher | None] | None = None
        self._tenant = ""
        self._tenants: WeakValueDictionary[str, Tenant] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<DurableRuntime on {self._storage.location}>"

    @property
    def root(self) -> DurableRuntime:
        """See `Objects.root`."""
        return self

    # --- tenants ---------------------------------------------------------------------------------

    def tenant(self, name: str, /) -> Tenant:
        """The objects of a tenant: the same interface, over tables of its own.

        The tables are created with the first commit in them.

        Args:
            name: 1 to 48 lowercase letters, digits, ``-`` and ``_``, the first a letter or digit.

        Raises:
            InvalidTenant: The name is invalid.
            RuntimeClosed: The runtime isn't open.
        """
        self._open()
        tenant = self._tenants.get(name) if isinstance(name, str) else None
        if tenant is None:
            check_tenant(name)
            tenant = self._tenants[name] = Tenant(self, str.__str__(name))
        return tenant

    async def list_tenants(self, *, after: str | None = None, limit: int = 100) -> list[str]:
        """The names of the tenants that have tables, in order.

        Args:
            after: Only names after this one; pass the last name of a page for the next page.
            limit: The size of a page, a million at most; a larger limit means a million.

        Raises:
            InvalidTenant: ``after`` can't be a tenant's name.
            ValueError: ``limit`` isn't an int of 1 or more.
            StorageUnavailable: The storage can't be read.
        """
        if after:
            check_tenant(after)
        limit = checked_limit(limit)
        return await self._open().read(lambda reader: reader.list_tenants(after, limit))

    async def drop_tenant(self, name: str, /) -> bool:
        """Remove a tenant and all its data; return False if there was none.

        Running and queued turns of its objects end first. Calls of its objects fail meanwhile;
        later calls start from nothing, and their first commit creates the tenant again.

        Raises:
            InvalidTenant: ``name`` can't be a tenant's name.
            TenantDropped: The tenant is being dropped already.
            CallCycle: The caller is a turn of one of the tenant's objects, or a turn that such a
                turn waits for.
            StorageUnavailable: The storage refused; nothing was removed.
        """
        administration = self._administered()
        check_tenant(name)
        return await administration.drop_tenant(str.__str__(name))  # an enum's own text is another

    # --- nodes -----------------------------------------------------------------------------------

    @property
    def node_id(self) -> str:
        """The id of this runtime among the nodes, see `list_nodes`.

        Raises:
            RuntimeClosed: The runtime isn't open.
        """
        return self._open().node_id

    async def list_nodes(self) -> list[Node]:
        """The runtimes that share the storage, this one included; those with objects first.

        Without ``cluster`` it is this one alone.

        Raises:
            CallTimeout: No process of the cluster answered within the runtime's timeout.
        """
        return await self._administered().list_nodes()

    def _instrument(self, kind: type[Kind]) -> Kind | None:
        """The instrument of a kind that the runtime has; a new one, if it hasn't been entered."""
        settings = self._settings
        found = [each for each in settings.instruments if isinstance(each, kind)]
        if not found and not self._is_entered:
            found = [kind()]
            self._settings = attrs.evolve(settings, instruments=(*settings.instruments, *found))
        return found[0] if found else None

    def _open_sharing(self) -> Sharing:
        """The cluster that the runtime is in; for commands."""
        sharing = self._open().sharing
        assert sharing is not None
        return sharing

    # --- opening and closing ---------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise RuntimeClosed("a DurableRuntime can be entered once")
        self._is_entered = True
        opened = await open_runtime(
            self._settings, self, self.tenant, self._registry, self._prepare
        )
        self._token = current.runtime_var.set(self)
        if opened.notifier is not None:
            opened.notifier.tell(Opened(self))
        return self

    def _prepare(self, opened: OpenRuntime) -> None:
        self._opened = opened
        if self._settings.cluster is None:
            self._administration = Administration(opened)
            if (path := self._settings.commands_at) is not None:
                opened.accept_commands(path, partial(self._command_targets, opened))
        else:
            from .cluster import join  # here, since it takes long

            cluster, statistics = self._settings.cluster, self.statistics
            self._administration = join(opened, cluster, self._registry, statistics)
            opened.scheduling.deliver_elsewhere(self._administration.deliver_alarm)
        registry = self._registry
        opened.deliver_messages(
            registry.calls,
            registry,
            registry.type_of,
            registry.is_here,
            self._administration.look_for_messages,
        )
        registry.origin.open()
        registry.prepare()

    def _command_targets(self, opened: OpenRuntime) -> Targets:
        from .cluster import CommandTargets  # here, since it takes long

        return CommandTargets(opened, self._registry, self.statistics)

    def _serve(self, object_type: ObjectType) -> LocalCalls:
        opened = self._open()
        if opened.sharing is None:
            return opened.serve(object_type)
        return opened.serve(*opened.sharing.routed(object_type, self._registry))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened, token = self._opened, self._token
        assert opened is not None
        if token is not None:
            with suppress(ValueError):  # left in another context than entered in
                current.runtime_var.reset(token)
        try:
            await opened.leave(exc)
        finally:
            self._registry.origin.close()
            if opened.notifier is not None:
                opened.notifier.tell(Closed(self))

    async def closed(self) -> None:
        """Return when the runtime is closed: when it is left, or when it has failed.

        A runtime fails if its storage's thread dies or by a fault of its own. That doesn't cancel
        the block that it is open in: calls raise `RuntimeClosed`, and so does leaving the block. A
        program that should end then awaits this in a task, and ends itself.

        Raises:
            RuntimeClosed: The runtime was not entered.
        """
        if self._opened is None:
            raise RuntimeClosed("the runtime was not entered yet")
        await self._opened.closed()

    def end_watches(self) -> None:
        """End all watches, after what they haven't returned yet; later ones end at once.

        For the hook of a web server that waits for open streams before it leaves the runtime.
        """
        self._usable().hub.end()

    def statistics(self) -> RuntimeStatistics:
        """A snapshot of the runtime's load, and of its work since it opened."""
        opened = self._open()
        alarms, messages = opened.scheduler.statistics(), opened.message_statistics()
        # Copied, because an exporter of metrics may ask for it in another thread.
        infos = [each.busy_info() for each in list(opened.services.busy)]
        busy = [info for info in infos if info is not None]
        return RuntimeStatistics(
            objects=opened.resident_set.count,
            busy=len(opened.services.busy),
            transactions=opened.group_commit.batches,
            commits=opened.group_commit.rows,
            alarms_waiting=alarms.waiting,
            alarms_in_flight=alarms.in_flight,
            alarms_delivered=alarms.delivered,
            alarms_failed=alarms.failed,
            messages_waiting=messages.waiting,
            messages_in_flight=messages.in_flight,
            messages_delivered=messages.delivered,
            messages_failed=messages.failed,
            messages_dead=messages.buried,
            busiest=tuple(
                nlargest(
                    NAMED,
                    (each for each in busy if each.waiting),
                    key=lambda each: (each.waiting, each.seconds),
                )
            ),
            slowest=tuple(nlargest(NAMED, busy, key=attrgetter("seconds"))),
            shards=1 if opened.sharing is None else opened.sharing.shards,
            calls_forwarded=0 if opened.sharing is None else opened.sharing.router.forwarded,
            log_bytes=opened.sides.writer.log_bytes,
            control_problem=_control_problem(opened, self._settings),
        )


def _clustered(
    settings: Cluster | None, storage: Storage, registry: TypeRegistry
) -> ClusterOnFile | ClusterOfMembers | None:
    if settings is None:
        return None
    if isinstance(storage, SQLiteStorage):
        check_file_settings(settings)
        return ClusterOnFile(settings, Path(storage.location))
    if isinstance(storage, SharedStorage):
        from .._cluster.endpoint import check_addresses  # here, since it takes long

        check_addresses(settings)
        return ClusterOfMembers(settings, storage, registry.schemas)
    raise ValueError(
        "cluster needs a storage that several processes can share, an SQLite file or a PostgreSQL "
        f"database; {storage.location} is a {type(storage).__name__}"
    )


def _commands_at(control: bool, storage: Storage) -> Path | None:
    if not isinstance(control, bool):
        raise ValueError(f"control must be True or False, not {control!r:.60}")
    return Path(storage.location) if control and isinstance(storage, SQLiteStorage) else None


def _control_problem(opened: OpenRuntime, settings: Settings) -> str | None:
    if settings.cluster is not None:
        return None
    if opened.control is not None:
        return opened.control.problem
    if isinstance(settings.storage, SQLiteStorage):
        return "control is False"
    return "commands reach runtimes on SQLite files, and those of a cluster"


def _on_postgres(scheduler: ObanScheduler | None, storage: Storage) -> ObanOnPostgres | None:
    if scheduler is None:
        return None
    if not isinstance(scheduler, ObanScheduler):
        raise TypeError(f"scheduler must be an ObanScheduler or None, not {scheduler!r:.80}")
    if not isinstance(storage, (MemoryStorage, SQLiteStorage)):
        from ..storage.postgres import PostgresStorage  # here, since psycopg is an extra

        if isinstance(storage, PostgresStorage):
            return ObanOnPostgres(scheduler, storage)
    raise ValueError(
        "ObanScheduler needs a PostgreSQL database, in which Oban has its tables; "
        f"{storage.location} is a {type(storage).__name__}"
    )


def _checked(instruments: Iterable[Instrument]) -> tuple[Instrument, ...]:
    if not isinstance(instruments, Iterable):
        raise ValueError(
            f"instruments must be a list of instances of Instrument, not {instruments!r:.80}"
        )
    checked = tuple(instruments)
    for instrument in checked:
        if not isinstance(instrument, Instrument):
            raise ValueError(f"instruments must be instances of Instrument, not {instrument!r}")
        if checked.count(instrument) > 1:
            raise ValueError(f"{instrument!r} is given twice in instruments")
    return checked


def current_runtime() -> Objects:
    """The current runtime: the innermost open one, or the only one in this event loop.

    In a turn of a tenant's object, it is that `Tenant`.

    Raises:
        NoRuntime: No runtime is open in this event loop, or several are and the context names none.
    """
    return cast("Objects", current.runtime_for(running_loop_token()))
