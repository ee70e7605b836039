"""Shard function: from an object's id to the number of its shard, in SQL and in Python.

The shard is the first four bytes of the SHA-256 of the id's UTF-8 bytes, big-endian, modulo the
number of shards. SHA-256 because a server under FIPS has no MD5. Types and tenants don't count, so
one set of shards serves all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from hashlib import sha256

import attrs

SHARD_FUNCTION = 1
"""The version of the function. Another function needs a migration, which moves all objects."""

_SHARD = "mod(('x' || left(encode(sha256(convert_to({id}, 'UTF8')), 'hex'), 8))::bit(32)::bigint"
# The cast to boolean makes the planner expect a third of the rows, and not one of 200.
IN_SHARDS = f"get_bit(%s::bytea, {_SHARD}, %s))::boolean"
"""Condition on the column ``{id}``: its shard is in a set, see `ShardSet.parameters`."""


@lru_cache(maxsize=16_384)
def shard_of(object_id: str, count: int) -> int:
    """The shard of an object, of ``count`` shards."""
    return int.from_bytes(sha256(object_id.encode()).digest()[:4], "big") % count


@attrs.frozen
class ShardSet:
    """A set of shards as a bitmap, so that a statement tests a row in constant time."""

    bitmap: bytes
    count: int
    """The number of all shards."""

    @classmethod
    def of(cls, shards: Collection[int], count: int) -> ShardSet:
        """The set of some of ``count`` shards."""
        bits = 0
        for shard in shards:
            bits |= 1 << shard
        return cls(bits.to_bytes(-(-count // 8), "little"), count)

    def __bool__(self) -> bool:
        return any(self.bitmap)

    def numbers(self) -> list[int]:
        """The shards, in order."""
        return [n for n in range(self.count) if self.bitmap[n // 8] >> n % 8 & 1]

    @property
    def parameters(self) -> tuple[bytes, int]:
        """The parameters of `IN_SHARDS`."""
        return self.bitmap, self.count


class Feed:
    """The shards whose alarms the horizon feed returns. Set in one thread, read in another one."""

    def __init__(self) -> None:
        self.shards: ShardSet | None = None
        """None for all of them."""
