"""Known tenants: a cache of the tenants that exist and whose tables are up to date.

A statement on the table of a tenant that doesn't exist would be an error in the server's log, and
anyone who can name tenants could fill it. So a tenant is looked up before its first use.

The cache is shared by the sides of a storage, each in its own thread. Another process may drop a
tenant that is in the cache. The next statement on its tables then fails, and the name is looked up
once more.
"""

from __future__ import annotations

from collections.abc import Iterable

from ._connection import Connection
from ._migrations import Schema


class KnownTenants:
    """A set of tenants. Operations on single names are atomic under the GIL."""

    def __init__(self) -> None:
        self._names = {""}

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._names

    def look_up(self, connection: Connection, schema: Schema, tenants: Iterable[str]) -> None:
        """Add those of ``tenants`` that exist, after bringing their tables up to date."""
        unknown = [tenant for tenant in tenants if tenant not in self._names]
        if unknown:
            for tenant in schema.existing(connection, unknown):
                self._names.add(tenant)

    def forget(self, tenants: Iterable[str]) -> bool:
        """Remove tenants. Returns whether any of them was known."""
        known = [tenant for tenant in tenants if tenant and tenant in self._names]
        for tenant in known:
            self._names.discard(tenant)
        return bool(known)
