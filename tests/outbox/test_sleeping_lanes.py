"""Lanes that sleep, and tenants that can't be read: what fails delays nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import anyio
import attrs
import pytest
from support.storages import storage

from trio_durable import (
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    Retry,
    SQLiteStorage,
    handler,
)
from trio_durable._outbox import inboxes, sleeping_lanes
from trio_durable._outbox.inboxes import LANES
from trio_durable.storage import (
    Deferral,
    DueMessage,
    ForwardingReader,
    ForwardingStorage,
    ForwardingWriter,
    MessageKey,
    OnceKey,
    OnceReply,
    PartialFault,
    Reader,
    Receiver,
    Storage,
    StoredMessage,
    Writer,
)

__all__ = ["storage"]  # a fixture

pytestmark = pytest.mark.anyio

T = TypeVar("T")
CROWD = 2 * LANES + 3
"""Senders whose messages fail."""


class Till(DurableObject, remember=timedelta(hours=3)):
    taken: list[str] = attrs.field(factory=list)

    @handler(retry=Retry(initial=3600, maximum=3600, attempts=5))
    def refuse(self, text: str) -> None:
        message = self.ctx.message
        assert message is not None
        if message.attempt == 1:
            raise ValueError(text)
        self.taken = [*self.taken, text]

    @handler
    def take(self, text: str) -> None:
        self.taken = [*self.taken, text]

    @handler(readonly=True)
    def texts(self) -> list[str]:
        return self.taken

    @handler
    def close(self) -> None:
        self.ctx.delete()

    @handler
    def close_and_note(self) -> None:
        self.ctx.delete()
        self.ctx.send(Till.take, self.ctx.object_id, "after the deletion")


class Customer(DurableObject):
    sent: int = 0

    @handler
    def annoy(self, till: str) -> None:
        self.ctx.send(Till.refuse, till, f"refused {self.ctx.object_id}")

    @handler
    def pay(self, till: str, text: str) -> None:
        self.ctx.send(Till.take, till, text)

    @handler
    def remind(self, till: str, seconds: float) -> None:
        self.ctx.outgoing(after=seconds).send(Till.take, till, "reminder")

    @handler
    def close(self, till: str) -> None:
        self.ctx.send(Till.close, till)

    @handler
    def close_and_note(self, till: str) -> None:
        self.ctx.send(Till.close_and_note, till)


def opened(storage: Storage, **options: Any) -> DurableRuntime:
    # Virtual time would run away while a thread works.
    return DurableRuntime(storage, objects=[Till, Customer], runner=InlineRunner, **options)


async def crowd(runtime: DurableRuntime, till: str = "t", count: int = CROWD) -> None:
    """Messages of many senders, all of which fail and sleep for an hour or so."""
    for number in range(count):
        await runtime.get(Customer, f"c{number:02}").annoy(till)
    await runtime.settled(Till, till)


async def texts(runtime: DurableRuntime, till: str = "t") -> list[str]:
    await runtime.settled(Till, till)
    return await runtime.get(Till, till).texts()


REFUSED = sorted(f"refused c{number:02}" for number in range(CROWD))


async def test_lanes_that_sleep_keep_no_others_back(storage: Storage) -> None:
    async with opened(storage) as runtime:
        await crowd(runtime)
        await runtime.get(Customer, "z").pay("t", "one")
        assert await texts(runtime) == ["one"]
    async with opened(storage) as runtime:
        await runtime.get(Customer, "z").pay("t", "two")
        assert await texts(runtime) == ["one", "two"]
        await runtime.get(Customer, "c00").pay("t", "behind")  # which waits for the first one
        assert await texts(runtime) == ["one", "two"]
        await anyio.sleep(7200)
        found = await texts(runtime)
        assert sorted(found) == sorted(["one", "two", "behind", *REFUSED])
        assert found.index("refused c00") < found.index("behind")


async def test_a_lane_behind_many_that_sleep_is_found_in_the_table(storage: Storage) -> None:
    async with DurableRuntime(storage, objects=[Customer], runner=InlineRunner) as runtime:
        await runtime.get(Customer, "z").pay("t", "waits")
    async with opened(storage) as runtime:
        await crowd(runtime)
        assert await texts(runtime) == ["waits"]
    async with DurableRuntime(storage, objects=[Customer], runner=InlineRunner) as runtime:
        await runtime.get(Customer, "z").pay("t", "waits once more")
    async with opened(storage) as runtime:
        assert await texts(runtime) == ["waits", "waits once more"]


async def test_lanes_that_sleep_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "MAX_MESSAGES", 20)
    storage = MemoryStorage()
    async with opened(storage) as runtime:
        for till in ("t", "u"):
            await crowd(runtime, till, 15)
        assert runtime.statistics().messages_waiting == 0
        await runtime.get(Customer, "z").pay("v", "one")
        assert await texts(runtime, "v") == ["one"]
    async with opened(storage) as runtime:
        await runtime.get(Customer, "z").pay("v", "two")
        assert await texts(runtime, "v") == ["one", "two"]
        await anyio.sleep(7200)
        assert len(await texts(runtime)) == 15


async def test_beyond_the_names_in_memory_a_lane_is_read_before_it_is_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sleeping_lanes, "MAX_NAMES", 4)
    async with opened(MemoryStorage()) as runtime:
        await crowd(runtime)
        for number in range(CROWD):
            await runtime.get(Customer, f"c{number:02}").pay("t", f"paid c{number:02}")
        await runtime.get(Customer, "z").pay("t", "one")
        assert await texts(runtime) == ["one"]
        await anyio.sleep(7200)
        found = await texts(runtime)
        for number in range(CROWD):
            name = f"c{number:02}"
            assert found.index(f"refused {name}") < found.index(f"paid {name}")


async def test_a_lane_that_slept_wakes_with_its_deleted_object(storage: Storage) -> None:
    """The message that has failed is a dead letter then, and later ones wait for nothing."""
    async with opened(storage) as runtime:
        await crowd(runtime, count=3)
        await runtime.delete(Till, "t")
        await runtime.get(Customer, "c00").pay("t", "after")
        assert await texts(runtime) == ["after"]
        assert len(await runtime.list_dead_messages()) == 3


async def test_a_lane_that_sleeps_long_delays_no_message_of_an_earlier_process() -> None:
    storage = MemoryStorage()
    async with opened(storage) as runtime:
        await runtime.get(Customer, "z").remind("t", 600)
        await crowd(runtime, count=1)
    async with opened(storage) as runtime:
        await runtime.settled(Till, "t")
        await anyio.sleep(601)
        assert await texts(runtime) == ["reminder"]


async def test_a_message_to_itself_of_a_turn_that_deletes_the_object_arrives() -> None:
    async with opened(MemoryStorage()) as runtime:
        await runtime.get(Customer, "z").close_and_note("t")
        assert await texts(runtime) == ["after the deletion"]


# --- tenants that can't be read ------------------------------------------------------------------


class Damaged(ForwardingStorage):
    """A storage that refuses a tenant in operations that the test names."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.refused: Collection[str] = ()
        self.attempts: list[str] = []

    def open_writer(self) -> Writer:
        return _Writer(self, super().open_writer())

    def open_reader(self) -> Reader:
        return _Reader(self, super().open_reader())

    def check(self, operation: str, tenants: set[str]) -> None:
        if operation in self.refused and "acme" in tenants:
            self.attempts.append(operation)
            raise PartialFault(f"no such table ({operation})")

    @contextmanager
    def refusing(self, *operations: str) -> Iterator[None]:
        self.refused = operations
        yield
        self.refused = ()


class _Writer(ForwardingWriter):
    def __init__(self, damaged: Damaged, writer: Writer) -> None:
        super().__init__(writer)
        self.damaged = damaged

    def clean_once(self, now: int, limit: int, tenant: str = "") -> int:
        self.damaged.check("clean_once", {tenant})
        return super().clean_once(now, limit, tenant)

    def defer_messages(self, deferrals: Sequence[Deferral]) -> None:
        self.damaged.check("defer_messages", {each.key.to.tenant for each in deferrals})
        super().defer_messages(deferrals)


class _Reader(ForwardingReader):
    def __init__(self, damaged: Damaged, reader: Reader) -> None:
        super().__init__(reader)
        self.damaged = damaged

    def list_receivers(self, after: Any, limit: int, tenant: str = "") -> list[Receiver]:
        self.damaged.check("list_receivers", {tenant})
        return super().list_receivers(after, limit, tenant)

    def read_mail(self, to: Any, after: Any, lanes: int, limit: int) -> list[StoredMessage]:
        self.damaged.check("read_mail", {to.tenant})
        return super().read_mail(to, after, lanes, limit)

    def read_lane(self, to: Any, lane: str, after: int, limit: int) -> list[StoredMessage]:
        self.damaged.check("read_lane", {to.tenant})
        return super().read_lane(to, lane, after, limit)

    def load_messages(self, keys: Sequence[MessageKey]) -> list[StoredMessage | None]:
        self.damaged.check("load_messages", {key.to.tenant for key in keys})
        return super().load_messages(keys)

    def due_messages(
        self, before: int, after: Any, limit: int, except_types: Any, tenant: str = ""
    ) -> list[DueMessage]:
        self.damaged.check("due_messages", {tenant})
        return super().due_messages(before, after, limit, except_types, tenant)

    def find_once(self, keys: Sequence[OnceKey], now: int) -> list[OnceReply | None]:
        self.damaged.check("find_once", {key.to.tenant for key in keys})
        return super().find_once(keys, now)


TENANTS = ("aaa", "acme", "zoo")


async def leave_mail(storage: Storage) -> None:
    """A message that waits, one that is delayed, and one that has failed, of each tenant."""
    async with opened(storage) as runtime:
        for tenant in TENANTS:
            await runtime.tenant(tenant).get(Customer, "z").remind("t", 60)
            await runtime.tenant(tenant).get(Customer, "c").annoy("t")
            await runtime.tenant(tenant).settled(Till, "t")
    async with DurableRuntime(storage, objects=[Customer], runner=InlineRunner) as runtime:
        for tenant in TENANTS:
            await runtime.tenant(tenant).get(Customer, "y").pay("t", "waits")


@pytest.mark.parametrize(
    "operation", ["list_receivers", "read_mail", "read_lane", "load_messages", "due_messages"]
)
async def test_a_tenant_that_cannot_be_read_delays_no_other(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read again after pauses, and is served when it can be."""
    storage = Damaged(MemoryStorage())
    await leave_mail(storage)
    with storage.refusing(operation):
        async with opened(storage) as runtime:
            for tenant in ("aaa", "zoo"):
                await runtime.tenant(tenant).settled(Till, "t")
                assert await runtime.tenant(tenant).get(Till, "t").texts() == ["waits"]
            await anyio.sleep(7200)
            for tenant in ("aaa", "zoo"):
                found = await runtime.tenant(tenant).get(Till, "t").texts()
                assert found == ["waits", "reminder", "refused c"]
            assert 0 < len(storage.attempts) < 300
            assert caplog.text.count("of tenant 'acme', and tries again") == 1
            storage.refused = ()
            await anyio.sleep(7200)
            found = await runtime.tenant("acme").get(Till, "t").texts()
            assert sorted(found) == ["refused c", "reminder", "waits"]


async def test_a_message_that_is_sent_while_its_tenant_cannot_be_read_overtakes_none() -> None:
    storage = Damaged(MemoryStorage())
    await leave_mail(storage)
    with storage.refusing("read_mail"):
        async with opened(storage) as runtime:
            acme = runtime.tenant("acme")
            await anyio.sleep(5)
            await acme.get(Customer, "y").pay("t", "later")
            await anyio.sleep(5)
            storage.refused = ()
            await anyio.sleep(60)
            found = await acme.get(Till, "t").texts()
            assert [each for each in found if each != "reminder"] == ["waits", "later"]


async def test_a_tenant_whose_failures_cannot_be_stored_delays_no_other() -> None:
    storage = Damaged(MemoryStorage())
    with storage.refusing("defer_messages"):
        async with opened(storage) as runtime:
            for tenant in TENANTS:
                await runtime.tenant(tenant).get(Customer, "c").annoy("t")
                await runtime.tenant(tenant).get(Customer, "c").pay("t", "behind")
            await anyio.sleep(7200)
            for tenant in ("aaa", "zoo"):
                found = await runtime.tenant(tenant).get(Till, "t").texts()
                assert found == ["refused c", "behind"]
            assert await runtime.tenant("acme").get(Till, "t").texts() == []
            storage.refused = ()
            await anyio.sleep(7200)
            found = await runtime.tenant("acme").get(Till, "t").texts()
            assert found == ["refused c", "behind"]


async def test_a_tenant_whose_once_keys_cannot_be_read_fails_no_other_call() -> None:
    storage = Damaged(MemoryStorage())
    outcomes: dict[str, object] = {}

    async def pay(runtime: DurableRuntime, tenant: str) -> None:
        try:
            await runtime.tenant(tenant).get(Till, "t", once="k", timeout=1).take("once")
            outcomes[tenant] = "paid"
        except Exception as error:  # noqa: BLE001  # looked at below
            outcomes[tenant] = type(error).__name__

    with storage.refusing("find_once"):
        async with opened(storage) as runtime, anyio.create_task_group() as tasks:
            for tenant in TENANTS:
                tasks.start_soon(pay, runtime, tenant)
    assert outcomes == {"aaa": "paid", "acme": "StorageUnavailable", "zoo": "paid"}


async def test_a_tenant_that_cannot_be_cleaned_keeps_no_other_from_it() -> None:
    storage = Damaged(MemoryStorage())
    with storage.refusing("clean_once"):
        async with opened(storage) as runtime:
            for tenant in TENANTS:
                await runtime.tenant(tenant).get(Till, "t", once="k").take("once")
            await anyio.sleep(timedelta(hours=6).total_seconds())
            reader = storage.open_reader()
            assert [len(reader.list_once(None, 9, tenant)) for tenant in TENANTS] == [0, 1, 0]


async def test_a_tenant_with_damaged_tables_delays_no_other(
    storage: Storage, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if isinstance(storage, MemoryStorage):
        pytest.skip("it has no tables")
    execute = _executor(storage, tmp_path, request)
    await leave_mail(storage)
    table = "durable_messages"
    if isinstance(storage, SQLiteStorage):
        table = f"tenant_acme_{table}"
        rename = f"ALTER TABLE {table} RENAME TO elsewhere"
        back = f"ALTER TABLE elsewhere RENAME TO {table}"
    else:
        rename = f"ALTER TABLE durable_acme.{table} RENAME TO elsewhere"
        back = f"ALTER TABLE durable_acme.elsewhere RENAME TO {table}"
    execute(rename)
    async with opened(storage) as runtime:
        await anyio.sleep(90)
        for tenant in ("aaa", "zoo"):
            found = await runtime.tenant(tenant).get(Till, "t").texts()
            assert found == ["waits", "reminder"]
        execute(back)
        await anyio.sleep(90)
        assert sorted(await runtime.tenant("acme").get(Till, "t").texts()) == ["reminder", "waits"]


def _executor(
    storage: Storage, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[str], object]:
    """Runs SQL on the storage, beside the runtime."""
    if isinstance(storage, SQLiteStorage):
        import sqlite3
        from contextlib import closing

        def execute(sql: str) -> None:
            with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
                connection.execute(sql)

        return execute
    import psycopg

    def execute_there(sql: str) -> None:
        with psycopg.connect(request.getfixturevalue("postgres"), autocommit=True) as connection:
            connection.execute(sql.encode())

    return execute_there
