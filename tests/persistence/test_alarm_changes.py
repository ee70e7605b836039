"""Changes of alarms in a group commit: coalescing, revisions, listeners."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_durable import ObjectKey, StaleObject
from trio_durable._persistence import group_commit
from trio_durable.storage import MOVED, STOPPED, AlarmChanges, Commit, NewAlarm, Onto
from trio_durable.testing.conformance._builders import changes as changed

from .bench import FAULT, Bench, FakeOwner, Held, failure, fields_of, told

# --- alarms: coalescing --------------------------------------------------------------------------


def test_a_change_of_alarms_goes_along_with_a_pending_state(bench: Bench) -> None:
    a = bench.owner("a")
    held = [a.save(b"1"), a.change(changed({"x": 5}))]
    bench.finish()
    ((commit,),) = bench.writer.batches
    assert (commit.revision, commit.state, commit.delete) == (0, b"1", False)
    assert fields_of(commit.alarms) == fields_of(changed({"x": 5}))
    assert [told(waiter) for waiter in held] == ["a 1", "a alarms"]
    assert bench.writer.stored(a) == (1, b"1")
    assert a.revision == 1


def test_a_state_goes_along_with_pending_alarms(bench: Bench) -> None:
    a = bench.owner("a")
    a.change(changed({"x": 5}))
    a.save(b"1")
    a.save(b"2")
    bench.finish()
    ((commit,),) = bench.writer.batches
    assert (commit.revision, commit.state) == (0, b"2")
    assert bench.writer.alarms(a) == {"x": 5}
    assert a.revision == 1


def test_a_deletion_keeps_to_alarms_that_are_set_behind_it(bench: Bench) -> None:
    a = bench.owner("a")
    a.change(changed({"x": 5}), b"1")
    bench.finish()
    a.change(changed(clear=True), delete=True)
    a.change(changed({"y": 6}))
    bench.finish()
    assert bench.writer.batches[1][0].delete
    assert bench.writer.stored(a) is None
    assert bench.writer.alarms(a) == {"y": 6}
    assert (a.revision, a.failures) == (0, 0)


# What one change does to x, y and the claimed c.
CHANGES = {
    "set x": changed({"x": 1}),
    "set x later": changed({"x": 2}),
    "cancel x": changed({"x": None}),
    "set y, cancel x": changed({"y": 3, "x": None}),
    "set c": changed({"c": 4}),
    "cancel c": changed({"c": None}),
    "clear": changed(clear=True),
    "clear, set x": changed({"x": 5}, clear=True),
    "clear, set c": changed({"c": 6}, clear=True),
    "keep x": AlarmChanges(changed={"x": NewAlarm(7, None, onto=Onto.NOTHING)}),
    "keep c": AlarmChanges(changed={"c": NewAlarm(8, None, onto=Onto.NOTHING)}),
    "begin r": AlarmChanges(changed={"r": NewAlarm(9, None, "f", Onto.STOPPED | Onto.OUTDATED)}),
    "stop r": AlarmChanges(changed={"r": NewAlarm(0, None, STOPPED)}),
    "move r": AlarmChanges(changed={"r": NewAlarm(3, None, MOVED)}),
    "move r if it is off": AlarmChanges(changed={"r": NewAlarm(4, None, MOVED, Onto.STOPPED)}),
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(CHANGES)), max_size=3),
    st.booleans(),
    st.lists(st.sampled_from(sorted(CHANGES)), max_size=4),
)
def test_coalesced_changes_amount_to_the_same_as_one_by_one(
    before: list[str], acknowledge: bool, behind: list[str]
) -> None:
    turns = [CHANGES[each] for each in before]
    if acknowledge and not any(turn.touches("c") for turn in turns):
        turns.append(changed(acknowledged={"c": 1}))
    turns += [CHANGES[each] for each in behind]
    outcomes = []
    for coalesced in (True, False):
        bench = Bench()
        a = bench.owner("a")
        bench.writer.claim_alarm(a, "c", 1)
        for turn in turns:
            # Each its own, for what is merged is taken over.
            a.change(deepcopy(turn))
            if not coalesced:
                bench.finish()
        bench.finish()
        assert len(bench.writer.batches) == (bool(turns) if coalesced else len(turns))
        assert a.failures == 0
        outcomes.append(bench.writer.alarms(a))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("turns", "merged"),
    [
        (["set x", "cancel x"], changed({"x": None})),
        (["cancel x", "set x"], changed({"x": 1})),
        (["set x", "clear"], changed(clear=True)),
        (["clear", "set x"], changed({"x": 1}, clear=True)),
        (["set x", "clear", "set c"], changed({"c": 4}, clear=True)),
        (["acknowledge", "set c"], changed({"c": 4}, acknowledged={"c": 1})),
        (["acknowledge", "clear"], changed(acknowledged={"c": 1}, clear=True)),
        (["keep c", "acknowledge"], changed(acknowledged={"c": 1})),
        (["set x", "acknowledge", "set c"], changed({"x": 1, "c": 4}, acknowledged={"c": 1})),
    ],
    ids=lambda value: ", then ".join(value) if isinstance(value, list) else "",
)
def test_changes_merge_in_order(bench: Bench, turns: list[str], merged: AlarmChanges) -> None:
    a = bench.owner("a")
    bench.writer.claim_alarm(a, "c", 1)
    for turn in turns:
        change = changed(acknowledged={"c": 1}) if turn == "acknowledge" else CHANGES[turn]
        a.change(deepcopy(change))
    bench.finish()
    ((commit,),) = bench.writer.batches
    assert fields_of(commit.alarms) == fields_of(merged)
    assert a.failures == 0


def test_changes_do_not_reach_what_the_writer_has(bench: Bench) -> None:
    """`ScriptedWriter` looks whether a commit is changed in its hands."""
    a = bench.owner("a")
    bench.writer.then(lambda: a.change(changed({"x": None, "y": 2})))
    a.change(changed({"x": 1}))
    bench.finish()
    assert [fields_of(batch[0].alarms) for batch in bench.writer.batches] == [
        fields_of(changed({"x": 1})),
        fields_of(changed({"x": None, "y": 2})),
    ]
    assert bench.writer.alarms(a) == {"y": 2}


def test_payloads_count_as_bytes_of_a_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_BYTES", 25_000)
    for owner in bench.owners(10):
        owner.change(changed({"x": 1}, payload=b"p" * 10_000))
        owner.change(changed({"y": 1}, payload=b"p" * 10_000))
    bench.finish()
    # The one that crosses the line still goes in.
    assert [len(batch) for batch in bench.writer.batches] == [2] * 5
    assert bench.group_commit._pending_bytes == 0


def test_many_alarms_count_as_bytes_though_they_have_no_payload(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_BYTES", 1000)
    for owner in bench.owners(10):
        owner.change(changed({f"{n}": 1 for n in range(100)}))
    bench.finish()
    assert [len(batch) for batch in bench.writer.batches] == [1] * 10


def test_what_was_counted_is_taken_off_again(bench: Bench) -> None:
    """However the changes merge, of which some leave less than there was."""
    for owner in bench.owners(10):
        owner.change(changed({"x": 1}, payload=b"p" * 90), b"s" * 50)
        owner.change(changed({"x": None}))
        owner.change(changed(clear=True), b"s")
        owner.change(changed({"y": 1}, payload=b"p" * 5))
        owner.save(b"1")
    assert bench.group_commit._pending_bytes > 0
    bench.finish()
    assert bench.group_commit._pending_bytes == 0


def test_bytes_of_what_is_taken_back_are_not_counted_on(bench: Bench) -> None:
    a, other = bench.owner("a"), bench.owner("other")

    def first_transaction() -> None:
        other.save(b"1")
        raise FAULT

    def second_transaction() -> None:
        a.change(changed({"x": 1}, payload=b"p" * 50), b"2")
        bench.loop.step()

    bench.writer.then(first_transaction, second_transaction)
    a.save(b"1")
    bench.finish()
    assert bench.group_commit._pending_bytes == 0
    assert bench.writer.alarms(a) == {}


# --- alarms: revisions ---------------------------------------------------------------------------


def unloaded(bench: Bench, object_id: str, revision: int) -> FakeOwner:
    """An owner that is stored in that revision but doesn't know."""
    owner = bench.owner(object_id)
    for n in range(revision):
        bench.writer.inner.commit([Commit(owner.key, n, b"0")], 0)
    owner.revision = None
    return owner


@pytest.mark.parametrize("revision", [0, 3])
def test_changes_from_outside_need_no_revision(bench: Bench, revision: int) -> None:
    a = unloaded(bench, "a", revision)
    held = a.change(changed({"x": 5}))
    bench.finish()
    assert bench.writer.batches[0][0].revision is None
    assert told(held) == "a alarms"
    assert bench.writer.alarms(a) == {"x": 5}
    assert a.revision is None  # it still isn't known
    assert a.gate is None


def test_a_change_from_outside_leaves_what_is_known_by_then(bench: Bench) -> None:
    """The object is loaded while the change is on its way."""
    a = unloaded(bench, "a", 3)
    a.change(changed({"x": 5}))
    bench.runner.step()
    a.revision = 3
    bench.finish()
    assert a.revision == 3
    a.save(b"1")
    bench.finish()
    assert bench.writer.stored(a) == (4, b"1")


@pytest.mark.parametrize("revision", [0, 3])
def test_a_turn_that_joins_a_change_from_outside_makes_it_conditional(
    bench: Bench, revision: int
) -> None:
    a = unloaded(bench, "a", revision)
    outside = a.change(changed({"x": 5}))
    a.revision = revision  # it is loaded meanwhile
    a.save(b"1")
    bench.finish()
    ((commit,),) = bench.writer.batches
    assert (commit.revision, commit.state) == (revision, b"1")
    assert outside.ended
    assert bench.writer.stored(a) == (revision + 1, b"1")
    assert bench.writer.alarms(a) == {"x": 5}
    assert a.revision == revision + 1


@pytest.mark.parametrize("revision", [0, 3])
def test_a_turn_behind_a_change_from_outside_is_conditional(bench: Bench, revision: int) -> None:
    """The change is in the writer's hands while the object is loaded and has turns."""
    a = unloaded(bench, "a", revision)

    def first_transaction() -> None:
        a.revision = revision
        a.save(b"1")

    bench.writer.then(first_transaction, lambda: a.change(changed({"y": 6}), b"2"))
    a.change(changed({"x": 5}))
    bench.runner.step()
    a.save(b"3")  # the outcomes of all three are on their way
    bench.finish()
    assert [batch[0].revision for batch in bench.writer.batches] == [
        None,
        revision,
        revision + 1,
        revision + 2,
    ]
    assert bench.writer.stored(a) == (revision + 3, b"3")
    assert bench.writer.alarms(a) == {"x": 5, "y": 6}
    assert (a.revision, a.failures) == (revision + 3, 0)


def test_a_stale_turn_takes_a_change_from_outside_with_it(bench: Bench) -> None:
    """It joined, so that it is part of the turn's commit."""
    a = unloaded(bench, "a", 3)
    outside = a.change(changed({"x": 5}))
    a.revision = 2
    turn = a.save(b"1")
    bench.finish()
    for waiter in (outside, turn):
        assert isinstance(failure(waiter), StaleObject)
    assert bench.writer.alarms(a) == {}
    assert bench.told == []


def test_a_failed_change_from_outside_fails_what_is_behind_it(bench: Bench) -> None:
    a = unloaded(bench, "a", 1)
    other = bench.owner("other")
    held: list[Held] = []

    def first_transaction() -> None:
        a.revision = 1
        held.append(a.save(b"1"))
        other.save(b"1")
        raise FAULT

    bench.writer.then(first_transaction)
    held.append(a.change(changed({"x": 5})))
    bench.finish()
    assert all(failure(waiter).__cause__ is FAULT for waiter in held)
    assert bench.writer.stored(a) == (1, b"0")
    assert a.failures == 1
    assert bench.writer.stored(other) == (1, b"1")


def test_alarms_alone_leave_the_revision(bench: Bench) -> None:
    a = bench.owner("a")

    def alarms(name: str) -> Callable[[], object]:
        return lambda: a.change(changed({name: 1}))

    bench.writer.then(alarms("x"), alarms("y"), lambda: a.save(b"2"), alarms("z"))
    a.save(b"1")
    bench.finish()
    revisions = [batch[0].revision for batch in bench.writer.batches]
    assert revisions == [0, 1, 1, 1, 2]
    assert bench.writer.stored(a) == (2, b"2")
    assert bench.writer.alarms(a) == {"x": 1, "y": 1, "z": 1}
    assert (a.revision, a.failures, a.commits) == (2, 0, 5)


def test_alarms_behind_a_deletion_are_those_of_a_new_object(bench: Bench) -> None:
    a = bench.owner("a")
    a.save(b"1")
    bench.finish()
    bench.writer.then(lambda: a.change(changed({"x": 1})), lambda: a.save(b"2"))
    a.change(changed(clear=True), delete=True)
    bench.finish()
    assert [batch[0].revision for batch in bench.writer.batches] == [0, 1, 0, 0]
    assert bench.writer.stored(a) == (1, b"2")
    assert bench.writer.alarms(a) == {"x": 1}
    assert (a.revision, a.failures) == (1, 0)


def test_a_lost_claim_fails_its_turn_alone(bench: Bench) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    bench.writer.claim_alarm(a, "c", 1)
    bench.writer.claim_alarm(a, "c", 2)
    lost = a.change(changed({"x": 1}, acknowledged={"c": 1}), b"1")
    other = b.change(changed({"x": 1}), b"1")
    bench.finish()
    error = failure(lost)
    assert isinstance(error, StaleObject)
    assert (error.key, error.revision) == (a.key, 0)
    assert told(other) == "b 1"
    assert bench.writer.stored(a) is None
    assert bench.writer.alarms(a) == {"c": 0}
    assert (a.failures, b.failures) == (1, 0)


@pytest.mark.parametrize("alarms_only", [True, False])
def test_a_lost_claim_fails_what_is_behind_it(bench: Bench, alarms_only: bool) -> None:
    """What is behind alarms alone has the stored revision, so that nothing else would stop it."""
    a, other = bench.owner("a"), bench.owner("other")
    held: list[Held] = []

    def first_transaction() -> None:
        held.append(a.save(b"2"))
        other.save(b"1")

    bench.writer.then(first_transaction)
    alarms = changed(acknowledged={"c": 1})
    held.append(a.change(alarms, None if alarms_only else b"1"))
    bench.runner.step()
    bench.loop.step()
    assert [type(failure(waiter)) for waiter in held] == [StaleObject] * 2
    assert bench.writer.stored(a) is None
    assert bench.writer.stored(other) == (1, b"1")
    assert a.failures == 1


# --- alarms: who is told -------------------------------------------------------------------------


def test_what_is_durable_is_told_before_anyone_is_released(bench: Bench) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    a.change(changed({"x": 1}), b"1")
    a.change(changed({"x": 2, "y": None}))
    b.save(b"1")
    bench.runner.step()
    assert bench.told == []
    bench.loop.step()
    # Once for what was coalesced, and nothing of what had no alarms.
    assert bench.told == [(a.key, fields_of(changed({"x": 2, "y": None})))]
    assert bench.log == ["a told", "a committed", "a 1", "a alarms", "b committed", "b 1"]


def test_each_commit_is_told_once_and_in_order(bench: Bench) -> None:
    a = unloaded(bench, "a", 0)
    bench.writer.then(*(lambda n=n: a.change(changed({"x": n})) for n in (1, 2, 3)))
    a.change(changed({"x": 0}))
    bench.finish()
    assert bench.told == [(a.key, fields_of(changed({"x": n}))) for n in range(4)]


def test_what_fails_is_never_told(bench: Bench) -> None:
    a, b, c = bench.owner("a"), bench.owner("b"), bench.owner("c")
    bench.writer.claim_alarm(c, "x", 1)
    b.revision = 7

    def first_transaction() -> None:
        a.change(changed({"y": 1}))  # behind one that fails, and so never written
        b.change(changed({"x": 1}))  # stale
        c.change(changed({"y": 1}, acknowledged={"x": 5}))  # its claim is lost
        raise FAULT

    bench.writer.then(first_transaction)
    a.change(changed({"x": 1}))
    bench.finish()
    assert (a.failures, b.failures, c.failures) == (1, 1, 1)
    assert bench.told == []
    # Nor is it told with what succeeds later.
    a.change(changed({"z": 1}))
    bench.finish()
    assert bench.told == [(a.key, fields_of(changed({"z": 1})))]


def test_listeners_learn_of_a_failed_transaction_only_if_it_would_have_changed_alarms(
    bench: Bench,
) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    bench.writer.then(FAULT)
    a.save(b"1")
    bench.finish()
    assert not any("unsure" in line for line in bench.log)
    bench.writer.then(FAULT)
    a.change(changed({"x": 1}))
    b.save(b"1")
    b.change(changed({"y": None}))
    bench.finish()
    # After all owners have failed.
    assert bench.log[-2:] == [
        f"a unsure {fields_of(changed({'x': 1}))}",
        f"b unsure {fields_of(changed({'y': None}))}",
    ]
    assert bench.told == []


def test_listeners_are_called_in_order(bench: Bench) -> None:
    class Second:
        def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
            assert fields_of(changes) == fields_of(changed({"x": 1}))
            bench.log.append(f"{key.object_id} told second")

        def unsure(self, key: ObjectKey, changes: AlarmChanges) -> None:
            bench.log.append(f"{key.object_id} unsure second")

    bench.group_commit.add_listener(Second())
    a = bench.owner("a")
    a.change(changed({"x": 1}))
    bench.finish()
    assert bench.log == ["a told", "a told second", "a committed", "a alarms"]
    bench.writer.then(FAULT)
    a.change(changed({"x": 2}))
    bench.finish()
    assert bench.log[-2:] == [f"a unsure {fields_of(changed({'x': 2}))}", "a unsure second"]
