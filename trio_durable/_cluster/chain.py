"""Chain of a call as JSON: the objects that wait for it, see `WaitGraph.chain`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .._keys import ObjectKey


def encode_chain(chain: Iterable[ObjectKey]) -> list[tuple[str, str, str]]:
    """The chain as plain JSON."""
    return [(each.type_name, each.object_id, each.tenant) for each in chain]


def decode_chain(found: Iterable[Sequence[str]]) -> list[ObjectKey]:
    """The chain that another process has sent. Later releases may tell more of each object."""
    return [ObjectKey(*each[:3]) for each in found]
