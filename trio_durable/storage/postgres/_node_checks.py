"""Checks of the nodes of a PostgreSQL database, and of deliveries that dead ones have left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .._records import Finding
from ._connection import Connection
from ._names import Names
from ._nodes import NodeTable

_MARKS = """
SELECT to_type, to_id, handler FROM {messages} WHERE begun
UNION ALL
SELECT type_name, object_id, name FROM {alarms} WHERE claim IS NOT NULL AND marked = claim
"""
_SHOWN = 3


def node_finding(connection: Connection, home: str) -> Finding:
    """The runtimes, and which of them don't renew their leases."""
    nodes = NodeTable(home).list(connection)
    if not nodes:
        return Finding("nodes", "ok", "no runtime is open")
    text = ", ".join(
        f"process {node.pid} on {node.host}, renewed {max(0.0, node.age):.1f} s ago"
        for node in nodes
    )
    if any(node.age > node.ttl for node in nodes):
        return Finding(
            "nodes",
            "warning",
            f"{text}; one that isn't renewed is dead, or doesn't reach the server",
            "open a runtime, which takes its place",
        )
    return Finding("nodes", "ok", text)


def mark_findings(connection: Connection, home: str, tenants: Iterable[str]) -> Iterator[Finding]:
    """The deliveries in which a runtime has died, if none lives.

    Args:
        connection: For the statements.
        home: The schema of the nameless tenant.
        tenants: All tenants, "" among them. Read only if no runtime lives.
    """
    if any(node.age <= node.ttl for node in NodeTable(home).list(connection)):
        return
    found: list[str] = []
    for tenant in tenants:
        rows = connection.execute(Names(home, tenant).query(_MARKS)).fetchall()
        found += (f"{name} of {type_name}/{object_id}" for type_name, object_id, name in rows)
    if not found:
        yield Finding("marks", "ok", "no process died in a delivery that was watched")
        return
    more = len(found) - _SHOWN
    yield Finding(
        "marks",
        "warning",
        f"a process died while it delivered {', '.join(found[:_SHOWN])}"
        + (f", and {more} more" if more > 0 else ""),
        "open a runtime, which counts the crash and delivers it alone; it is a dead letter when "
        "as many processes have died as the `crashes` of its `Retry`",
    )
