"""Cleaning: removes the records of once-keys that have expired.

An expired key counts as absent whether or not its record is there. So cleaning is for space alone,
and gives way: a page at a time, and none while commits wait for more than one transaction.
"""

from __future__ import annotations

import logging
from functools import partial

import anyio

from .._clock import Clock
from .._eventloop.runner import Runner
from .._persistence.group_commit import GroupCommit
from ..storage import PartialFault, Reader, StorageFault, Writer

logger = logging.getLogger("trio_durable.messages")

INTERVAL_SECONDS = 3600.0
"""The pause between two passes over all tenants."""
PAUSE_SECONDS = 0.05
"""The pause between two transactions for one tenant."""
PAGE = 256
"""Records that are removed in one transaction, and tenants that are listed at once."""


class Cleaning:
    """The cleaning of one runtime.

    Args:
        clock: The time.
        group_commit: Has the writer.
        runner: The reader's.
        reader: The side of the storage that lists tenants.
    """

    def __init__(
        self, clock: Clock, group_commit: GroupCommit, runner: Runner, reader: Reader
    ) -> None:
        self._clock = clock
        self._group_commit = group_commit
        self._runner = runner
        self._reader = reader

    async def run(self) -> None:
        """Clean at intervals, until cancelled."""
        while True:
            await anyio.sleep(INTERVAL_SECONDS)
            try:
                await self.clean()
            except StorageFault as fault:
                logger.warning("could not remove expired once-keys: %s", fault)

    async def clean(self) -> None:
        """Remove what has expired, of all tenants. One that can't be cleaned is left out.

        Raises:
            StorageFault: It failed.
        """
        tenants = [""]
        while tenants:
            for tenant in tenants:
                try:
                    await self._clean_tenant(tenant)
                except PartialFault as fault:
                    logger.warning(
                        "could not remove expired once-keys of tenant %r: %s", tenant, fault
                    )
            list_next = partial(self._reader.list_tenants, tenants[-1], PAGE)
            tenants = await self._runner.run(list_next)

    async def _clean_tenant(self, tenant: str) -> None:
        while not self._group_commit.is_behind:
            clean = partial(_clean, self._clock.now(), tenant)
            if await self._group_commit.perform(clean) < PAGE:
                return
            await anyio.sleep(PAUSE_SECONDS)


def _clean(now: int, tenant: str, writer: Writer) -> int:
    return writer.clean_once(now, PAGE, tenant)
