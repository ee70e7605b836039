"""Searches by hypothesis: every kind of fault, every planted mistake, and short stories."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from examples.simulations import Carts, HastyPayments, Payments
from trio_durable import CallCycle, DurableError, DurableObject, handler
from trio_durable._activations.activation import Activation
from trio_durable._activations.effects import Effects
from trio_durable._activations.state import ObjectState
from trio_durable._persistence.ticket import Ticket
from trio_durable.storage import AlarmChanges, Commit
from trio_durable.testing.simulate import Simulation
from trio_durable.testing.simulate._disk import _Writer
from trio_durable.testing.simulate._faults import Faults
from trio_durable.testing.simulate._process import Process
from trio_durable.testing.simulate._simulation import Simulation as Steps
from trio_durable.testing.simulate._strategies import strategy_of

from .objects import Account, Accounts, Clerk, Office, Overdrawn, Restlessness, simulate, story_of

# --- that it is sound, and goes everywhere -------------------------------------------------------


def test_the_tests_own_objects_stand_it() -> None:
    simulate(Accounts)
    simulate(Office, stories=30)


@pytest.mark.parametrize("simulation", [Carts, Payments])
def test_the_examples_stand_it(simulation: type[Simulation]) -> None:
    simulate(simulation)


def test_every_kind_of_fault_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    injected = set()
    begin_step = Faults.begin_step

    def noted(self: Faults, expected: Any) -> None:
        if getattr(self, "injected", None) is not None:
            assert self.injected is not None
            injected.add(str(self.injected)[:-2])
        begin_step(self, expected)

    monkeypatch.setattr(Faults, "begin_step", noted)
    simulate(Office, stories=80)
    assert injected == {
        "crash before commit",
        "crash after commit",
        "crash after claim",
        "crash after effect",
        "fail before commit",
        "fail after commit",
        "fail before claim",
        "fail after claim",
        "fail before effect",
        "fail after effect",
        "fail before load",
    }


def test_every_kind_of_step_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = set()
    step = Steps._step

    def noted(self: Steps, *args: Any) -> None:
        step(self, *args)
        taken.add(self._printed_step[0])

    monkeypatch.setattr(Steps, "_step", noted)
    simulate(Accounts, stories=20)
    assert taken == {"call", "together", "wait", "wait_for_alarm", "crash", "restart"}


def test_the_same_seed_tells_the_same_stories(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []
    step = Steps._step

    def noted(self: Steps, *args: Any) -> None:
        step(self, *args)
        taken.append((self._printed_step, str(self._faults.injected), self.now, self.stored(Clerk)))

    monkeypatch.setattr(Steps, "_step", noted)
    simulate(Office, stories=15)
    first, taken = taken, []
    simulate(Office, stories=15)
    assert len(first) > 100
    assert taken == first


def test_a_story_whose_next_process_never_settles_is_told_as_such() -> None:
    class NoWaiting(Restlessness):
        delays = (60,)

        def wait(self, *args: Any) -> None: ...

        def wait_for_alarm(self, *args: Any) -> None: ...

    with pytest.raises(AssertionError, match="sets itself again, due at once") as caught:
        simulate(NoWaiting, stories=30)
    assert "state.crash(down_for=60)" in story_of(caught.value)


# --- that it finds what is wrong -----------------------------------------------------------------


def reply_at_once(ticket: Ticket, waiter: Any) -> None:
    waiter.release()


def keep_what_failed(state: ObjectState) -> None:
    pass


def forget_nothing(activation: Activation) -> None:
    pass


def acknowledge_nothing(effects: Effects, delivery: Any = None) -> None:
    effects.delivery, effects.alarms = delivery, None
    effects.delete = effects.deleted = False


def apart(part: Callable[[Commit], Commit], rest: Callable[[Commit], Commit]) -> Any:
    """A storage that writes a commit in two."""
    commit = _Writer.commit

    def commit_apart(self: _Writer, batch: Sequence[Commit], now: int) -> Collection[int]:
        stale = commit(self, [part(each) for each in batch], now)
        commit(self, [rest(each) for n, each in enumerate(batch) if n not in stale], now)
        return stale

    return commit_apart


def later(commit: Commit, alarms: AlarmChanges) -> Commit:
    return Commit(commit.key, None, alarms=alarms)


acknowledge_later = apart(
    lambda commit: attrs.evolve(plain(commit), alarms=None),
    lambda commit: later(commit, commit.alarms or AlarmChanges()),
)
set_later = apart(
    lambda commit: attrs.evolve(
        plain(commit),
        alarms=AlarmChanges(commit.alarms.acknowledged) if commit.alarms else None,
    ),
    lambda commit: later(
        commit, AlarmChanges(changed=commit.alarms.changed) if commit.alarms else AlarmChanges()
    ),
)


def plain(commit: Commit) -> Commit:
    return Commit(commit.key, commit.revision, commit.state, commit.delete, commit.alarms)


def never_stale(self: Any, commit: Commit) -> bool:
    return False


MISTAKES: dict[str, tuple[Any, str, Any]] = {
    "a reply before its commit": (Ticket, "hold", reply_at_once),
    "no roll-back of a turn that failed": (ObjectState, "roll_back", keep_what_failed),
    "memory kept although its commit failed": (Activation, "_invalidate", forget_nothing),
    "an alarm that is never acknowledged": (Effects, "__init__", acknowledge_nothing),
    "an acknowledgement in a commit of its own": (_Writer, "commit", acknowledge_later),
    "alarms set in a commit of their own": (_Writer, "commit", set_later),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_the_runtime_are_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Brief(Accounts):
        delays = (60,)  # what is broken may go on breaking for as long as it is let
        left_out = tuple(f"Account.{name}" for name in ("move", "note_later", "deposit_in_parts"))

    monkeypatch.setattr(*MISTAKES[mistake])
    with pytest.raises((AssertionError, DurableError)) as raised:
        simulate(Brief, stories=100, phases=[Phase.generate])
    assert story_of(raised.value)[0] == "state = Brief()"


# There are two such stories: the second call comes after the first, or at the same moment.
PAY = r"HastyOrder, '(?P<id>.)', 'pay', cents=0"
PAY_AGAIN = r"HastyOrder, '(?P=id)', 'pay', cents=0"
FAULT = r"fault='(crash|fail) (before commit|after effect) 1'"
BEGIN = r"state = HastyPayments\(\)\nfrom examples\.payments import HastyOrder\n"
STORIES = [
    rf"{BEGIN}state\.call\({PAY}, {FAULT}\)\nstate\.call\({PAY_AGAIN}\)\nstate\.teardown\(\)",
    (
        rf"{BEGIN}from trio_durable\.testing\.simulate import Call\n"
        rf"state\.together\(Call\({PAY}\), Call\({PAY_AGAIN}\), {FAULT}\)\nstate\.teardown\(\)"
    ),
]


def test_the_planted_mistake_is_found_in_the_fewest_steps() -> None:
    # Its card is charged, and it knows nothing of it.
    with pytest.raises(AssertionError) as raised:
        simulate(HastyPayments, stories=100)
    story = "\n".join(story_of(raised.value))
    assert any(re.fullmatch(pattern, story) for pattern in STORIES), story
    # What is printed is code, and fails as well where it is pasted.
    with pytest.raises(AssertionError):
        exec(story, {"HastyPayments": HastyPayments})


def test_it_is_the_message_that_mends_it() -> None:
    # The bank is asked again with the key of the first time: the message's id.
    state = Payments()
    order_class = Payments.objects[0]
    try:
        faults = ["crash after effect 1", "crash before commit 2", "crash after commit 1"]
        faults += ["fail before effect 1", "fail after effect 1"]
        for order, fault in zip("abcde", faults, strict=True):
            state.call(order_class, order, "pay", cents=1, fault=fault)
            state.wait(3600)
            state.call(order_class, order, "pay", cents=2)
            assert list(state.charged.values()).count(order) == 1, fault
            assert state.stored(order_class)[order].status == "paid"
    finally:
        state.teardown()


# --- what is drawn -------------------------------------------------------------------------------


def test_handlers_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    called: set[str] = set()
    start_calls = Process.start_calls

    def noted(self: Process, calls: Any) -> None:
        called.update(call.handler for call in calls)
        start_calls(self, calls)

    class Few(Accounts):
        left_out = ("Account.move", "Account.look", "Account.deposit_in_parts")

    monkeypatch.setattr(Process, "start_calls", noted)
    simulate(Few, stories=20)
    assert called == {"deposit", "withdraw", "pay_interest", "note_later"}


def test_a_subclass_simulates_its_own_objects() -> None:
    class Both(Simulation):
        objects: ClassVar[Sequence[type[DurableObject]]] = (Clerk, Account)
        left_out: ClassVar[Sequence[str]] = ("Clerk.cling", "Clerk.dawdle", "Clerk.later")
        allowed = (NotImplementedError, Overdrawn, CallCycle)
        arguments: ClassVar = {"Account.move.to": st.sampled_from("ab")}

    class One(Both):
        objects = (Account,)
        left_out = ()

    simulate(Both, stories=5)
    simulate(One, stories=5)


class Odd(DurableObject, name="simulate.Odd"):
    seen: int = 0

    @handler
    def take(self, fault: str, /, other: int = 1, *more: int, last: bool = False) -> None:
        assert fault in ("x", "y")
        assert isinstance(other, int)
        assert not more
        assert isinstance(last, bool)
        self.seen += 1

    @handler
    def pair(self, number: int = 1, text: str = "", /) -> None:
        assert isinstance(number, int)
        assert isinstance(text, str)

    @handler
    def blame(self, who: str, fault: str = "x") -> None:
        assert (who, fault) in [("w", "x"), ("w", "y")]
        self.seen += 1


def test_parameters_of_all_kinds_are_given() -> None:
    most = 0

    class Odds(Simulation):
        objects = (Odd,)
        arguments: ClassVar = {
            "Odd.take.fault": st.sampled_from("xy"),
            "Odd.blame.who": st.just("w"),
            "Odd.blame.fault": st.sampled_from("xy"),
        }

        @invariant()
        def count(self) -> None:
            nonlocal most
            most = max([most, *(odd.seen for odd in self.stored(Odd).values())])

    simulate(Odds, stories=20)
    assert most > 2


@pytest.mark.parametrize(
    ("annotation", "accepts"),
    [
        (int, lambda value: -1000 <= value <= 1000),
        (float, lambda value: isinstance(value, float) and abs(value) <= 1000),
        (str, lambda value: set(value) <= set("abc")),
        (int | None, lambda value: value is None or abs(value) <= 1000),
        (list[int], lambda value: len(value) <= 3 and all(abs(each) <= 1000 for each in value)),
        (set[str], lambda value: len(value) <= 3),
        (dict[str, int], lambda value: len(value) <= 3),
        (tuple[int, str], lambda value: isinstance(value[0], int) and isinstance(value[1], str)),
        (bool, lambda value: value in (True, False)),
    ],
)
def test_values_are_small(annotation: Any, accepts: Callable[[Any], bool]) -> None:
    seen = []

    class Draws(Accounts):
        arguments: ClassVar = {
            **Accounts.arguments,
            "Account.deposit.cents": strategy_of(annotation).map(
                lambda value: seen.append(value) or 1  # type: ignore[func-returns-value]
            ),
        }

    simulate(Draws, stories=10)
    assert len(seen) > 5
    assert all(map(accepts, seen))


# --- and where hypothesis is missing -------------------------------------------------------------


def test_without_hypothesis_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["hypothesis"] = None
import trio_durable.testing
try:
    import trio_durable.testing.simulate
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("install trio-durable[testing]")
