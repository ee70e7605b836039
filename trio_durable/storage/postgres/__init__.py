"""Storage in a PostgreSQL database. Needs psycopg: ``pip install 'trio-durable[postgres]'``."""

from ._storage import PostgresStorage

__all__ = ["PostgresStorage"]
