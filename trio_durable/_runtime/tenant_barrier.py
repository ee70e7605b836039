"""Tenant barrier: all members of a cluster hold a tenant before one of them drops it.

A member that joins meanwhile, or gets a shard, isn't among them. So after the drop each member that
is there then lets the tenant's objects leave memory, if it has loaded them before the drop.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio

from .._cluster.chain import decode_chain, encode_chain
from .._cluster.outcomes import RequestFailed
from .._cluster.service import unknown_request
from .._errors import DurableError, StorageUnavailable
from .._keys import ObjectKey
from .member_sharing import MemberSharing
from .open_runtime import OpenRuntime
from .tenant_drop import HOLD_SECONDS, holding, remove, send_away

logger = logging.getLogger("trio_durable.cluster")


class TenantBarrier:
    """The tenants that a member holds for others, and its drops of tenants.

    Args:
        opened: The runtime.
        sharing: The cluster.
    """

    def __init__(self, opened: OpenRuntime, sharing: MemberSharing) -> None:
        self._opened = opened
        self._sharing = sharing
        self._held: dict[str, ExitStack] = {}

    # --- of this member --------------------------------------------------------------------------

    async def drop(self, name: str) -> bool:
        """Drop a tenant everywhere; return whether there was one.

        Raises:
            TenantDropped: The tenant is being dropped already.
            CallCycle: The caller is a turn of one of its objects, or one that such a turn waits
                for.
            StorageUnavailable: The storage refused, or a member didn't answer; nothing was removed.
        """
        graph = self._opened.services.wait_graph
        caller = graph.caller()
        chain = [] if caller is None else encode_chain(graph.chain(caller))
        with holding(self._opened, name):
            try:
                with anyio.fail_after(HOLD_SECONDS / 2):
                    await self._ask_all("hold_tenant", name, chain)
                    await send_away(self._opened, name)
            except (TimeoutError, RequestFailed) as error:
                await self._let_all_admit(name, is_dropped=False)
                raise StorageUnavailable(
                    self._opened.storage.location,
                    f"another process of the cluster didn't send the objects of tenant {name} "
                    "away in time; nothing was removed",
                ) from error
            except BaseException:
                await self._let_all_admit(name, is_dropped=False)
                raise
            try:
                return await remove(self._opened, name)
            finally:
                await self._let_all_admit(name, is_dropped=True)

    async def _ask_all(self, request: str, *arguments: object) -> None:
        """Ask all other members that serve, and wait for their answers."""
        await self._sharing.ask_all(request, arguments, HOLD_SECONDS / 2)

    async def _let_all_admit(self, name: str, *, is_dropped: bool) -> None:
        """Let all members admit calls again; unreachable ones do so by themselves."""
        with (
            anyio.move_on_after(HOLD_SECONDS / 4, shield=True),
            contextlib.suppress(TimeoutError, DurableError, RequestFailed),
        ):
            await self._ask_all("admit_tenant", name, is_dropped)

    # --- for others ------------------------------------------------------------------------------

    async def make(self, name: str, arguments: list[Any]) -> bytes:
        """Make a request of another member. See `Targets.assist`."""
        match name:
            case "hold_tenant":
                tenant, chain = arguments
                await self.hold(tenant, decode_chain(chain))
            case "admit_tenant":
                await self.admit(*arguments)
            case _:
                raise unknown_request(name)
        return b"null"

    async def hold(self, name: str, chain: Sequence[ObjectKey]) -> None:
        """Hold a tenant for another member, and send its objects away.

        Raises:
            TenantDropped: The tenant is being dropped already.
            CallCycle: One of its objects waits for the other member's turn.
        """
        held = self._held.get(name)
        if held is None:  # else the answer was lost, and it is asked again
            held = ExitStack()
            held.enter_context(holding(self._opened, name))
            self._held[name] = held
            admitting = partial(self._admit_later, name, held)
            self._opened.services.tasks.start(admitting, f"trio_durable hold of {name}")
        try:
            await send_away(self._opened, name, chain)
        except BaseException:
            self._admit(name, held)
            raise

    async def admit(self, name: str, is_dropped: bool) -> None:
        """Admit calls of a tenant again, once all that was loaded of it before the drop is gone."""
        held = self._held.get(name)
        if held is None:
            if not is_dropped:
                return
            with contextlib.suppress(DurableError), holding(self._opened, name):
                await send_away(self._opened, name)
            self._opened.hub.dropped(name)
            return
        if is_dropped:
            self._opened.scheduler.dropped(name)
            self._opened.hub.dropped(name)
        self._admit(name, held)

    def _admit(self, name: str, held: ExitStack) -> None:
        if self._held.get(name) is held:
            del self._held[name]
        held.close()

    async def _admit_later(self, name: str, held: ExitStack) -> None:
        await anyio.sleep(HOLD_SECONDS)
        if self._held.get(name) is held:
            logger.warning("tenant %s is served again: nothing was heard of its drop", name)
            self._admit(name, held)
