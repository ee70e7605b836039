"""What a scheduler of Oban refuses as it opens, each with the remedy."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest
import trio
from support.job_storage import schema_of
from support.oban_tables import install_tables
from support.postgres import url_of

from trio_durable import DurableRuntime, StorageUnavailable, WrongEventLoop
from trio_durable._eventloop.running import running_loop
from trio_durable.scheduler._oban import requirements
from trio_durable.scheduler._oban.requirements import require_oban
from trio_durable.scheduler.oban import ObanScheduler
from trio_durable.storage import SQLiteStorage
from trio_durable.storage.postgres import PostgresStorage

needs_oban = pytest.mark.skipif(sys.version_info < (3, 12), reason="Oban needs Python 3.12")


async def opens(runtime: DurableRuntime) -> None:
    async with runtime:
        pass


def on_postgres(conninfo: str, **settings: Any) -> DurableRuntime:
    scheduler = ObanScheduler("durable", prefix=schema_of(conninfo), **settings)
    return DurableRuntime(url_of(conninfo), objects=[], scheduler=scheduler)


@pytest.mark.parametrize("storage", [":memory:", "app.db", SQLiteStorage("app.db")])
def test_other_storages_than_postgresql_are_refused(storage: Any) -> None:
    with pytest.raises(ValueError, match="ObanScheduler needs a PostgreSQL database"):
        DurableRuntime(storage, scheduler=ObanScheduler())


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"queue": " "}, "queue must not be blank"),
        ({"prefix": ""}, "prefix must not be blank"),
        ({"limit": 0}, "limit must be"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        ObanScheduler(**settings)


def test_a_scheduler_is_a_record_of_settings(postgres: str) -> None:
    with pytest.raises(TypeError, match="scheduler must be an ObanScheduler or None, not 'oban'"):
        DurableRuntime(postgres, scheduler="oban")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="queue must be a str, not int"):
        ObanScheduler(1)  # type: ignore[arg-type]


def test_trio_is_refused(postgres: str) -> None:
    with pytest.raises(WrongEventLoop, match=r"asyncio\.run\(\)"):
        trio.run(opens, on_postgres(postgres))


def required(python: tuple[int, int], version: Callable[[str], str], problem: str) -> None:
    async def check() -> None:
        with pytest.raises(StorageUnavailable, match=problem):
            require_oban(running_loop(), "postgresql:///app", python)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requirements, "version", version)
        asyncio.run(check())


def test_an_old_python_is_refused() -> None:
    required((3, 11), lambda _: "0.7.0", r"needs Python 3\.12 or newer, and this is 3\.11")


@pytest.mark.parametrize("version", ["0.6.9", "0.8.0", "1.7"])
def test_other_releases_of_the_package_are_refused(version: str) -> None:
    required((3, 12), lambda _: version, f"needs oban >= 0.7, < 0.8, and {version} is installed")


def test_a_missing_package_is_refused() -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    required((3, 12), version, r"pip install 'trio-durable\[oban\]'")


@needs_oban
def test_a_database_without_oban_s_tables_is_refused(postgres: str) -> None:
    with pytest.raises(StorageUnavailable, match=r"install_sql\(\)"):
        asyncio.run(opens(on_postgres(postgres)))


@needs_oban
def test_the_wheel_is_refused_where_alarms_are_jobs(postgres: str) -> None:
    install_tables(postgres)
    asyncio.run(opens(on_postgres(postgres)))
    with pytest.raises(StorageUnavailable, match="where the timing wheel doesn't find them"):
        asyncio.run(opens(DurableRuntime(url_of(postgres), objects=[])))
    PostgresStorage(postgres).move_alarms(None)
    asyncio.run(opens(DurableRuntime(url_of(postgres), objects=[])))


# --- the application's own instance --------------------------------------------------------------


async def refused(
    conninfo: str, problem: str, *, start: bool = True, database: str = "", **settings: Any
) -> None:
    """Check that an instance is refused, and is left as it was."""
    oban = pytest.importorskip("oban")
    pool = await oban.Oban.create_pool(database or conninfo)
    prefix = schema_of(database or conninfo)
    instance = oban.Oban(pool=pool, prefix=prefix, **settings)
    try:
        if start:
            await instance.start()
        queues = [each.queue for each in instance.check_all_queues()]
        with pytest.raises(StorageUnavailable, match=problem):
            await opens(on_postgres(conninfo, instance=instance))
        assert [each.queue for each in instance.check_all_queues()] == queues
    finally:
        await instance.stop()
        await pool.close()


@needs_oban
def test_an_instance_that_isn_t_started_is_refused(postgres: str) -> None:
    install_tables(postgres)
    asyncio.run(refused(postgres, "isn't started", start=False))


@needs_oban
def test_an_instance_that_runs_the_queue_already_is_refused(postgres: str) -> None:
    install_tables(postgres)
    asyncio.run(refused(postgres, "runs the queue 'durable' already", queues={"durable": 1}))


@needs_oban
def test_an_instance_on_another_database_is_refused(postgres: str, postgres_database: Any) -> None:
    install_tables(postgres)
    other = postgres_database.new_schema()
    install_tables(other)
    asyncio.run(refused(postgres, "on another database, or another prefix", database=other))


@needs_oban
def test_what_isn_t_an_instance_is_refused(postgres: str) -> None:
    with pytest.raises(StorageUnavailable, match=r"no oban\.Oban"):
        asyncio.run(opens(on_postgres(postgres, instance=object())))
