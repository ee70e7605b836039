"""Deferrals: stores until when messages sleep that have failed.

A tenant whose messages can't be written keeps no others waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from .._eventloop.loop import Loop
from .._eventloop.wakeup import AutoResetEvent
from .._persistence.division import in_parts
from .._persistence.group_commit import GroupCommit
from ..storage import Deferral, PartialFault, StorageFault, Writer
from .failing_tenants import FailingTenants
from .inbox import Flight

_Waiting: TypeAlias = tuple[Flight, Deferral]
_Outcome: TypeAlias = PartialFault | StorageFault | None


class Deferrals:
    """The deferrals of one runtime that aren't stored.

    Args:
        loop: The event loop.
        group_commit: Has the writer.
        stored: Called with each one that is stored.
    """

    def __init__(
        self, loop: Loop, group_commit: GroupCommit, stored: Callable[[Flight, Deferral], None]
    ) -> None:
        self._group_commit = group_commit
        self._stored = stored
        self._waiting: dict[Flight, Deferral] = {}
        self._has_some = AutoResetEvent(loop)
        self._failing = FailingTenants(loop, "could not defer messages")

    def add(self, flight: Flight, deferral: Deferral) -> None:
        """The message of a delivery is to sleep."""
        self._waiting[flight] = deferral
        self._has_some.set()

    async def run(self) -> None:
        """Store them, until cancelled.

        Raises:
            StorageFault: It failed; call again.
        """
        failing, waiting = self._failing, self._waiting
        while True:
            ready = [each for each in waiting.items() if not failing.must_wait(_tenant_of(each))]
            if not ready:
                tenants = {_tenant_of(each) for each in waiting.items()}
                await self._has_some.wait(failing.first_pause(tenants))
                continue
            parts = await self._group_commit.perform(partial(_defer_in_parts, ready))
            for part, outcome in parts:
                if isinstance(outcome, PartialFault):
                    for tenant in {_tenant_of(each) for each in part}:
                        failing.failed(tenant, outcome)
                else:
                    for flight, deferral in part:
                        del waiting[flight]
                        failing.ended(deferral.key.to.tenant)
                        self._stored(flight, deferral)


def _tenant_of(waiting: _Waiting) -> str:
    return waiting[1].key.to.tenant


def _defer_in_parts(batch: list[_Waiting], writer: Writer) -> list[tuple[list[_Waiting], _Outcome]]:
    """Store the deferrals of a batch, in the writer's thread; failed ones apart."""

    def attempt(part: list[_Waiting]) -> _Outcome:
        try:
            writer.defer_messages([deferral for _, deferral in part])
        except PartialFault as fault:
            return fault
        return None

    return list(in_parts(batch, _tenant_of, attempt))
