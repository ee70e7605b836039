"""PostgreSQL as the storage, wrongly."""

from __future__ import annotations

from trio_durable import PostgresStorage

PostgresStorage()  # refused
PostgresStorage(b"postgresql://")  # refused
PostgresStorage("postgresql://", durability="fast")  # refused
PostgresStorage("postgresql://", connect_timeout="3")  # refused
PostgresStorage("postgresql://", 3)  # refused
PostgresStorage("postgresql://").migrate_down()  # refused
PostgresStorage("postgresql://").migrate_down(3)  # refused
PostgresStorage("postgresql://").location = "here"  # refused
