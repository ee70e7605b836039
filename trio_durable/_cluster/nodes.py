"""Nodes: the runtimes of a cluster, for users."""

from __future__ import annotations

import os
import socket
import types
from collections.abc import Iterable
from typing import Any

import attrs

from ..storage import Member


@attrs.frozen
class Node:
    """A runtime of a cluster."""

    node_id: str
    """Its id, which no other runtime ever has."""
    host: str
    pid: int
    release: str
    """Its release of trio_durable."""
    serves: bool
    """False if it only calls."""
    shards: int
    """The parts of all objects that it has. On an SQLite file there is one part."""
    group: str | None = None
    """Its `Cluster.group`; None for a runtime that isn't in a cluster."""
    is_leaving: bool = False
    """It gives its shards away, and gets none."""
    age: float | None = None
    """Seconds since its last sign of life, by the clock of the database. None on an SQLite file,
    and for the runtime that lists itself before it has seen the others."""

    def as_info(self) -> list[Any]:
        """The node as JSON, for the other nodes. Without its age, which each node sees itself."""
        return list(attrs.astuple(self))[: len(_INFO)]


_INFO: tuple[tuple[type, ...], ...] = (
    *((str,), (str,), (int,), (str,), (bool,), (int,)),
    (str, types.NoneType),
    (bool,),
)
"""The types of the fields that a node sends to others."""


def this_node(node_id: str, *, serves: bool, shards: int, group: str | None = None) -> Node:
    """The node that a runtime of this process is."""
    from importlib.metadata import version  # here, since it takes long to import

    release = version("trio-durable")
    return Node(node_id, host_name(), os.getpid(), release, serves, shards, group)


def node_of_member(member: Member, group: str | None, shards: int) -> Node:
    """The node of a member of a cluster."""
    return Node(
        member.node_id,
        member.host,
        member.pid,
        member.library,
        member.serves,
        shards,
        group,
        member.is_leaving,
        max(0.0, member.age),
    )


def by_shards(nodes: Iterable[Node]) -> list[Node]:
    """The nodes in the order of lists: those with most shards first."""
    return sorted(nodes, key=lambda node: (-node.shards, node.node_id))


def node_of(info: object) -> Node:
    """The node that another process has described.

    Raises:
        ValueError: It is no description of a node.
    """
    if (
        not isinstance(info, list)
        or len(info) < len(_INFO)
        or any(type(value) not in kinds for value, kinds in zip(info, _INFO, strict=False))
    ):
        raise ValueError("a node has described itself in a way that this release can't read")
    return Node(*info[: len(_INFO)])


def host_name() -> str:
    """The name of this machine, by which a node of another one is told apart."""
    return socket.gethostname()
