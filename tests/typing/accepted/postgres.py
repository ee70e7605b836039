"""PostgreSQL as the storage."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from trio_durable import DurableRuntime, PostgresStorage, Storage


async def opened() -> None:
    async with DurableRuntime("postgresql://app@db.example.com/shop") as runtime:
        assert_type(runtime, DurableRuntime)
    storage = PostgresStorage(
        "host=db.example.com",
        durability="normal",
        connect_timeout=timedelta(seconds=3),
        statement_timeout=2.5,
        prepared_statements=False,
    )
    kept: Storage = storage
    assert_type(storage.location, str)
    assert_type(storage.applied_migrations(), list[str])
    assert_type(storage.pending_migrations(), list[str])
    assert_type(storage.migrate_down("m001_objects"), list[str])
    assert_type(storage.migrate_down(None), list[str])
    assert_type(storage.migrate_down_sql("m001_objects"), str)
    assert_type(storage.migrate_down_sql(None), str)
    assert_type(storage.migration_sql(tenant="acme"), str)
    assert_type(storage.migration_sql(everything=True), str)
    async with DurableRuntime(kept):
        pass
