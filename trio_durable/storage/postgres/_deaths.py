"""Deaths of other nodes, and their two proofs.

- On the same machine a node's `Presence` is gone.
- Elsewhere its number of renewals has stood still for its TTL, by the clock of the observer, who
  has looked again and again on one incarnation of the server.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum, auto
from uuid import UUID

import attrs

from ..._clock import boot_time
from ._nodes import FoundNode
from ._presence import is_gone


class Sign(Enum):
    """The result of a look at a node."""

    UNKNOWN = auto()
    """The first look, without a proof."""
    RENEWED = auto()
    """It was renewed since the look before."""
    SILENT = auto()
    """It was not."""
    DEAD = auto()
    """Its death is proved, unless it was renewed since the look."""


@attrs.define
class _Silence:
    """The time for which a node's number of renewals has stood still."""

    renewals: int
    since: float
    looked_at: float


class Deaths:
    """The looks of one observer at the other nodes."""

    def __init__(self) -> None:
        self._server = ""
        self._silences: dict[UUID, _Silence] = {}

    def look(self, node: FoundNode, server: str) -> Sign:
        """Look at a node that was read just now.

        Args:
            node: The node.
            server: The incarnation of the server that it was read from.
        """
        gone = is_gone(node.proof)
        now = boot_time()  # after the look, so that the silence isn't taken for a longer one
        if server != self._server:
            self._server = server
            self._silences.clear()
        before = silence = self._silences.get(node.node_id)
        is_renewed = silence is not None and silence.renewals != node.renewals
        if silence is None or is_renewed or now - silence.looked_at > node.ttl / 2:
            silence = self._silences[node.node_id] = _Silence(node.renewals, now, now)
        silence.looked_at = now
        if gone or now - silence.since >= node.ttl:
            return Sign.DEAD
        if before is None:
            return Sign.UNKNOWN
        return Sign.RENEWED if is_renewed else Sign.SILENT

    def keep(self, nodes: Collection[UUID]) -> None:
        """Forget all nodes but these."""
        for node_id in self._silences.keys() - set(nodes):
            del self._silences[node_id]
