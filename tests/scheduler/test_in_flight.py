"""In-flight deliveries: their limit, and the alarms that they stand for."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_durable._keys import AlarmKey
from trio_durable.scheduler._delivery import in_flight as module
from trio_durable.scheduler._delivery.in_flight import (
    MAX_IN_FLIGHT,
    MAX_PER_OBJECT,
    MAX_RECENT,
    MAX_RECENT_BESIDE_CALLS,
    RECENT_SECONDS,
    InFlight,
    InFlightDeliveries,
)

CLAIM = 7


def flight(name: object, of: str = "id") -> InFlight:
    return InFlight(lambda ended: None, AlarmKey("Type", of, str(name)), CLAIM)


def begun(
    flights: InFlightDeliveries, count: int, now: float = 0.0, of: str = ""
) -> list[InFlight]:
    """So many flights, each of another object."""
    new = [flight(number, f"{of}{number}") for number in range(count)]
    for each in new:
        flights.add(each, now)
    return new


# --- what is under way ---------------------------------------------------------------------------


def test_a_flight_is_under_way_until_it_is_removed() -> None:
    flights = InFlightDeliveries()
    one = flight("a")
    assert one.key not in flights
    assert len(flights) == 0
    flights.add(one, 1.5)
    assert one.key in flights
    assert flights.find(one.key) is one
    assert list(flights) == list(flights.of_object(one.key.owner)) == [one]
    assert (len(flights), one.began, one.delivery.claim) == (1, 1.5, CLAIM)
    flights.handled(one)
    # It may still have to be written down.
    assert one.key in flights
    assert len(flights) == 1
    flights.remove(one)
    assert one.key not in flights
    assert flights.find(one.key) is None
    assert list(flights) == list(flights.of_object(one.key.owner)) == []
    assert len(flights) == 0


def test_removing_twice_is_removing_once() -> None:
    flights = InFlightDeliveries()
    one, other = flight("a"), flight("b")
    flights.add(one, 0)
    flights.add(other, 0)
    for _ in range(3):
        flights.handled(one)
        flights.remove(one)
    flights.remove(flight("c", "nobody"))
    assert len(flights) == 1
    assert flights.room(0, are_calls=False) == MAX_RECENT - 1


def test_a_flight_that_was_released_ends_once() -> None:
    ended: list[InFlight] = []
    one = InFlight(ended.append, AlarmKey("Type", "id", "a"), CLAIM)
    one.settle()
    one.fail(ValueError("too late"))
    assert ended == [one]
    assert one.error is None


def test_whose_an_alarm_is() -> None:
    assert AlarmKey("Type", "id", "name", "acme").owner == ("Type", "id", "acme")


@pytest.mark.parametrize("mark", ["superseded", "acknowledged"])
def test_a_flight_that_is_not_current_does_not_stand_for_its_alarm(mark: str) -> None:
    flights = InFlightDeliveries()
    one = flight("a")
    flights.add(one, 0)
    setattr(one.delivery, mark, True)
    # So the alarm as it was set since can be taken.
    assert one.key not in flights
    # And yet it is under way: what commits find, what takes its claim and its object's time.
    assert list(flights) == [one]
    assert list(flights.of_object(one.key.owner)) == [one]
    assert len(flights) == 1


def test_a_later_flight_stands_for_the_alarm_and_both_are_under_way() -> None:
    flights = InFlightDeliveries()
    first, second = flight("a"), flight("a")
    flights.add(first, 0)
    flights.add(second, 1)
    assert first.delivery.superseded
    assert not second.delivery.superseded
    assert flights.find(first.key) is second
    assert len(flights) == 2
    assert list(flights.of_object(first.key.owner)) == [first, second]
    flights.remove(first)
    assert second.key in flights
    flights.remove(second)
    assert second.key not in flights
    assert len(flights) == 0


def test_a_flight_that_was_acknowledged_is_not_superseded_by_the_next() -> None:
    # Its commit is durable, whatever comes after.
    flights = InFlightDeliveries()
    first = flight("a")
    first.delivery.acknowledged = True
    flights.add(first, 0)
    flights.add(flight("a"), 0)
    assert not first.delivery.superseded


def test_the_later_flight_may_end_first() -> None:
    flights = InFlightDeliveries()
    first, second = flight("a"), flight("a")
    flights.add(first, 0)
    flights.add(second, 0)
    flights.remove(second)
    assert first.key not in flights
    assert list(flights) == [first]
    flights.remove(first)
    assert list(flights) == []


# --- of one object -------------------------------------------------------------------------------


def test_an_object_is_full_with_so_many_of_whatever_state() -> None:
    flights = InFlightDeliveries()
    mine = [flight(number) for number in range(MAX_PER_OBJECT)]
    for each in mine:
        assert not flights.is_full(each.key.owner)
        flights.add(each, 0)
    assert flights.is_full(("Type", "id", ""))
    assert not flights.is_full(("Type", "another", ""))
    assert not flights.is_full(("Other", "id", ""))
    # What waits to be written down or was superseded still counts, however long it takes.
    mine[0].delivery.superseded = True
    flights.handled(mine[1])
    flights.room(1000, are_calls=False)
    assert flights.is_full(("Type", "id", ""))
    flights.remove(mine[0])
    assert not flights.is_full(("Type", "id", ""))


# --- how many more -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("are_calls", "most"), [(False, MAX_RECENT), (True, MAX_RECENT_BESIDE_CALLS)]
)
def test_what_began_just_now_is_bounded(are_calls: bool, most: int) -> None:
    flights = InFlightDeliveries()
    assert flights.room(0, are_calls=are_calls) == most
    new = begun(flights, most)
    assert flights.room(0, are_calls=are_calls) == 0
    flights.handled(new[0])
    assert flights.room(0, are_calls=are_calls) == 1
    # Removing it as well makes no more room.
    flights.remove(new[0])
    flights.remove(new[1])
    assert flights.room(0, are_calls=are_calls) == 2


def test_there_is_no_room_while_calls_begin_and_more_is_under_way() -> None:
    flights = InFlightDeliveries()
    begun(flights, MAX_RECENT_BESIDE_CALLS + 5)
    assert flights.room(0, are_calls=True) == 0
    assert flights.room(0, are_calls=False) == MAX_RECENT - MAX_RECENT_BESIDE_CALLS - 5


def test_what_takes_a_while_makes_room_for_others() -> None:
    flights = InFlightDeliveries()
    slow = begun(flights, 10, now=0.0, of="a")
    begun(flights, 5, now=RECENT_SECONDS / 2, of="b")
    assert flights.room(RECENT_SECONDS * 0.99, are_calls=False) == MAX_RECENT - 15
    assert flights.room(RECENT_SECONDS, are_calls=False) == MAX_RECENT - 5
    # Ended ones made their room already.
    for each in slow:
        flights.handled(each)
        flights.remove(each)
    assert flights.room(RECENT_SECONDS, are_calls=False) == MAX_RECENT - 5
    assert flights.room(RECENT_SECONDS * 2, are_calls=False) == MAX_RECENT
    assert len(flights) == 5


def test_there_is_an_end_to_the_slow_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_IN_FLIGHT > MAX_RECENT
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", 20)
    flights = InFlightDeliveries()
    slow = begun(flights, 18)
    assert flights.room(10, are_calls=False) == 2
    more = begun(flights, 2, now=10, of="b")
    assert flights.room(20, are_calls=False) == 0
    flights.handled(more[0])
    assert flights.room(20, are_calls=False) == 0
    flights.remove(slow[0])
    assert flights.room(20, are_calls=False) == 1


# --- in any order --------------------------------------------------------------------------------


class AgainstAList(RuleBasedStateMachine):
    """What is under way is a list; everything else follows from that."""

    def __init__(self) -> None:
        super().__init__()
        self.in_flight = InFlightDeliveries()
        self.model: list[InFlight] = []
        self.recent: list[InFlight] = []
        self.latest: dict[AlarmKey, InFlight] = {}
        self.now = 0.0

    @rule(name=st.integers(0, 5), of=st.sampled_from("ab"))
    def add(self, name: int, of: str) -> None:
        new = flight(name, of)
        self.in_flight.add(new, self.now)
        self.model.append(new)
        self.recent.append(new)
        self.latest[new.key] = new

    @precondition(lambda self: self.model)
    @rule(nth=st.integers(0, 30), mark=st.sampled_from(["superseded", "acknowledged"]))
    def mark(self, nth: int, mark: str) -> None:
        setattr(self.model[nth % len(self.model)].delivery, mark, True)

    @precondition(lambda self: self.model)
    @rule(nth=st.integers(0, 30), is_released=st.booleans())
    def land(self, nth: int, is_released: bool) -> None:
        one = self.model[nth % len(self.model)]
        if is_released:
            one.settle()
        self.in_flight.handled(one)
        self.recent = [each for each in self.recent if each is not one]

    @precondition(lambda self: self.model)
    @rule(nth=st.integers(0, 30))
    def remove(self, nth: int) -> None:
        one = self.model.pop(nth % len(self.model))
        self.in_flight.remove(one)
        self.recent = [each for each in self.recent if each is not one]
        if self.latest.get(one.key) is one:
            del self.latest[one.key]

    @rule(step=st.sampled_from([RECENT_SECONDS / 4, RECENT_SECONDS, 1.0]))
    def let_time_pass(self, step: float) -> None:
        self.now += step

    @invariant()
    def all_and_only_what_is_under_way_is_known(self) -> None:
        assert len(self.in_flight) == len(self.model)
        assert {id(each) for each in self.in_flight} == {id(each) for each in self.model}
        for of in "ab":
            mine = [each for each in self.model if each.key.object_id == of]
            assert list(self.in_flight.of_object(("Type", of, ""))) == mine
            assert self.in_flight.is_full(("Type", of, "")) == (len(mine) >= MAX_PER_OBJECT)
            for name in range(6):
                key = AlarmKey("Type", of, str(name))
                latest = self.latest.get(key)
                assert self.in_flight.find(key) is latest
                assert (key in self.in_flight) == (
                    latest is not None and latest.delivery.is_current
                )

    @invariant()
    def one_flight_at_most_is_current_for_an_alarm(self) -> None:
        current = [each.key for each in self.model if each.delivery.is_current]
        assert len(current) == len(set(current))

    @invariant()
    def room_is_what_the_recent_ones_leave(self) -> None:
        recent = sum(each.began > self.now - RECENT_SECONDS for each in self.recent)
        assert self.in_flight.room(self.now, are_calls=False) == MAX_RECENT - recent
        beside_calls = max(0, MAX_RECENT_BESIDE_CALLS - recent)
        assert self.in_flight.room(self.now, are_calls=True) == beside_calls


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
