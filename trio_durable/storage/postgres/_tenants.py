"""Known tenants: a cache of the tenants that exist and whose tables can be used.

A statement on the table of a tenant that doesn't exist would be an error in the server's log, and
anyone who can name tenants could fill it. So a tenant is looked up before its first use. Its tables
are brought up to date and verified then. If that fails, this tenant is refused, and it is looked up
again before each use, so it can be used as soon as its tables are repaired.

The cache is shared by the sides of a storage, each in its own thread. Another process may drop a
tenant that is in the cache. The next statement on its tables then fails, and the name is looked up
once more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from .._faults import PartialFault
from ._connection import Connection
from ._migrations import Schema
from ._verification import verify_tenants

logger = logging.getLogger("trio_durable.storage")


class KnownTenants:
    """A set of tenants. Operations on single names are atomic under the GIL."""

    def __init__(self) -> None:
        self._names = {""}
        self._problems: dict[str, str] = {}

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._names

    def look_up(self, connection: Connection, schema: Schema, tenants: Iterable[str]) -> None:
        """Add those of ``tenants`` that exist and can be used.

        Their tables are brought up to date and verified first. `refuse` refuses the other existing
        ones.
        """
        unknown = [tenant for tenant in tenants if tenant not in self._names]
        if not unknown:
            return
        existing = schema.existing(connection, unknown)
        problems = {tenant: problem for tenant, problem in existing.items() if problem}
        current = [tenant for tenant in existing if tenant not in problems]
        problems |= verify_tenants(connection, schema.home, current)
        for tenant in unknown:
            if tenant in problems:
                self.note(tenant, problems[tenant])
                continue
            if self._problems.pop(tenant, None) is not None and tenant in existing:
                logger.info("tenant %r can be used again", tenant)
            if tenant in existing:
                self._names.add(tenant)

    def note(self, tenant: str, problem: str) -> None:
        """Refuse a tenant until a look-up finds that it can be used. Logs each problem once."""
        if self._problems.get(tenant) != problem:
            self._problems[tenant] = problem
            logger.warning("tenant %r can't be used, the others can: %s", tenant, problem)

    def refuse(self, tenants: Sequence[str]) -> None:
        """Refuse the tenants that can't be used, as the latest look-up of each has found.

        Args:
            tenants: The tenant of each item of a batch.

        Raises:
            PartialFault: Names the items of such tenants.
        """
        if not self._problems:
            return
        positions = [at for at, tenant in enumerate(tenants) if tenant in self._problems]
        if positions:
            first = tenants[positions[0]]
            raise PartialFault(
                f"tenant {first!r} can't be used: {self._problems[first]}", positions
            )

    def clear(self) -> None:
        """Forget all tenants, so that each is looked up once more before its next use."""
        self._names = {""}

    def forget(self, tenants: Iterable[str]) -> bool:
        """Remove tenants. Returns whether any of them was known."""
        known = [tenant for tenant in tenants if tenant and tenant in self._names]
        for tenant in known:
            self._names.discard(tenant)
        return bool(known)
