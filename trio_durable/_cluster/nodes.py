"""Nodes: the runtimes of a cluster, for users."""

from __future__ import annotations

import os
import socket
from typing import Any

import attrs


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

    def as_info(self) -> list[Any]:
        """The node as JSON, for the other nodes."""
        return list(attrs.astuple(self))


def this_node(node_id: str, *, serves: bool, shards: int) -> Node:
    """The node that a runtime of this process is."""
    from importlib.metadata import version  # here, since it takes long to import

    return Node(node_id, host_name(), os.getpid(), version("trio-durable"), serves, shards)


def node_of(info: object) -> Node:
    """The node that another process has described.

    Raises:
        ValueError: It is no description of a node.
    """
    fields = attrs.fields(Node)
    kinds = (str, str, int, str, bool, int)
    if (
        not isinstance(info, list)
        or len(info) < len(fields)
        or any(type(value) is not kind for value, kind in zip(info, kinds, strict=False))
    ):
        raise ValueError("a node has described itself in a way that this release can't read")
    return Node(*info[: len(fields)])


def host_name() -> str:
    """The name of this machine, by which a node of another one is told apart."""
    return socket.gethostname()
