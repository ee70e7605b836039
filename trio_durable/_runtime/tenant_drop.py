"""Dropping a tenant: its objects leave memory, then its tables go.

The objects are stopped after the calls queued so far, and new calls of them are refused. The tables
are removed once no commit of theirs is on its way, since a later commit would create the tenant
again. A turn that drops a tenant waits for that tenant's objects in the wait graph, so it can't
deadlock.

In a cluster of members all of them do so first. One that hears nothing more for `HOLD_SECONDS`
admits calls again, so the tables are removed within half of that or not at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import anyio

from .._activations.wait_graph import Node
from .._errors import PersistenceError, RuntimeClosed, TenantDropped
from .._keys import ObjectKey
from .open_runtime import OpenRuntime

HOLD_SECONDS = 60.0


async def drop_tenant(opened: OpenRuntime, name: str) -> bool:
    """Remove a tenant, with all that is stored of it; return whether there was one.

    Raises:
        TenantDropped: The tenant is being dropped already.
        CallCycle: The caller is a turn of one of its objects, or one that such a turn waits for.
        StorageUnavailable: The storage refused; nothing was removed.
    """
    with holding(opened, name):
        await send_away(opened, name)
        return await remove(opened, name)


@contextlib.contextmanager
def holding(opened: OpenRuntime, name: str) -> Iterator[None]:
    """Refuse calls of a tenant's objects.

    Raises:
        TenantDropped: The tenant is being dropped already.
    """
    dropping = opened.services.dropping
    if name in dropping:
        raise TenantDropped(name)
    dropping.add(name)
    try:
        yield
    finally:
        dropping.remove(name)
        if opened.outbox is not None:
            # It has forgotten what it could not deliver, and may know of what is gone.
            opened.outbox.rescan_tenant(name)


async def send_away(opened: OpenRuntime, name: str, chain: Sequence[ObjectKey] = ()) -> None:
    """Let a tenant's objects leave memory, and return when they have. It is held.

    Args:
        opened: The runtime.
        name: The tenant.
        chain: The objects that wait for this in another process, see `WaitGraph.chain`.

    Raises:
        CallCycle: The caller is a turn of one of its objects, or one that such a turn waits for.
        RuntimeClosed: The runtime has closed meanwhile.
    """
    services = opened.services
    theirs = [
        activation
        for directory in opened.directories
        for activation in directory.activations()
        if activation.key.tenant == name
    ]
    graph = services.wait_graph
    nodes: list[Node] = [activation.state for activation in theirs]
    caller = graph.caller()
    for node in nodes:
        graph.check_chain(chain, node, "drop_tenant")
        if caller is not None:
            graph.check(caller, node, "drop_tenant")
    if caller is not None:
        for node in nodes:
            graph.begin(caller, node)
    try:
        for waiter in [activation.request_stop() for activation in theirs]:
            with contextlib.suppress(PersistenceError):  # then it has left memory all the more
                await waiter.wait()
    finally:
        if caller is not None:
            for node in nodes:
                graph.end(caller, node)
    if services.closed:  # and so may be the storage
        raise RuntimeClosed(f"the runtime closed before tenant {name} could be dropped")


async def remove(opened: OpenRuntime, name: str) -> bool:
    """Remove a tenant's tables. Its objects have left memory; return whether it existed.

    Raises:
        StorageUnavailable: The storage refused; nothing was removed.
    """
    dropped = False
    # Shielded, so that no call of the tenant comes in between.
    with opened.storage_errors(), anyio.CancelScope(shield=True):
        dropped = await opened.group_commit.perform(lambda writer: writer.drop_tenant(name))
        opened.scheduler.dropped(name)
        opened.hub.dropped(name)
    return dropped
