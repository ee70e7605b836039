"""A tenant whose tables are damaged holds up no other tenant, and can be repaired or dropped."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import psycopg
import pytest

from trio_durable import (
    DurableRuntime,
    InlineRunner,
    PersistenceError,
    PostgresStorage,
    SQLiteStorage,
    Storage,
)

from .bench import OBJECTS, Bench, fired, script

pytestmark = pytest.mark.anyio

TENANTS = ("aaa", "acme", "zoo")

Execute = Callable[[str], object]


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, Execute, str]:
    """A storage, a function that runs SQL on it, and the tenant's table of objects."""
    if request.param == "sqlite":
        path = tmp_path / "objects.db"

        def execute(sql: str) -> None:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(sql)

        return SQLiteStorage(path), execute, "tenant_acme_durable_objects"
    conninfo: str = request.getfixturevalue("postgres")

    def execute_there(sql: str) -> None:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(sql.encode())

    return PostgresStorage(conninfo), execute_there, "durable_acme.durable_objects"


def opened(storage: Storage) -> DurableRuntime:
    return DurableRuntime(storage, objects=OBJECTS, runner=InlineRunner, polling_interval=8)


def fired_of() -> list[str]:
    return sorted(firing.object_id for firing in fired)


@pytest.mark.parametrize("repair", [True, False], ids=["repaired", "dropped"])
async def test_a_damaged_tenant_holds_up_no_other(
    backend: tuple[Storage, Execute, str], repair: bool, caplog: pytest.LogCaptureFixture
) -> None:
    storage, execute, table = backend
    nothing = script("nothing", lambda self: None)
    async with opened(storage) as runtime:
        for tenant in TENANTS:
            await runtime.tenant(tenant).get(Bench, tenant).note("first")
            await runtime.tenant(tenant).schedule_alarm(Bench, tenant, nothing, after=10)
    name = table.rpartition(".")[2]
    elsewhere = table.replace(name, "elsewhere")
    execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    async with opened(storage) as runtime:
        await anyio.sleep(12)
        assert [each for each in fired_of() if each != "acme"] == ["aaa", "zoo"]
        fired.clear()
        assert re.search(r"tenant 'acme'.*durable_objects", caplog.text)
        acme = runtime.tenant("acme").get(Bench, "acme")
        with pytest.raises(PersistenceError, match=rf"tenant acme: .*{name}"):
            await acme.read()
        assert "first" in await runtime.tenant("zoo").get(Bench, "zoo").read()
        if repair:
            execute(f"ALTER TABLE {elsewhere} RENAME TO {name}")
            assert "first" in await acme.read()
        else:
            execute(f"DROP TABLE {elsewhere}")
            assert await runtime.drop_tenant("acme") is True
            assert await acme.read() == []
        await acme.note("second")
