"""Runtimes whose objects live in another one, for tests that were written for a runtime alone.

`Away` takes the place of `DurableRuntime` in the modules of a folder's tests. It only calls; the
member of the cluster that owns the objects runs beside it, in the same event loop and virtual time.
Requests cross a Unix socket between them. An SQLite file and a PostgreSQL database are shared as
users share them; any other storage has its rows of members in `Rows`.

The folder's ``conftest.py`` parametrizes its tests by place. One in four runs away; all of them
with ``make away``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self, TypeVar
from zlib import crc32

import anyio
import pytest
from support.fed_reader import FedReader

from trio_durable import (
    ActivationInfo,
    Cluster,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    RuntimeStatistics,
    Tenant,
    UnknownObjectType,
)
from trio_durable._activations.calls import LocalCalls
from trio_durable._activations.object_type import ObjectType
from trio_durable.scheduler._wheel.scheduler import MIN_SECONDS_BETWEEN_READS
from trio_durable.storage import (
    NewMember,
    Reader,
    SharedStorage,
    SQLiteStorage,
    Storage,
    StorageFault,
    Writer,
)
from trio_durable.storage._urls import storage_at
from trio_durable.testing._intercepted import InterceptedWriter

from .shared_memory import FakeMembership, MemberWriter, Rows, SharedMemory

T = TypeVar("T")

EVERY = int(os.environ.get("TRIO_DURABLE_AWAY_EVERY", "4"))
"""One test in so many runs away; 1 means all."""

_TTL = 30 * 86400.0
"""The ping of a link is a task that wakes; virtual weeks should have few of them."""


class Away(DurableRuntime):
    """A client of a runtime with the storage and the options that the test gives."""

    def __init__(self, storage: Any, **options: Any) -> None:
        given = storage_at(storage, options.pop("durability", "full"))
        # While a thread works, virtual time would run away, and the links would expire.
        options.setdefault("runner", InlineRunner)
        sides = [given, given]
        if not isinstance(given, (SQLiteStorage, SharedStorage)):
            rows = Rows()
            sides = [_Shared(rows, given), _Shared(rows, given)]
        instruments = options.pop("instruments", ())
        self.owner = DurableRuntime(
            sides[0], cluster=Cluster(ttl=_TTL), instruments=instruments, **options
        )
        super().__init__(sides[1], cluster=Cluster(serve=False, ttl=_TTL), **options)
        self._both = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.owner)
            await super().__aenter__()
            self._both = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        async with self._both:
            await super().__aexit__(exc_type, exc, traceback)

    def _serve(self, object_type: ObjectType) -> LocalCalls:
        # Another process would have imported one class of that name.
        with suppress(UnknownObjectType):
            self.owner._registry.calls(object_type.cls)
        return super()._serve(object_type)

    # --- what a runtime says of its own process, which is asked where the objects are -------------

    def tenant(self, name: str, /) -> Tenant:
        found = super().tenant(name)
        if not isinstance(found, _AwayTenant):
            found = self._tenants[found.name] = _AwayTenant(self, found.name)
        return found

    def whereis(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> ActivationInfo | None:
        return self.owner.whereis(object_type, object_id)

    def count_objects(self) -> int:
        return self.owner.count_objects()

    def statistics(self) -> RuntimeStatistics:
        return self.owner.statistics()


class _AwayTenant(Tenant):
    def __init__(self, runtime: Away, name: str) -> None:
        super().__init__(runtime, name)
        self._there = runtime.owner.tenant(name)

    def whereis(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> ActivationInfo | None:
        return self._there.whereis(object_type, object_id)

    def count_objects(self) -> int:
        return self._there.count_objects()


class _Shared(SharedMemory):
    """A storage of a test, as the members see it. Its writing side is the owner's."""

    def __init__(self, rows: Rows, given: Storage) -> None:
        super().__init__(rows)
        self._given = given

    @property
    def location(self) -> str:
        return self._given.location

    @property
    def keeps_messages(self) -> bool:
        return self._given.keeps_messages

    def open_member(self, member: NewMember) -> Writer:
        if member.serves:
            inner = self.rows.writer = self._given.open_writer()
        else:
            inner = InterceptedWriter(self.rows.writer, _check_clients_work)
        self.membership = FakeMembership(self.rows, member)
        return _ClosingWriter(self.membership, inner, is_last=member.serves)

    def open_reader(self) -> Reader:
        return FedReader(self.is_fed, self._given.open_reader())


class _ClosingWriter(MemberWriter):
    def __init__(self, membership: FakeMembership, inner: Writer, *, is_last: bool) -> None:
        super().__init__(membership, inner)
        self._is_last = is_last

    def close(self) -> None:
        super().close()
        if self._is_last:
            self.inner.close()


def _check_clients_work(kind: str, work: Callable[[], T], /) -> T:
    if kind != "drop_tenant":  # which each member may do, once no other has objects of the tenant
        raise StorageFault(f"a client of a cluster writes: {kind}")
    return work()


async def first_look(runtime: DurableRuntime) -> None:
    """Wait until a runtime that has just opened fires the alarms that were due.

    A member has no shards at its first look at the table. It looks again when it has some.
    """
    is_away = isinstance(runtime, Away)
    await anyio.sleep(0.01 + (MIN_SECONDS_BETWEEN_READS if is_away else 0))


def place_objects_away(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Let the modules of a package of tests open `Away` as their runtimes."""
    for name, module in list(sys.modules.items()):
        is_theirs = name.split(".")[0] in (package, "support")
        if is_theirs and getattr(module, "DurableRuntime", None) is DurableRuntime:
            monkeypatch.setattr(module, "DurableRuntime", Away)


def parametrize_by_place(metafunc: pytest.Metafunc) -> None:
    """Let a test run twice, with its objects here and away. Its name is as before here."""
    places = [pytest.param("here", id=pytest.HIDDEN_PARAM), "away"]
    metafunc.parametrize("objects_are", places, indirect=True)


def sample(items: list[pytest.Item], long: Collection[str]) -> None:
    """Leave out tests that would run away, unless all should; the ``long`` ones first."""

    def runs(item: pytest.Item) -> bool:
        assert isinstance(item, pytest.Function)
        is_away = hasattr(item, "callspec") and item.callspec.params.get("objects_are") == "away"
        if EVERY == 1 or not is_away:
            return True
        return item.originalname not in long and crc32(item.nodeid.encode()) % EVERY == 0

    items[:] = filter(runs, items)
