"""An object that can't be written or read fails its own calls only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from trio_durable import (
    DurableObject,
    DurableRuntime,
    PersistenceError,
    SQLiteStorage,
    Storage,
    handler,
)
from trio_durable.storage.postgres import PostgresStorage

pytestmark = pytest.mark.anyio


class Counter(DurableObject):
    count: int = 0
    note: str = ""

    @handler
    def add(self, note: str = "") -> int:
        self.count += 1
        self.note = note
        return self.count


@pytest.fixture
def anyio_backend(real_backend: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return real_backend


Execute = Callable[[str], object]


@pytest.fixture(params=["sqlite", "postgres"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Storage, Execute, str]]:
    """A storage with its tables, a way to change them, and the name of the backend."""
    if request.param == "sqlite":
        storage: Storage = SQLiteStorage(tmp_path / "app.db")
        storage.open_writer().close()
        with sqlite3.connect(tmp_path / "app.db", isolation_level=None) as connection:
            yield storage, connection.execute, "sqlite"
        connection.close()
        return
    conninfo = request.getfixturevalue("postgres")
    storage = PostgresStorage(conninfo)
    storage.open_writer().close()
    with psycopg.connect(conninfo, autocommit=True) as admin:
        yield storage, lambda statement: admin.execute(statement.encode()), "postgres"


REFUSALS = {
    "trigger": {
        "sqlite": """CREATE TRIGGER no_bad BEFORE INSERT ON durable_objects
            WHEN NEW.state LIKE '%bad%' BEGIN SELECT RAISE(ABORT, 'no bad ones'); END""",
        "postgres": """
            CREATE FUNCTION no_bad() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'no bad ones'; END $$;
            CREATE TRIGGER no_bad BEFORE INSERT OR UPDATE ON durable_objects
            FOR EACH ROW WHEN (NEW.state LIKE '%bad%') EXECUTE FUNCTION no_bad()""",
    },
    "index": {
        "sqlite": "CREATE UNIQUE INDEX one_bad ON durable_objects (state) WHERE state LIKE '%bad%'",
        "postgres": (
            "CREATE INDEX no_bad ON durable_objects ((state::jsonb ->> 'note')) "
            "WHERE (CASE WHEN state LIKE '%bad%' THEN 1 / (length(state) * 0) END) IS NULL"
        ),
    },
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_an_object_whose_state_is_refused_fails_no_others(
    database: tuple[Storage, Execute, str], kind: str
) -> None:
    storage, execute, backend = database
    async with DurableRuntime(storage) as runtime:
        if kind == "index" and backend == "sqlite":
            await runtime.get(Counter, "first").add("bad")  # there may be one, but no second
        execute(REFUSALS[kind][backend])
        failures = 0
        done = False

        async def add_in_vain() -> None:
            nonlocal failures
            while not done:
                with pytest.raises(PersistenceError):
                    await runtime.get(Counter, "other").add("bad")
                failures += 1

        async def add(object_id: str) -> None:
            for n in range(20):
                assert await runtime.get(Counter, object_id).add() == n + 1

        async with anyio.create_task_group() as outer:
            outer.start_soon(add_in_vain)
            async with anyio.create_task_group() as tasks:
                for n in range(20):
                    tasks.start_soon(add, f"{n}")
            done = True
        assert failures > 0
        assert await runtime.get(Counter, "other").add("good") == 1


async def test_a_tenant_whose_tables_are_gone_fails_no_others(
    database: tuple[Storage, Execute, str],
) -> None:
    storage, execute, backend = database
    async with DurableRuntime(storage) as runtime:
        for tenant in ("acme", "zoo"):
            await runtime.tenant(tenant).get(Counter, "a").add()
        execute(
            'DROP TABLE "tenant_acme_durable_objects"'
            if backend == "sqlite"
            else "DROP TABLE durable_acme.durable_objects CASCADE"
        )

        async def add(tenant: str, object_id: str, is_fine: bool) -> None:
            target = runtime.tenant(tenant).get(Counter, object_id)
            if is_fine:
                await target.add()
            else:
                with pytest.raises(PersistenceError):
                    await target.add()

        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                for object_id in "ab":
                    tasks.start_soon(add, "acme", object_id, False)
                    tasks.start_soon(add, "zoo", object_id, True)
        assert await runtime.drop_tenant("acme") is True
        assert await runtime.tenant("acme").get(Counter, "a").add() == 1
