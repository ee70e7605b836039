"""Single steps of a simulation, as a story pasted into a test."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

import anyio
import anyio.lowlevel
import attrs
import pytest
import trio
from hypothesis.stateful import invariant, rule

from trio_durable import (
    Alarm,
    CallTimeout,
    DefinitionError,
    DurableObject,
    ObjectKey,
    PersistenceError,
    UnknownHandler,
    handler,
    upgrade,
)
from trio_durable._activations.activation import Activation
from trio_durable.storage import Commit, Postponement, StorageFault
from trio_durable.testing.simulate import Call, Simulation, SimulationReport, outside
from trio_durable.testing.simulate._disk import Disk
from trio_durable.testing.simulate._faults import Faults, Life
from trio_durable.testing.simulate._models import _outcomes
from trio_durable.testing.simulate._operations import Operation, Record

from . import objects as world
from .objects import (
    Account,
    AccountModel,
    Accounts,
    Clerk,
    Office,
    Overdrawn,
    Restless,
    Restlessness,
)

S = TypeVar("S", bound=Simulation)


@contextmanager
def simulating(kind: type[S]) -> Iterator[S]:
    state = kind()
    try:
        yield state
    finally:
        state.teardown()


def balances(state: Simulation) -> dict[str, int]:
    return {object_id: account.balance for object_id, account in state.stored(Account).items()}


class Versioned(DurableObject, schema=2):
    amount: int = 0

    @upgrade(from_schema=1)
    @staticmethod
    def rename(state: dict[str, Any]) -> dict[str, Any]:
        return {"amount": state["total"]}

    @handler
    def add(self) -> int:
        self.amount += 1
        return self.amount


class VersionedModel:
    def __init__(self) -> None:
        self.amount = 0

    def add(self) -> int:
        self.amount += 1
        return self.amount


class OfLaterSchema(Simulation):
    objects = (Versioned,)
    models: ClassVar = {Versioned: VersionedModel}


def test_states_of_a_later_schema_are_read() -> None:
    with simulating(OfLaterSchema) as state:
        state.call(Versioned, "a", "add", fault="crash after commit 1")
        state.call(Versioned, "a", "add")
        assert state.stored(Versioned) == {"a": Versioned(amount=2)}


# --- calls and faults ----------------------------------------------------------------------------


def test_a_call_has_its_result_and_its_effect() -> None:
    with simulating(Accounts) as state:
        call = state.call(Account, "a", "deposit", cents=5)
        assert (call.has_ended, call.result, call.error) == (True, 5, None)
        assert balances(state) == {"a": 5}
        assert state.call(Account, "a", "look").result == 5
        refused = state.call(Account, "a", "withdraw", 6)
        assert isinstance(refused.error, Overdrawn)
        assert balances(state) == {"a": 5}


@pytest.mark.parametrize(
    ("fault", "stored", "ended"),
    [
        ("crash before commit 1", 0, False),
        ("crash after commit 1", 5, False),
        ("fail before commit 1", 0, True),
        ("fail after commit 1", 5, True),
        ("fail before load 1", 0, True),
        ("crash before load 1", 0, False),
        ("crash after load 1", 0, False),
        ("crash before commit 2", 5, True),
    ],
)
def test_a_fault_comes_where_it_is_said(fault: str, stored: int, ended: bool) -> None:
    with simulating(Accounts) as state:
        call = state.call(Account, "a", "deposit", cents=5, fault=fault)
        assert balances(state).get("a", 0) == stored
        assert call.has_ended == ended
        assert isinstance(call.error, PersistenceError) == fault.startswith("fail")
        # The next process, or the same one, goes on from what is stored.
        assert state.call(Account, "a", "deposit", cents=1).result == stored + 1


@pytest.mark.parametrize(
    ("fault", "mails", "sent"),
    [
        ("crash before effect 1", 0, 0),
        ("crash after effect 1", 1, 0),
        ("crash after effect 2", 2, 0),
        ("fail before effect 2", 1, 0),
        ("fail after effect 2", 2, 0),
        ("crash after effect 3", 2, 2),
    ],
)
def test_effects_outside_outlive_the_process(fault: str, mails: int, sent: int) -> None:
    with simulating(Office) as state:
        call = state.call(Clerk, "a", "send", 2, fault=fault)
        assert len(state.mails) == mails
        assert sum(clerk.sent for clerk in state.stored(Clerk).values()) == sent
        assert isinstance(call.error, OSError) == fault.startswith("fail")


def test_a_commit_in_the_middle_of_a_turn_is_a_point_like_others() -> None:
    with simulating(Office) as state:
        state.call(Clerk, "a", "send_after_commit", fault="crash after commit 1")
        assert (state.stored(Clerk)["a"].log, state.mails) == (["meant"], [])
        state.call(Clerk, "b", "send_after_commit", fault="crash before commit 2")
        assert (state.stored(Clerk)["b"].log, state.mails) == (["meant"], ["b"])
        state.call(Clerk, "c", "send_after_commit", fault="crash after commit 2")
        assert state.stored(Clerk)["c"].log == ["meant", "done"]


def test_what_a_dying_process_tries_on_its_way_out_counts_for_nothing() -> None:
    with simulating(Office) as state:
        state.call(Clerk, "a", "cling", fault="crash after effect 1")
        assert state.mails == ["a"]
        assert state.stored(Clerk) == {}
        state.call(Clerk, "a", "cling")
        assert state.mails == ["a", "a", "clung"]


def test_a_def_stand_in_is_one_as_well() -> None:
    with simulating(Office) as state:
        assert state.call(Clerk, "a", "print").result == "A"
        assert not state.call(Clerk, "b", "print", fault="crash after effect 1").has_ended
        assert state.mails == ["a", "b"]
    assert world.print_line.__module__ == world.__name__
    with pytest.raises(NotImplementedError):
        world.print_line("")


def test_calls_together_come_in_one_commit() -> None:
    with simulating(Accounts) as state:
        calls = state.together(
            Call(Account, "a", "deposit", 1),
            Call(Account, "b", "deposit", 2),
            Call(Account, "a", "deposit", 3),
            fault="crash before commit 2",
        )
        assert max(calls[0].result, calls[2].result) == 4
        assert calls[1].result == 2
        assert balances(state) == {"a": 4, "b": 2}
        state.together(
            Call(Account, "a", "deposit", 1),
            Call(Account, "b", "deposit", 2),
            fault="crash before commit 1",
        )
        assert balances(state) == {"a": 4, "b": 2}


def test_a_call_that_outlasts_its_caller_is_waited_for() -> None:
    class Patient(Office):
        allowed = (CallTimeout,)

    with simulating(Patient) as state:
        call = state.call(Clerk, "a", "dawdle", 7)
        assert isinstance(call.error, CallTimeout)
        assert state.stored(Clerk)["a"].sent == 1
        with pytest.raises(AssertionError, match="isn't idle after an hour"):
            state.call(Clerk, "b", "dawdle", 7200)


# --- time and alarms -----------------------------------------------------------------------------


def test_time_passes_when_it_is_let() -> None:
    with simulating(Office) as state:
        began = datetime(2030, 1, 1, tzinfo=UTC)
        assert state.now == began
        state.call(Clerk, "a", "later", 60)
        assert [alarm.due_at for alarm in state.alarms(Clerk, "a")] == [
            began + timedelta(minutes=1)
        ]
        state.wait(59)
        assert (state.mails, state.has_alarms) == ([], True)
        state.wait(timedelta(seconds=1))
        assert (state.mails, state.has_alarms) == (["a"], False)
        assert abs(state.now - began - timedelta(seconds=60)) < timedelta(seconds=1)


def test_the_next_alarm_is_waited_for() -> None:
    with simulating(Office) as state:
        state.wait_for_alarm()
        assert state.now == datetime(2030, 1, 1, tzinfo=UTC)
        state.call(Clerk, "a", "later", 86400 * 365.0)
        state.wait_for_alarm()
        assert state.mails == ["a"]


@pytest.mark.parametrize(
    ("fault", "mails"),
    [
        ("crash after claim 1", 1),
        ("crash after effect 1", 2),
        ("crash before commit 1", 2),
        ("crash after commit 1", 1),
        ("fail before claim 1", 1),
        ("fail after claim 1", 1),
        ("fail after effect 1", 2),
        ("fail before commit 1", 2),
        ("fail after commit 1", 1),
    ],
)
def test_an_alarm_changes_state_once_whatever_happens(fault: str, mails: int) -> None:
    with simulating(Office) as state:
        state.call(Clerk, "a", "later", 60)
        state.wait_for_alarm(fault)
        state.wait(7 * 3600)  # beyond all retries, and the next look at the table
        assert state.stored(Clerk)["a"].sent == 1
        assert len(state.mails) == mails
        assert not state.has_alarms


def test_alarms_that_come_due_while_nothing_runs_fire_afterwards() -> None:
    with simulating(Office) as state:
        state.call(Clerk, "a", "later", 60)
        state.crash()
        assert state.mails == []
        state.crash(down_for=timedelta(hours=1))
        assert state.mails == ["a"]
        assert state.now >= datetime(2030, 1, 1, 1, tzinfo=UTC)


def test_a_process_may_also_end_in_order() -> None:
    with simulating(Accounts) as state:
        state.call(Account, "a", "deposit", 5)
        state.restart()
        assert state.call(Account, "a", "look").result == 5


def test_a_wait_that_a_crash_interrupts_goes_on() -> None:
    with simulating(Office) as state:
        state.call(Clerk, "a", "later", 60)
        state.wait(120, fault="crash after claim 1")
        assert state.mails == ["a"]
        assert state.now >= datetime(2030, 1, 1, 0, 2, tzinfo=UTC)


# --- models --------------------------------------------------------------------------------------


def test_a_model_takes_either_outcome_of_a_call_that_nobody_heard_of() -> None:
    for fault in ("crash before commit 1", "crash after commit 1", "crash after commit 2"):
        with simulating(Accounts) as state:
            state.call(Account, "a", "deposit_in_parts", 5, fault=fault)
            state.call(Account, "a", "deposit", 1)


def test_calls_of_other_objects_are_known_to_their_models() -> None:
    with simulating(Accounts) as state:
        state.call(Account, "a", "deposit", 5)
        state.call(Account, "a", "move", "b", 3)
        assert balances(state) == {"a": 2, "b": 3}


class Wrong(AccountModel):
    def deposit(self, cents: int) -> int:
        super().deposit(cents)
        self.balance = min(self.balance, 7)
        return self.balance


class WrongReply(AccountModel):
    def deposit(self, cents: int) -> int:
        return super().deposit(cents) + (self.balance > 7)


class WrongError(AccountModel):
    def withdraw(self, cents: int) -> int:
        if cents > self.balance:
            raise ValueError
        return super().withdraw(cents)


class WrongAlarm(AccountModel):
    def interest(self) -> None:
        pass


def modelled_by(model: type) -> type[Simulation]:
    class Modelled(Simulation):
        objects = (Account,)
        models: ClassVar = {Account: model}
        arguments: ClassVar = Accounts.arguments

    return Modelled


def test_a_model_that_does_otherwise_fails_the_step() -> None:
    with simulating(modelled_by(Wrong)) as state:
        state.call(Account, "a", "deposit", 7)
        with pytest.raises(
            AssertionError, match=r"(?s)simulate.Account\('a'\).*deposit\(1\), which"
        ):
            state.call(Account, "a", "deposit", 1)
    with simulating(modelled_by(WrongReply)) as state:
        state.call(Account, "a", "deposit", 7)
        with pytest.raises(AssertionError, match="and has another result"):
            state.call(Account, "a", "deposit", 1)
    with (
        simulating(modelled_by(WrongError)) as state,
        pytest.raises(AssertionError, match="which raised"),
    ):
        state.call(Account, "a", "withdraw", 1)
    with simulating(modelled_by(WrongAlarm)) as state:
        state.call(Account, "a", "pay_interest")
        with pytest.raises(AssertionError, match=r"interest\(\)"):
            state.wait_for_alarm()


def test_a_model_must_agree_with_one_outcome_even_if_nobody_heard_of_it() -> None:
    with simulating(modelled_by(Wrong)) as state:
        state.call(Account, "a", "deposit", 7)
        with pytest.raises(AssertionError, match=r"deposit\(5\), whose outcome is unknown"):
            state.call(Account, "a", "deposit", 5, fault="crash after commit 1")


def test_a_change_that_nobody_made_fails_the_step() -> None:
    with simulating(Accounts) as state:
        state.call(Account, "a", "deposit", 7)
        key = next(iter(state._models._rows))
        rows = state._disk._memory._contents.rows
        revision, updated_at, state_of_row = rows[key]
        rows[key] = revision, updated_at, state_of_row.replace(b"7", b"8")
        with pytest.raises(AssertionError, match="no operation on it"):
            state.crash()


def test_what_ended_before_something_else_began_was_done_before_it() -> None:
    class Register:
        value = 0

        def put(self, value: int) -> None:
            self.value = value

    key = ObjectKey("Register", "a")
    first = Operation(key, "put", (1,), began=1, ended=2, is_known=True)
    second = Operation(key, "put", (2,), began=3, ended=4, is_known=True)
    assert [vars(after)["value"] for after in _outcomes(Register(), [second, first])] == [2]
    second.began = 1
    assert {vars(after)["value"] for after in _outcomes(Register(), [second, first])} == {1, 2}


def test_what_nobody_heard_of_has_done_nothing_if_nothing_was_written() -> None:
    key = ObjectKey("Register", "a")
    record = Record({}, SimulationReport("Test"))
    early, late = Operation(key, "put", (1,)), Operation(key, "put", (2,))
    record.begin(early)
    record.end_all()
    record.begin(late)
    record.written(key)
    record.end_all()
    assert record.take() == {key: [late]}
    assert record.take() == {}


# --- what else is checked ------------------------------------------------------------------------


def test_invariants_are_checked_after_each_step() -> None:
    class Strict(Simulation):
        objects = (Account,)
        models: ClassVar = {Account: AccountModel}

        @invariant()
        def nobody_is_rich(self) -> None:
            assert all(balance < 9 for balance in balances(self).values())

    with simulating(Strict) as state:
        state.call(Account, "a", "deposit", 8)
        with pytest.raises(AssertionError, match="assert"):
            state.call(Account, "a", "deposit", 1)


def test_what_isnt_allowed_fails_the_step() -> None:
    class Bare(Simulation):
        objects = (Account, Clerk)

        @outside(world, "send_mail")
        async def send_mail(self, to: str) -> None:
            raise KeyError(to)

    with simulating(Bare) as state, pytest.raises(Overdrawn):
        state.call(Account, "a", "withdraw", 1)
    with simulating(Bare) as state, pytest.raises(KeyError, match="a"):
        state.call(Clerk, "a", "send")
    with simulating(Bare) as state:
        state.call(Clerk, "b", "later", 60)
        with pytest.raises(KeyError, match="b"):
            state.wait_for_alarm()  # which would only be logged otherwise


def test_state_in_memory_that_isnt_stored_fails_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unmodelled(Simulation):
        objects = (Account,)

    def keep(activation: Activation) -> None:
        state = activation.state
        state.encoded = state.object_type.codec.encode_fields(state.key, state.instance)

    monkeypatch.setattr(Activation, "_invalidate", keep)
    with simulating(Unmodelled) as state:
        state.call(Account, "a", "deposit", 1)
        with pytest.raises(AssertionError, match=r"balance=6.*in memory, but stored as.*=1"):
            state.call(Account, "a", "deposit", 5, fault="fail before commit 1")


def test_what_the_library_refuses_fails_the_step_of_a_modelled_class_too() -> None:
    with simulating(Accounts) as state, pytest.raises(UnknownHandler):
        state.call(Account, "a", "open")


def test_a_dead_process_has_no_disk() -> None:
    life = Life(Faults([]), take_over=lambda: None)
    storage = Disk().mount(life, Record({}, SimulationReport("Test")))
    writer, reader = storage.open_writer(), storage.open_reader()
    key = ObjectKey("Account", "a")
    life.is_over = True
    for work in (
        lambda: writer.commit([Commit(key, 0, b"{}")], 0),
        lambda: writer.claim([key.alarm("x")], 1, 0, 1),
        lambda: writer.renew([(key.alarm("x"), 1)], 1),
        lambda: writer.postpone([Postponement(key.alarm("x"), 1, 0, 0, None)]),
        lambda: writer.revive(key.alarm("x"), 0),
        lambda: reader.load([key]),
        lambda: reader.list_ids("Account", None, 1),
        lambda: reader.due_alarms(1, None, 1, ()),
        lambda: reader.list_alarms(key),
        lambda: reader.list_dead_letters("Account", None, 1),
    ):
        with pytest.raises(StorageFault, match="has died"):
            work()


def test_a_pasted_story_is_the_same_each_time() -> None:
    class Dice(DurableObject, name="simulate.Dice"):
        @handler
        def roll(self) -> float:
            return random.random()

    class Game(Simulation):
        objects = (Dice,)

    rolled = []
    for _ in range(2):
        with simulating(Game) as state:
            rolled.append(state.call(Dice, "a", "roll").result)
    assert rolled[0] == rolled[1]


def test_a_pasted_story_runs_tasks_in_the_same_order_each_time() -> None:
    class Crowd(DurableObject, name="simulate.Crowd"):
        @handler
        async def arrive(self) -> list[int]:
            arrived: list[int] = []

            async def come(number: int) -> None:
                arrived.append(number)

            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(come, number)
            return arrived

    class Crowds(Simulation):
        objects = (Crowd,)

    orders = []
    for _ in range(2):
        with simulating(Crowds) as state:
            orders.append(state.call(Crowd, "a", "arrive").result)
    assert sorted(orders[0]) == list(range(20))
    assert orders[0] == orders[1]


def test_a_pasted_story_leaves_the_random_numbers_of_others_alone() -> None:
    before = random.getstate()
    with simulating(Accounts) as state:
        state.call(Account, "a", "deposit", 1)
        assert random.getstate() != before
    assert random.getstate() == before


def test_a_pasted_story_without_its_end_lets_the_interpreter_exit() -> None:
    code = "from tests.testing.simulate.objects import Accounts; state = Accounts()"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == ""


def test_a_story_ends_with_the_step_that_fails() -> None:
    with simulating(modelled_by(WrongError)) as state:
        with pytest.raises(AssertionError, match="which raised"):
            state.call(Account, "a", "withdraw", 1)
        # Its event loop is gone, or no other could run now.
        trio.run(trio.sleep, 0)
        with pytest.raises(AssertionError, match="the story has ended"):
            state.call(Account, "a", "look")


def test_what_never_comes_to_an_end_fails_the_step() -> None:
    for handler_name, args, message in [
        ("spin", (), "hasn't settled after 10000 ticks"),
        ("begin", (0.0, 0.0), "timers expired at|hasn't settled after 1000 storage"),
        ("hold_on", (), "hasn't ended|isn't idle after"),
    ]:
        with simulating(Restlessness) as state, pytest.raises(AssertionError, match=message):
            state.call(Restless, "a", handler_name, *args)
        trio.run(trio.sleep, 0)


def test_a_process_that_never_gets_started_leaves_no_event_loop() -> None:
    with simulating(Restlessness) as state:
        state.call(Restless, "a", "begin", 30.0, 0.0)
        with pytest.raises(AssertionError, match="sets itself again, due at once"):
            state.crash(down_for=60)
    trio.run(trio.sleep, 0)


def test_alarms_may_fire_often_in_a_wait_but_not_for_ever() -> None:
    with simulating(Restlessness) as state:
        state.call(Restless, "a", "begin", 60.0, 60.0)
        state.wait(86400)
        state.call(Restless, "a", "begin", 1.0, 1.0)
        with pytest.raises(AssertionError, match=r"more than 2000 times in one wait.* delays"):
            state.wait(86400)


def test_state_that_changes_outside_of_turns_fails_the_step() -> None:
    kept: list[Any] = []

    class Leaky(DurableObject, name="simulate.Leaky"):
        items: list[int] = attrs.field(factory=list)

        @handler
        def keep(self) -> None:
            self.items.append(1)
            kept.append(self.items)

        @handler
        async def meddle(self) -> None:
            await anyio.lowlevel.checkpoint()
            kept[0].append(2)

    class Leaks(Simulation):
        objects = (Leaky,)

    with simulating(Leaks) as state:
        state.call(Leaky, "a", "keep")
        with pytest.raises(AssertionError, match=r"Leaky\('a'\) was changed outside of a turn"):
            state.call(Leaky, "b", "meddle")


# --- bad input -----------------------------------------------------------------------------------


def test_what_makes_no_sense_in_a_step_is_refused() -> None:
    for fault in ("crash", "crash after commit 0", "stop after commit 1", "fail  after claim 1"):
        with simulating(Office) as state, pytest.raises(ValueError, match="is not a fault"):
            state.call(Clerk, "a", "send", fault=fault)
    with (
        simulating(Office) as state,
        pytest.raises(ValueError, match="not in the simulation's objects"),
    ):
        state.stored(Account)

    with simulating(Office) as state, pytest.raises(UnknownHandler):
        state.call(Clerk, "a", "sent")
    with (
        simulating(Office) as state,
        pytest.raises(ValueError, match="not in the simulation's objects"),
    ):
        state.call(Account, "a", "look")

    class Certain(Simulation):
        objects = (Clerk,)

        @outside(world, "send_mail")
        async def send_mail(self, to: str) -> None: ...

    with (
        simulating(Certain) as other,
        pytest.raises(ValueError, match="send_mail has no fails_with"),
    ):
        other.call(Clerk, "a", "send", fault="fail after effect 1")


@pytest.mark.parametrize(
    "step",
    [
        lambda state: state.call(Clerk, "a", "send", fault="nonsense"),
        lambda state: state.call("nonsense", "a", "send"),
        lambda state: state.together(Call("nonsense", "a", "send")),  # type: ignore[arg-type]
        lambda state: state.wait(1, fault="nonsense"),
        lambda state: state.wait(-1),
        lambda state: state.crash(down_for=-1),
    ],
)
def test_a_step_that_makes_no_sense_ends_the_story(step: Callable[[Office], object]) -> None:
    state = Office()
    with pytest.raises(ValueError, match=r"nonsense|delay|down_for"):
        step(state)
    trio.run(trio.sleep, 0)


class Short:
    balance = 0


class Slotted(AccountModel):
    __slots__ = ("a",)


class Unlike(AccountModel):
    def __init__(self) -> None:
        self.other = 0


class Untyped(DurableObject, name="simulate.Untyped"):
    @handler
    def take(self, what) -> None: ...  # type: ignore[no-untyped-def]


def stand_in_for(name: str) -> Callable[..., object]:
    def stand_in(self: Simulation, to: str) -> None: ...

    return outside(world, name)(stand_in)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"objects": (int,)}, "int: is not a subclass of DurableObject"),
        ({"objects": (Account,), "ids": ("", "a")}, "ids: '': it is empty"),
        (
            {"objects": (Account,), "starts_at": datetime(2030, 1, 1)},
            "starts_at: must be a datetime with a time zone",
        ),
        ({"objects": (Account,), "starts_at": "2030"}, "starts_at: must be a datetime"),
        ({"objects": Account}, "objects: must be a tuple or a list, not <class"),
        ({"objects": {Account}}, "objects: must be a tuple or a list, not {"),
        ({"objects": (Account,), "ids": ()}, "ids: must not be empty"),
        ({"objects": (Account,), "ids": "abc"}, "ids: must be a tuple or a list, not 'abc'"),
        ({"objects": (Account,), "ids": (1,)}, "ids: 1: "),
        ({"objects": (Account,), "left_out": "Account.look"}, "there is no handler 'A'; there are"),
        ({"objects": (Account,), "delays": ()}, "delays: must not be empty"),
        ({"objects": (Account,), "delays": (-1,)}, "delays: must be a finite time of zero or"),
        ({"objects": (Account,), "delays": 60}, "delays: must be a tuple or a list, not 60"),
        ({"objects": (Account,), "clock_jumps": 60}, "clock_jumps: must be a tuple or a list"),
        ({"objects": (Account,), "clock_jumps": ("1",)}, "clock_jumps: must be seconds or a time"),
        ({"objects": (Account,), "polling_interval": 0}, "polling_interval: must be more than"),
        ({"objects": (Account,), "polling_interval": "1"}, "polling_interval: must be a timed"),
        (
            {"objects": (Account,), "left_out": ["Account.go"]},
            "there is no handler 'Account.go'; there are",
        ),
        ({"objects": (Account,), "arguments": {"Account.go.x": None}}, "there is no handler"),
        ({"objects": (Account,), "arguments": {"Account.look.x": None}}, "has no parameter x"),
        ({"objects": (Account,), "models": {Clerk: AccountModel}}, "Clerk is not in objects"),
        ({"objects": (Account,), "models": {Account: Short}}, "Short lacks deposit, withdraw, dep"),
        ({"objects": (Account,), "models": {Account: Unlike}}, "none of the fields of Account"),
        ({"objects": (Untyped,)}, "Untyped.take.what has no annotation that can be resolved"),
        ({"objects": (Account,), "go": stand_in_for("nowhere")}, "has no nowhere to replace"),
        ({"objects": (Account,), "go": stand_in_for("send_mail")}, "must be async def, as send_"),
    ],
)
def test_a_simulation_that_cant_work_is_refused_where_it_is_defined(
    body: dict[str, Any], message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        type("Bad", (Simulation,), body)


def test_a_simulation_of_nothing_is_refused() -> None:
    class Nothing(Simulation):
        @rule()
        def go(self) -> None: ...

    with pytest.raises(DefinitionError, match="objects: must not be empty"):
        Nothing()


def test_alarms_are_told_as_they_are() -> None:
    with simulating(Accounts) as state:
        state.call(Account, "a", "note_later", "x")
        [alarm] = state.alarms(Account, "a")
        assert isinstance(alarm, Alarm)
        assert (alarm.name, alarm.payload) == ("note x", "x")
        state.wait_for_alarm()
        assert state.stored(Account)["a"].noted == ["x"]
