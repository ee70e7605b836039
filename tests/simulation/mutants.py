"""The library with one mechanism broken, to see that the simulation notices.

Each mutant is a patch for as long as a test runs: a line of the source written anew, or a method
put in the place of another. What it replaces must be there exactly once, so that a mutant fails to
be made, rather than to be found, when the library changes.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

from trio_durable._activations.activation import Activation
from trio_durable._activations.calls import LocalCalls
from trio_durable._activations.directory import Directory
from trio_durable._activations.effects import Effects
from trio_durable._activations.phase import Phase
from trio_durable._activations.state import ObjectState
from trio_durable._persistence.group_commit import GroupCommit
from trio_durable._persistence.ticket import Ticket
from trio_durable.scheduler._delivery.deliverer import Deliverer
from trio_durable.scheduler._wheel.deliverer import WheelDeliverer
from trio_durable.storage import AlarmChanges, Commit, StorageFault
from trio_durable.storage._memory_alarms import Alarms
from trio_durable.storage.memory import _MemoryWriter
from trio_durable.storage.sqlite import _objects as _sqlite_objects
from trio_durable.storage.sqlite._objects import _save_sql

Mutant = Callable[[], AbstractContextManager[object]]
MUTANTS: dict[str, Mutant] = {}


OF_TWO_OWNERS: set[str] = set()
"""Those that break nothing as long as a database has one owner."""

SELDOM_SEEN: set[str] = set()
"""Those that another mechanism hides mostly."""


def mutant(make: Mutant) -> Mutant:
    """Count it among all."""
    MUTANTS[make.__name__] = make
    return make


def of_two_owners(make: Mutant) -> Mutant:
    """Say that it takes two owners to notice it."""
    OF_TWO_OWNERS.add(make.__name__)
    return make


def seldom_seen(make: Mutant) -> Mutant:
    """Say that it takes more seeds to notice it: one in 25 does, as of this writing."""
    SELDOM_SEEN.add(make.__name__)
    return make


def rewritten(owner: type, name: str, *changes: tuple[str, str]) -> AbstractContextManager[object]:
    """A method with some of its source written anew."""
    function = inspect.getattr_static(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        assert source.count(old) == 1, f"{owner.__name__}.{name} has no longer just one {old!r}"
        source = source.replace(old, new)
    found: dict[str, Any] = {}
    future = "from __future__ import annotations\n"
    exec(future + source, function.__globals__, found)
    return patch.object(owner, name, found[name])


# --- the fence -----------------------------------------------------------------------------------


@mutant
def no_fence() -> AbstractContextManager[object]:
    """A save doesn't look at the revision that it is based on."""
    return rewritten(
        _MemoryWriter, "_is_stale", ("(row[0] if row else 0) != commit.revision", "False")
    )


@mutant
@of_two_owners
def no_epochs() -> AbstractContextManager[object]:
    """What begins after a deletion is taken for what was there before, if revisions agree."""
    return patch("trio_durable._persistence.ticket.new_epoch", lambda: 1)


# --- the output gate -----------------------------------------------------------------------------


@mutant
def reply_before_commit() -> AbstractContextManager[object]:
    """No reply waits for its commit."""
    return patch.object(Ticket, "hold", lambda self, waiter: waiter.release())


@mutant
def reads_pass_the_gate() -> AbstractContextManager[object]:
    """A read-only reply doesn't wait for the commits before it."""
    return rewritten(
        LocalCalls,
        "_call",
        ("gate = state.gate\n", "gate = None if handler.readonly else state.gate\n"),
    )


@mutant
@seldom_seen
def errors_pass_the_gate() -> AbstractContextManager[object]:
    """What a handler raises reaches its caller before the commits that it has seen are durable."""
    return rewritten(
        LocalCalls,
        "_call",
        ("if state.gate is None or not isinstance(raised, Exception)", "if True"),
    )


# --- commits -------------------------------------------------------------------------------------


def _commit_in_two(
    apart: Callable[[AlarmChanges], tuple[AlarmChanges | None, AlarmChanges]],
) -> AbstractContextManager[object]:
    def commit(self: GroupCommit, batch: list[Ticket]) -> Collection[int] | StorageFault:
        first, second = [], []
        for ticket in batch:
            now, later = (None, None) if ticket.alarms is None else apart(ticket.alarms)
            first.append(
                Commit(ticket.key, ticket.revision, ticket.state, ticket.delete, now, ticket.epoch)
            )
            if later is not None:
                second.append((ticket, Commit(ticket.key, None, None, False, later)))
        refused: Collection[int]
        try:
            refused = self._writer.commit(first, self._wall_time())
            applied = [c for t, c in second if batch.index(t) not in refused]
            if applied:
                self._writer.commit(applied, self._wall_time())
        except StorageFault as fault:
            for ticket in batch:
                ticket.refused = True
            return fault
        for position in refused:
            batch[position].refused = True
        return refused

    return patch.object(GroupCommit, "_commit", commit)


@mutant
def state_and_alarms_apart() -> AbstractContextManager[object]:
    """State and alarms of a turn are two commits."""
    return _commit_in_two(lambda alarms: (None, alarms))


@mutant
def acknowledged_in_a_second_commit() -> AbstractContextManager[object]:
    """An alarm goes in a commit of its own, after that of its effect."""

    def apart(alarms: AlarmChanges) -> tuple[AlarmChanges | None, AlarmChanges]:
        rest = AlarmChanges(clear=alarms.clear, changed=alarms.changed)
        return rest, AlarmChanges(acknowledged=alarms.acknowledged)

    return _commit_in_two(apart)


@mutant
def memory_survives_a_failed_commit() -> AbstractContextManager[object]:
    """What is in memory isn't loaded anew, though what it builds on was not saved."""
    return patch.object(Activation, "_invalidate", lambda self: None)


@mutant
@seldom_seen
def doomed_turns_end_well() -> AbstractContextManager[object]:
    """A turn goes on and is saved although a commit that it builds on has failed."""

    def commit_failed(self: Activation) -> None:
        state, job = self.state, self.job
        if job is None or job.turn is None:
            original(self)
        elif state.instance is not None:  # what was lost counts as stored
            state.encoded = state.object_type.codec.encode_fields(state.key, state.instance)

    original = Activation.commit_failed
    return patch.object(Activation, "commit_failed", commit_failed)


@mutant
@seldom_seen
def followers_of_a_failed_commit_are_saved() -> AbstractContextManager[object]:
    """What is based on a commit that failed is written all the same."""

    def lost_its_base(self: Ticket) -> bool:
        return False

    return patch.object(Ticket, "lost_its_base", lost_its_base)


@mutant
@seldom_seen
def leaves_memory_before_its_commit() -> AbstractContextManager[object]:
    """An object may be evicted, and loaded anew, while its commit is under way."""
    is_idle = property(lambda self: self.mailbox is None and self.state.turn is None)
    return patch.object(Activation, "is_idle", is_idle)


# --- turns ---------------------------------------------------------------------------------------


@mutant
def no_rollback() -> AbstractContextManager[object]:
    """What a handler has changed before it raised stays."""

    def roll_back(self: ObjectState) -> None:
        self.effects = None

    return patch.object(ObjectState, "roll_back", roll_back)


@mutant
def effects_survive_a_rollback() -> AbstractContextManager[object]:
    """What a handler has done to alarms before it raised stays."""

    def roll_back(self: ObjectState) -> None:
        effects = self.effects
        original(self)
        if effects is not None and effects.alarms is not None:
            self.change_alarms(effects.alarms)

    original = ObjectState.roll_back
    return patch.object(ObjectState, "roll_back", roll_back)


@mutant
def turns_interleave() -> AbstractContextManager[object]:
    """An ``async def`` turn doesn't keep calls of ``def`` handlers waiting."""

    return rewritten(
        LocalCalls,
        "_call",
        (
            "activation.mailbox is not None or state.turn is not None or state.instance is None",
            "activation.phase.value != 'ready' or state.instance is None",
        ),
    )


@mutant
def cancelled_calls_run() -> AbstractContextManager[object]:
    """A queued call runs although its caller is gone."""
    stack = ExitStack()
    stack.enter_context(
        rewritten(
            Activation,
            "_advance",
            (
                "if not first.waiter.ended:\n                self._serve(mailbox, first)",
                "self._serve(mailbox, first)",
            ),
        )
    )
    stack.enter_context(patch.object(Activation, "withdraw", lambda self, envelope: None))
    return stack


@mutant
def two_live_instances() -> AbstractContextManager[object]:
    """While one instance is busy, calls go to another one."""

    def use(self: Directory, address: str) -> Activation:
        activation = original(self, address)
        if activation.job is not None and activation.phase is not Phase.LOADING:
            del self._active[address]
            key, used = activation.key, activation.last_used
            self._active[address] = activation = self._new_activation(key, used)
        return activation

    original = Directory.use
    return patch.object(Directory, "use", use)


@mutant
def readonly_unchecked() -> AbstractContextManager[object]:
    """A read-only handler may change state, which the next turn saves."""
    return patch.object(ObjectState, "_check_unchanged", lambda self, name, state: None)


# --- alarms --------------------------------------------------------------------------------------


@mutant
@of_two_owners
def claim_not_checked() -> AbstractContextManager[object]:
    """A commit acknowledges an alarm although its claim isn't held."""
    return patch.object(Alarms, "holds", lambda self, key, claim: True)


@mutant
def handled_before_its_time() -> AbstractContextManager[object]:
    """An alarm is handled as soon as it is claimed, which is somewhat ahead of its time."""

    async def is_time(self: WheelDeliverer, due_at: int) -> bool:
        return True

    return patch.object(WheelDeliverer, "_is_time", is_time)


@mutant
def never_acknowledged() -> AbstractContextManager[object]:
    """An alarm stays when its handler's commit is done."""
    return rewritten(Alarms, "apply", ("*changes.acknowledged", ""))


@mutant
def acknowledged_before_its_turn() -> AbstractContextManager[object]:
    """The acknowledgement of an alarm is in the commit in the middle of its turn."""
    return rewritten(Effects, "take_alarms", ("staged.supersedes(name)", "True"))


@mutant
def deletion_leaves_alarms() -> AbstractContextManager[object]:
    """Deleting an object leaves its alarms."""
    return rewritten(
        Effects, "delete_object", ("self.change_alarms(AlarmChanges(clear=True))", "pass")
    )


@mutant
def failed_alarms_are_dropped() -> AbstractContextManager[object]:
    """An alarm whose handler raised becomes a dead letter at once."""
    return rewritten(Deliverer, "_postponement", ("flight.retry.is_exhausted(failures)", "True"))


# --- SQLite --------------------------------------------------------------------------------------


def _save_anything(table: str, rows: int) -> str:
    statement = _save_sql(table, rows)
    fence = "CASE WHEN revision = excluded.revision - 1 THEN excluded.revision END"
    assert statement.count(fence) == 1
    return statement.replace(fence, "excluded.revision")


def sqlite_without_fence() -> AbstractContextManager[object]:
    """SQLite saves a row whatever revision is stored."""
    return patch.object(_sqlite_objects, "_save_sql", _save_anything)
