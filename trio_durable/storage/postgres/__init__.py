"""PostgreSQL as a storage; needs psycopg, which the extra ``postgres`` installs."""

from ._storage import PostgresStorage

__all__ = ["PostgresStorage"]
