"""Dropping a tenant: its objects leave memory, then its tables go.

The objects are stopped after the calls queued so far, and new calls of them are refused. The tables
are removed once no commit of theirs is on its way, since a later commit would create the tenant
again. A turn that drops a tenant waits for that tenant's objects in the wait graph, so it can't
deadlock.
"""

from __future__ import annotations

import contextlib

import anyio

from .._errors import PersistenceError, RuntimeClosed, TenantDropped
from .open_runtime import OpenRuntime


async def drop_tenant(opened: OpenRuntime, name: str) -> bool:
    """Remove a tenant, with all that is stored of it; return whether there was one.

    Raises:
        TenantDropped: The tenant is being dropped already.
        CallCycle: The caller is a turn of one of its objects, or one that such a turn waits for.
        StorageUnavailable: The storage refused; nothing was removed.
    """
    services = opened.services
    if name in services.dropping:
        raise TenantDropped(name)
    theirs = [
        activation
        for directory in opened.directories
        for activation in directory.activations()
        if activation.key.tenant == name
    ]
    nodes = [activation.state for activation in theirs]
    graph = services.wait_graph
    caller = graph.caller()
    if caller is not None:
        for node in nodes:
            graph.check(caller, node, "drop_tenant")
        for node in nodes:
            graph.begin(caller, node)
    leaving = [activation.request_stop() for activation in theirs]
    services.dropping.add(name)
    try:
        for waiter in leaving:
            with contextlib.suppress(PersistenceError):  # then it has left memory all the more
                await waiter.wait()
        if services.closed:  # and so may be the storage
            raise RuntimeClosed(f"the runtime closed before tenant {name} could be dropped")
        dropped = False
        # Shielded, so that no call of the tenant comes in between.
        with opened.storage_errors(), anyio.CancelScope(shield=True):
            dropped = await opened.group_commit.perform(lambda writer: writer.drop_tenant(name))
            opened.scheduler.dropped(name)
    finally:
        services.dropping.remove(name)
        if caller is not None:
            for node in nodes:
                graph.end(caller, node)
    return dropped
