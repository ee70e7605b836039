"""Messages in simulations: a dual write is found, and the same app with messages passes."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, run_state_machine_as_test

from trio_durable import DurableObject, handler
from trio_durable.testing.simulate import Simulation

CENTS = 100


class Purse(DurableObject, name="simulated.Purse"):
    """Moves money to another one by a message, in its own commit."""

    cents: int = CENTS

    @handler
    def put(self, cents: int) -> None:
        self.cents += cents

    @handler
    def give(self, to: str) -> None:
        self.cents -= 1
        self.ctx.send(Purse.put, to, 1)


class LeakyPurse(DurableObject, name="simulated.LeakyPurse"):
    """Does a dual write: both objects are changed by commits of their own."""

    cents: int = CENTS

    @handler
    def put(self, cents: int) -> None:
        self.cents += cents

    @handler
    async def give(self, to: str) -> None:
        self.cents -= 1
        await self.ctx.runtime.get(LeakyPurse, to).put(1)


class Purses(Simulation):
    objects = (Purse,)
    left_out = ("Purse.put",)
    arguments: ClassVar = {"Purse.give.to": st.sampled_from("abc")}

    @invariant()
    def no_money_is_made_or_lost(self) -> None:
        stored = self.stored(Purse).values()
        on_the_way = len(self.messages)
        assert sum(purse.cents - CENTS for purse in stored) + on_the_way == 0


class LeakyPurses(Simulation):
    objects = (LeakyPurse,)
    left_out = ("LeakyPurse.put",)
    arguments: ClassVar = {"LeakyPurse.give.to": st.just("bank")}

    @invariant()
    def no_money_is_made_or_lost(self) -> None:
        assert sum(purse.cents - CENTS for purse in self.stored(LeakyPurse).values()) == 0


def test_a_message_survives_a_crash_at_each_commit() -> None:
    for fault in (
        *("crash before commit 1", "crash after commit 1", "crash before commit 2"),
        *("crash after commit 2", "fail after commit 1", "fail after commit 2"),
        *("fail before commit 1", "fail before commit 2"),
    ):
        state = Purses()
        state.call(Purse, "a", "give", "b", fault=fault)
        state.wait(60)
        state.no_money_is_made_or_lost()
        assert not state.messages, fault
        state.teardown()


def test_a_planted_dual_write_is_lost_by_a_crash() -> None:
    state = LeakyPurses()
    with pytest.raises(AssertionError, match="== 0"):
        state.call(LeakyPurse, "a", "give", "b", fault="crash after commit 1")
    state.teardown()


def test_the_search_finds_a_planted_dual_write_and_none_with_messages() -> None:
    few = settings(LeakyPurses.TestCase.settings, max_examples=30, stateful_step_count=5)
    with pytest.raises(AssertionError, match="== 0"):
        run_state_machine_as_test(LeakyPurses, settings=few)
    run_state_machine_as_test(Purses, settings=settings(few, max_examples=15))
