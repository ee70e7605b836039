"""The checker itself: histories written by hand that are linearizable, and some that aren't."""

from __future__ import annotations

import random
from itertools import combinations, permutations
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .checker import Model, NotLinearizable, TooHard, check_linearizable
from .effects import Attempt, EffectsViolated, Ordered, check_effects
from .history import History, Key, Known, Operation
from .models import ClerkModel, CounterModel, LedgerModel, RegisterModel

KEY = Key("Thing", "a")


def op(
    start: float,
    end: float,
    name: str,
    *args: object,
    result: object = None,
    known: Known = "ok",
) -> Operation:
    return Operation(KEY, name, args, start, end=end, known=known, result=result)


def is_linearizable(model: Model, *operations: Operation) -> bool:
    try:
        check_linearizable(model, operations)
    except NotLinearizable:
        return False
    return True


# --- one object ----------------------------------------------------------------------------------


def test_one_operation_after_the_other() -> None:
    assert is_linearizable(
        RegisterModel(),
        op(1, 2, "write", "x", result=""),
        op(3, 4, "read", result="x"),
        op(5, 6, "swap", "x", "y", result=True),
        op(7, 8, "write", "z", result="y"),
    )


def test_operations_under_way_together_may_come_in_any_order() -> None:
    writes = [op(1, 9, "write", "x", result="y"), op(2, 8, "write", "y", result="")]
    assert is_linearizable(RegisterModel(), *writes, op(10, 11, "read", result="x"))
    assert not is_linearizable(RegisterModel(), *writes, op(10, 11, "read", result="y"))


def test_a_read_during_a_write_sees_it_or_does_not() -> None:
    for seen in ("", "x"):
        assert is_linearizable(
            RegisterModel(), op(1, 9, "write", "x", result=""), op(2, 3, "read", result=seen)
        )


def test_a_stale_read_is_found() -> None:
    assert not is_linearizable(
        RegisterModel(), op(1, 2, "write", "x", result=""), op(3, 4, "read", result="")
    )


def test_a_read_may_not_go_back_behind_another_one() -> None:
    write = op(1, 9, "write", "x", result="")
    first, second = op(2, 3, "read", result="x"), op(4, 5, "read", result="")
    assert not is_linearizable(RegisterModel(), write, first, second)


def test_a_lost_update_is_found() -> None:
    both = [op(1, 4, "add", 1, result=1), op(2, 3, "add", 1, result=1)]
    assert not is_linearizable(CounterModel(), *both)
    assert is_linearizable(CounterModel(), both[0], op(2, 3, "add", 1, result=2))


def test_an_acknowledged_write_that_is_gone_is_found() -> None:
    assert not is_linearizable(
        LedgerModel(),
        op(1, 2, "append", "x", result=(1,)),
        op(3, 4, "append", "y", result=(1,)),
    )


def test_what_ended_before_comes_before() -> None:
    assert not is_linearizable(
        LedgerModel(),
        op(1, 2, "append", "x", result=(2, "y")),
        op(3, 4, "append", "y", result=(1,)),
    )


def test_a_read_from_a_refused_write_is_found() -> None:
    assert not is_linearizable(
        RegisterModel(),
        op(1, 2, "write", "x", known="never"),
        op(3, 4, "read", result="x"),
    )


def test_an_unknown_write_took_effect_or_never_will() -> None:
    write = op(1, 2, "write", "x", known="unknown")
    assert is_linearizable(RegisterModel(), write, op(3, 4, "read", result="x"))
    assert is_linearizable(RegisterModel(), write, op(3, 4, "read", result=""))
    # Not after it was read that it had not, though, if it can't come later.
    late = op(5, 6, "read", result="x")
    assert not is_linearizable(RegisterModel(), write, op(3, 4, "read", result=""), late)


def test_a_write_under_way_for_ever_may_take_effect_at_any_later_time() -> None:
    write = op(1, inf, "write", "x", known="open")
    early, late = op(3, 4, "read", result=""), op(5, 6, "read", result="x")
    assert is_linearizable(RegisterModel(), write, early, late)
    assert not is_linearizable(RegisterModel(), write, early, late, op(7, 8, "read", result=""))


def test_an_unknown_operation_takes_effect_once() -> None:
    unknown = op(1, inf, "add", 5, known="unknown")
    assert is_linearizable(CounterModel(), unknown, op(2, 3, "read", result=5))
    assert not is_linearizable(CounterModel(), unknown, op(2, 3, "read", result=10))


def test_an_unknown_operation_has_no_effect_before_it_begins() -> None:
    assert not is_linearizable(
        CounterModel(), op(1, 2, "read", result=5), op(3, inf, "add", 5, known="unknown")
    )


def test_an_erasure_that_changes_nothing_now_may_be_needed_later() -> None:
    assert is_linearizable(
        RegisterModel(),
        op(1, 5, "swap", "", "x", result=True),
        op(2, 4, "erase"),
        op(3, 6, "write", "y", result=""),
    )


def test_it_matters_what_has_come_to_the_same_state() -> None:
    unknown = [op(n, inf, "add", n, known="unknown") for n in (1, 2, 3)]
    reads = [op(4, 5, "read", result=3), op(6, 7, "read", result=4)]
    assert is_linearizable(CounterModel(), *unknown, *reads)


def test_of_two_that_do_the_same_the_one_with_less_time_left_may_have_to_come_first() -> None:
    longer = op(1, 20, "add", 5, known="unknown")
    reads = [op(3, 4, "read", result=5), op(7, 8, "read", result=5), op(10, 11, "read", result=10)]
    assert is_linearizable(CounterModel(), longer, op(2, 6, "add", 5, known="unknown"), *reads)
    assert not is_linearizable(CounterModel(), longer, *reads)


def test_the_order_that_is_found_explains_every_result() -> None:
    operations = [
        op(1, 9, "write", "x", result="y"),
        op(2, 8, "write", "y", result=""),
        op(3, 7, "write", "never seen", known="unknown"),
        op(4, 6, "read", result="y"),
    ]
    order = check_linearizable(RegisterModel(), operations)
    assert [each.args or each.name for each in order] == [("y",), "read", ("x",)]


def test_a_violation_says_how_far_one_comes() -> None:
    with pytest.raises(NotLinearizable) as caught:
        check_linearizable(
            RegisterModel(),
            [op(1, 2, "write", "x", result=""), op(3, 4, "read", result="old")],
        )
    message = str(caught.value)
    assert "[     1,      2] write('x') = ''" in message
    assert message.endswith("[     3,      4] read() = 'old'")


def test_a_search_that_takes_too_long_is_no_verdict() -> None:
    unknown = [op(n, inf, "add", 2**n, known="unknown") for n in range(20)]
    with pytest.raises(TooHard):
        check_linearizable(
            CounterModel(), [*unknown, op(30, 31, "read", result=-1)], most_steps=1000
        )


def test_thousands_of_operations_are_checked_at_once() -> None:
    rng = random.Random(1)
    operations = _concurrent(rng, [("add", n) for n in range(1, 5001)], spread=20)
    assert len(check_linearizable(CounterModel(), operations, most_steps=50_000)) == 5000


# --- shuffles ------------------------------------------------------------------------------------


def _concurrent(
    rng: random.Random, steps: list[tuple[str, object]], spread: float
) -> list[Operation]:
    """A history that comes from doing ``steps`` in turn, each somewhere within an interval."""
    model, total, operations = CounterModel(), 0, []
    for place, (name, by) in enumerate(steps):
        args = (by,) if name == "add" else ()
        total, result = model.steps[name](total, *args)
        start, end = place - rng.random() * spread, place + rng.random() * spread
        operations.append(op(start, end, name, *args, result=result))
    rng.shuffle(operations)
    return operations


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "read"]), st.integers(1, 3)), min_size=1, max_size=40
)


@settings(deadline=None, database=None, derandomize=True)
@given(STEPS, st.sampled_from([0.4, 2, 8]), st.randoms(use_true_random=False))
def test_shuffles_of_a_sequential_history_are_accepted(
    steps: list[tuple[str, object]], spread: float, rng: random.Random
) -> None:
    assert is_linearizable(CounterModel(), *_concurrent(rng, steps, spread))


@settings(deadline=None, database=None, derandomize=True)
@given(STEPS, st.sampled_from([0.4, 2, 8]), st.data())
def test_one_of_them_may_be_of_unknown_outcome(
    steps: list[tuple[str, object]], spread: float, data: st.DataObject
) -> None:
    rng = data.draw(st.randoms(use_true_random=False))
    operations = _concurrent(rng, steps, spread)
    unknown = data.draw(st.sampled_from(operations))
    unknown.known = "unknown"
    assert is_linearizable(CounterModel(), *operations)


@settings(deadline=None, database=None, derandomize=True)
@given(STEPS, st.sampled_from([0.4, 2, 8]), st.data())
def test_one_wrong_result_is_found(
    steps: list[tuple[str, object]], spread: float, data: st.DataObject
) -> None:
    rng = data.draw(st.randoms(use_true_random=False))
    operations = _concurrent(rng, steps, spread)
    wrong = data.draw(st.sampled_from(operations))
    assert isinstance(wrong.result, int)
    wrong.result += 1000
    assert not is_linearizable(CounterModel(), *operations)


@settings(deadline=None, database=None, derandomize=True)
@given(st.integers(2, 30), st.data())
def test_two_that_are_told_in_the_wrong_order_are_found(length: int, data: st.DataObject) -> None:
    """Where nothing overlaps, what is told must be in the order of time."""
    operations = [op(2 * n, 2 * n + 1, "add", 1, result=n + 1) for n in range(length)]
    n = data.draw(st.integers(0, length - 2))
    operations[n].result, operations[n + 1].result = n + 2, n + 1
    assert not is_linearizable(CounterModel(), *operations)


# --- every order ---------------------------------------------------------------------------------


def some_order_explains(model: Model, operations: list[Operation]) -> bool:
    """The definition, tried out: every choice of the unknown, every order, as slow as it is."""
    sure = [each for each in operations if each.known == "ok"]
    unsure = [each for each in operations if each.known in ("unknown", "open")]
    return any(
        _explains(model, order)
        for size in range(len(unsure) + 1)
        for chosen in combinations(unsure, size)
        for order in permutations([*sure, *chosen])
    )


def _explains(model: Model, order: tuple[Operation, ...]) -> bool:
    if any(later.end < earlier.start for earlier, later in combinations(order, 2)):
        return False
    states = [model.initial()]
    for operation in order:
        states = [after for state in states for after in model.after(state, operation)]
    return bool(states)


@st.composite
def register_histories(draw: st.DrawFn) -> list[Operation]:
    """A few operations on few values, with results that may or may not be right."""
    values = st.sampled_from(["", "x", "y"])
    operations = []
    for start in draw(st.permutations(range(draw(st.integers(1, 5))))):
        end = draw(st.integers(0, 5)) + start + 0.5
        known: Known = draw(st.sampled_from(["ok", "ok", "unknown"]))
        match draw(st.sampled_from(["write", "write", "read", "swap", "erase"])):
            case "write":
                made = op(start, end, "write", draw(values), result=draw(values), known=known)
            case "swap":
                args, result = (draw(values), draw(values)), draw(st.booleans())
                made = op(start, end, "swap", *args, result=result, known=known)
            case "erase":
                made = op(start, end, "erase", known=known)
            case _:
                made = op(start, end, "read", result=draw(values), known=known)
        operations.append(made)
    return operations


@st.composite
def clerk_histories(draw: st.DrawFn) -> list[Operation]:
    """A few alarms under two names, and their effects."""
    operations = []
    names, tokens = st.sampled_from(["quick", "slow"]), iter("abcdef")
    fired = ["a", "b"]
    for start in range(draw(st.integers(1, 4))):
        end = draw(st.integers(0, 4)) + start + 0.5
        known: Known = draw(st.sampled_from(["ok", "ok", "unknown"]))
        match draw(st.sampled_from(["arm", "arm", "disarm", "withdraw", "disarm_all", "alarms"])):
            case "arm":
                name, token = draw(names), next(tokens)
                operations.append(op(start, end, "arm", name, token, known=known))
                if draw(st.booleans()):
                    plan = draw(st.sampled_from(["note", "again", "withdraw", "erase"]))
                    operations.append(fire(start + 0.25, name, token, plan))
            case "disarm":
                operations.append(op(start, end, "disarm", draw(names), known=known))
            case "withdraw":
                seen = draw(st.sampled_from([(0,), (1, "a")]))
                made = op(start, end, "withdraw", draw(names), result=seen, known=known)
                operations.append(made)
            case "disarm_all":
                operations.append(op(start, end, "disarm_all", known=known))
            case _:
                listed = draw(st.sampled_from([(), (("quick", "a"),), (("slow", "b"),)]))
                operations.append(op(start, end, "alarms", result=listed))
    ledger = tuple(draw(st.permutations(fired))[: draw(st.integers(0, 2))])
    operations.append(op(20, 21, "inspect", result=(ledger, ())))
    return operations


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(register_histories())
def test_the_verdict_is_that_of_trying_every_order(operations: list[Operation]) -> None:
    model = RegisterModel(operations)
    expected = some_order_explains(model, operations)
    assert is_linearizable(model, *operations) == expected


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(clerk_histories())
def test_so_it_is_for_alarms(operations: list[Operation]) -> None:
    """Though operations are simplified, and lists looked up in what was seen of them."""
    expected = some_order_explains(ClerkModel(), operations)
    model = ClerkModel(operations)
    assert is_linearizable(model, *model.simplified(operations)) == expected


# --- what a caller knows -------------------------------------------------------------------------


def test_a_call_that_was_queued_when_its_caller_left_has_no_effect() -> None:
    history = History(lambda: 0.0)
    number = history.invoke("process", KEY, "write", "x")
    history.give_up(number)
    assert history.operations[0].known == "never"


def test_a_call_that_had_begun_is_done_by_the_time_of_a_later_turn() -> None:
    history = History(lambda: 0.0)
    number = history.invoke("process", KEY, "write", "x")
    history.begins(number)
    history.give_up(number)
    given_up = history.operations[0]
    assert (given_up.known, given_up.end) == ("unknown", inf)
    elsewhere = history.invoke("another", KEY, "read")
    history.succeed(elsewhere, "")
    assert given_up.end == inf
    later = history.invoke("process", KEY, "read")
    history.succeed(later, "")
    assert given_up.end == history.operations[-1].end


def test_when_a_process_dies_what_had_begun_is_unknown() -> None:
    history = History(lambda: 0.0)
    begun, queued, elsewhere = (
        history.invoke(process, KEY, "write", "x") for process in ("p", "p", "q")
    )
    history.begins(begun)
    history.end_process("p")
    history.succeed(begun, "too late")
    assert [each.known for each in history.operations] == ["unknown", "never", "open"]
    assert history.operations[0].end == history.event - 1
    assert queued
    assert elsewhere


def test_the_first_half_of_a_turn_is_an_operation_of_its_own() -> None:
    history = History(lambda: 0.0)
    number = history.invoke("p", KEY, "add", 1)
    history.begins(number)
    history.divide(number, 1, "add", 1)
    history.refuse(number)
    assert [(each.known, each.result) for each in history.operations] == [
        ("ok", 1),
        ("never", None),
    ]


# --- alarms --------------------------------------------------------------------------------------


def fire(start: float, name: str, token: str, plan: str = "note") -> Operation:
    return op(start, inf, "fire", name, token, plan, known="open")


def test_an_alarm_fires_once_after_it_was_set() -> None:
    assert is_linearizable(
        ClerkModel(),
        op(1, 2, "arm", "quick", "t"),
        op(3, 4, "alarms", result=(("quick", "t"),)),
        fire(5, "quick", "t"),
        op(6, 7, "inspect", result=(("t",), ())),
    )


@pytest.mark.parametrize(
    "end",
    [
        (("t", "t"), ()),  # twice
        ((), ()),  # lost
        (("t",), (("quick", "t"),)),  # not acknowledged
    ],
)
def test_other_ends_of_an_alarm_are_found(end: object) -> None:
    assert not is_linearizable(
        ClerkModel(),
        op(1, 2, "arm", "quick", "t"),
        fire(5, "quick", "t"),
        op(6, 7, "inspect", result=end),
    )


@pytest.mark.parametrize(
    "ending", [("disarm", "quick"), ("arm", "quick", "u"), ("disarm_all",), ("erase",)]
)
def test_an_alarm_that_was_withdrawn_has_no_effect(ending: tuple[str, ...]) -> None:
    before = [op(1, 2, "arm", "quick", "t"), op(3, 4, ending[0], *ending[1:])]
    left = (("quick", "u"),) if ending[0] == "arm" else ()
    assert is_linearizable(ClerkModel(), *before, op(8, 9, "inspect", result=((), left)))
    assert not is_linearizable(
        ClerkModel(),
        *before,
        fire(5, "quick", "t"),
        op(8, 9, "inspect", result=(("t",), left)),
    )


def test_an_alarm_may_set_the_next_one_and_end_another() -> None:
    armed = [op(1, 2, "arm", "quick", "t"), op(3, 4, "arm", "slow", "u")]
    assert is_linearizable(
        ClerkModel(), *armed, fire(5, "quick", "t", "again"), fire(6, "slow", "u", "withdraw"),
        op(8, 9, "inspect", result=(("t", "u"), ())),
    )  # fmt: skip
    assert not is_linearizable(
        ClerkModel(), *armed, fire(5, "quick", "t", "again"), fire(6, "slow", "u", "note"),
        op(8, 9, "inspect", result=(("t", "u"), ())),
    )  # fmt: skip


# --- effects -------------------------------------------------------------------------------------


def ordered(by: Operation, *attempts: tuple[int, int], due_at: int = 100) -> Ordered:
    return Ordered(KEY, "quick", "t", due_at, by, [Attempt(*each) for each in attempts])


def problems(alarm: Ordered, ledger: list[str], *operations: Operation, left: bool = False) -> str:
    everything = [each for each in (alarm.by, *operations) if each is not None]
    try:
        check_effects([alarm], everything, {KEY: ledger}, [(KEY, "quick")] if left else [])
    except EffectsViolated as error:
        return str(error)
    return ""


ARM = op(1, 2, "arm", "quick", "t")


def test_one_effect_at_its_time_is_as_it_must_be() -> None:
    assert problems(ordered(ARM, (5, 100), (6, 120)), ["t"]) == ""


def test_a_duplicate_effect_is_found() -> None:
    assert "had its effect 2 times" in problems(ordered(ARM, (5, 100)), ["t", "t"])


def test_a_lost_effect_is_found() -> None:
    assert "never had its effect" in problems(ordered(ARM, (5, 100)), [])


def test_an_alarm_that_never_ends_is_found() -> None:
    assert "still waits" in problems(ordered(ARM, (5, 100)), ["t"], left=True)


def test_an_effect_before_its_time_is_found() -> None:
    assert "before its time" in problems(ordered(ARM, (5, 99)), ["t"])


def test_an_effect_that_nobody_ordered_is_found() -> None:
    assert "nobody ordered" in problems(ordered(ARM, (5, 100)), ["t", "never"])


def test_an_effect_of_an_order_that_was_refused_is_found() -> None:
    for by in (
        op(1, 2, "order", "quick", "t", known="never"),
        op(1, 2, "see", result=(0,)),  # its handler raised
    ):
        assert "refused" in problems(ordered(by, (5, 100)), ["t"])
        assert problems(ordered(by), []) == ""


def test_an_effect_after_it_was_withdrawn_is_found() -> None:
    withdrawn = op(3, 4, "disarm", "quick")
    assert "after [" in problems(ordered(ARM, (5, 100)), ["t"], withdrawn)
    # It was under way already.
    assert problems(ordered(ARM, (3, 100)), ["t"], withdrawn) == ""
    assert problems(ordered(ARM), [], withdrawn) == ""
    assert "never had" in problems(ordered(ARM), [], op(3, 4, "disarm", "slow"))


def test_an_effect_at_the_old_time_of_an_alarm_that_was_set_anew_is_found() -> None:
    again = op(3, 4, "arm", "quick", "u")
    assert "after [" in problems(ordered(ARM, (5, 100)), ["t"], again)


def test_a_withdrawal_of_unknown_outcome_excuses_either() -> None:
    perhaps = op(3, 4, "disarm", "quick", known="unknown")
    assert problems(ordered(ARM, (5, 100)), ["t"], perhaps) == ""
    assert problems(ordered(ARM), [], perhaps) == ""
