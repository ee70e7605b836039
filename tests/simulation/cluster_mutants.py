"""Members of a cluster with one mechanism broken, to see that the simulation notices.

See `mutants`. Where a mechanism is the database's it is broken in the simulated one. Mechanisms
that matter for a moment only are broken in `cluster.mutants`, whose tests wait for that moment.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from unittest.mock import patch

from trio_durable._activations.activation import Activation
from trio_durable._activations.calls import LocalCalls
from trio_durable._cluster import answer
from trio_durable._cluster.handover import HandOver
from trio_durable._cluster.router import Router
from trio_durable._cluster.service import Service
from trio_durable._cluster.shard_map import ShardMap

from .members import MemberRows
from .mutants import Mutant, rewritten

CLUSTER_MUTANTS: dict[str, Mutant] = {}


def mutant(make: Mutant) -> Mutant:
    """Count it among all."""
    CLUSTER_MUTANTS[make.__name__] = make
    return make


# --- leases --------------------------------------------------------------------------------------


@mutant
def written_after_its_lease() -> AbstractContextManager[object]:
    """Writes of a member are applied although others have removed it."""
    return patch.object(MemberRows, "check", lambda self, node_id: None)


@mutant
def replies_unchecked() -> AbstractContextManager[object]:
    """Replies leave without a lease, to callers here and elsewhere."""
    stack = ExitStack()
    stack.enter_context(patch.object(answer, "check_lease", lambda *args: None))
    stack.enter_context(
        rewritten(
            LocalCalls,
            "_call",
            ("if lease is not None and boot_time() >= lease.valid_until:", "if False:"),
            ("if boot_time() >= lease.valid_until or", "if"),
        )
    )
    return stack


@mutant
def kept_after_loss() -> AbstractContextManager[object]:
    """Objects stay in memory when the lease is over."""
    return patch.object(Activation, "depose", lambda self, error: None)


# --- calls ---------------------------------------------------------------------------------------


@mutant
def unknown_repeated() -> AbstractContextManager[object]:
    """A call of unknown outcome is made once more."""
    return rewritten(Router, "forward", ("if may_have_run and not repeatable:", "if False:"))


@mutant
def answered_before_commit() -> AbstractContextManager[object]:
    """The reply to a caller elsewhere leaves before it is durable."""
    return rewritten(
        Service,
        "_give",
        (
            "if gate is None or (error is not None and not isinstance(error, Exception)):",
            "if True:",
        ),
    )


# --- shards --------------------------------------------------------------------------------------


@mutant
def placement_unchecked() -> AbstractContextManager[object]:
    """A member serves whatever comes to it."""
    stack = ExitStack()
    stack.enter_context(patch.object(ShardMap, "is_here", lambda self, directory, address: True))
    stack.enter_context(patch.object(ShardMap, "check", lambda self, key: None))
    return stack


@mutant
def given_with_objects() -> AbstractContextManager[object]:
    """A shard is given away while its objects are in memory."""
    return rewritten(HandOver, "_give", ("if not self._map.residents(shard):", "if True:"))


@mutant
def moving_admitted() -> AbstractContextManager[object]:
    """Objects of a shard that moves come into memory."""
    return rewritten(
        ShardMap,
        "_admits",
        (
            "return self.moving.get(shard) is _Stage.CLOSED and running_turn() is not None",
            "return self.moving.get(shard) is not None",
        ),
    )
