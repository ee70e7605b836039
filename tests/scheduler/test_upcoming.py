"""The agenda against a table of alarms that changes while it is read, and in a scheduler's loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_durable._keys import AlarmKey, Owner
from trio_durable.scheduler._wheel.upcoming import Agenda
from trio_durable.storage import DueAlarm

MS = 1000
SECOND = 1_000_000
START = 1_790_000_000 * SECOND
TTL = 60 * SECOND


def key(name: object, of: str = "id") -> AlarmKey:
    return AlarmKey("Type", of, str(name))


def never(object_id: Owner) -> bool:
    return False


def always(object_id: Owner) -> bool:
    return True


def taken(agenda: Agenda, most: int) -> list[AlarmKey]:
    """Take so many, or all, of objects that are never full."""
    keys: list[AlarmKey] = []
    while len(keys) < most and (each := agenda.take(never)) is not None:
        keys.append(each)
    return keys


def due(*alarms: tuple[object, int]) -> list[DueAlarm]:
    return [DueAlarm(at, key(name)) for name, at in alarms]


def names(keys: Iterable[AlarmKey]) -> list[str]:
    return [each.name for each in keys]


def filled(agenda: Agenda, horizon: int, *alarms: tuple[object, int]) -> bool:
    agenda.begin_fill(horizon)
    has_room = agenda.fill(due(*alarms), ())
    agenda.end_fill()
    return has_room


# --- one by one ----------------------------------------------------------------------------------


def test_a_new_agenda_knows_nothing_and_wants_to_look() -> None:
    agenda = Agenda(START, 8)
    assert len(agenda) == agenda.ready == 0
    assert agenda.wants_more
    assert agenda.next_time() is None
    assert agenda.take(never) is None


def test_nothing_is_kept_before_the_first_look() -> None:
    # The look will find it in the table.
    agenda = Agenda(START, 8)
    assert not agenda.arm(key("a"), START + SECOND)
    assert key("a") not in agenda


def test_what_is_before_the_horizon_is_kept() -> None:
    agenda = Agenda(START, 8)
    agenda.begin_fill(START + 10 * SECOND)
    agenda.end_fill()
    assert not agenda.wants_more
    assert agenda.arm(key("a"), START + 10 * SECOND - 1)
    assert key("a") in agenda
    assert not agenda.arm(key("b"), START + 10 * SECOND)
    assert key("b") not in agenda


def test_an_alarm_moved_beyond_the_horizon_is_forgotten() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, ("a", START + MS))
    assert not agenda.arm(key("a"), START + 2 * SECOND)
    agenda.advance(START + SECOND)
    assert taken(agenda, 5) == []


def test_an_alarm_moved_while_it_is_ready_is_ready_no_more() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, ("a", START))
    agenda.advance(START)
    assert agenda.ready == 1
    assert agenda.arm(key("a"), START + 5 * MS)
    assert agenda.ready == 0
    assert len(agenda) == 1
    agenda.advance(START + 5 * MS)
    assert names(taken(agenda, 5)) == ["a"]


def test_nothing_is_ready_a_microsecond_too_early() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, ("a", START + MS + 1))
    agenda.advance(START + 2 * MS - 1)
    assert agenda.ready == 0
    assert agenda.next_time() == START + 2 * MS
    agenda.advance(START + 2 * MS)
    assert agenda.ready == 1


def test_what_is_ready_is_taken_oldest_first() -> None:
    agenda = Agenda(START, 8)
    times = [("d", 3), ("a", -5), ("c", 2), ("b", -1)]
    for name, at in times:
        agenda.begin_fill(START + SECOND)
        agenda.end_fill()
        agenda.arm(key(name), START + at * MS)
    agenda.advance(START + SECOND)
    assert names(taken(agenda, 3)) == ["a", "b", "c"]
    assert names(taken(agenda, 3)) == ["d"]
    assert taken(agenda, 3) == []


def test_what_is_put_back_comes_first_and_in_its_order() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, ("a", START), ("b", START + MS), ("c", START + 2 * MS))
    agenda.advance(START + SECOND)
    agenda.put_back(taken(agenda, 2))
    assert agenda.ready == 3
    assert names(taken(agenda, 3)) == ["a", "b", "c"]


def test_years_before_1970_are_past_too() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, ("a", -62_135_596_800 * SECOND))
    agenda.advance(START)
    assert names(taken(agenda, 1)) == ["a"]


# --- reading while things change -----------------------------------------------------------------


def test_what_changed_while_the_table_was_read_wins_over_what_was_read() -> None:
    agenda = Agenda(START, 8)
    agenda.begin_fill(START + 10 * SECOND)
    agenda.disarm(key("cancelled"))
    agenda.arm(key("moved"), START + 5 * SECOND)
    agenda.arm(key("moved away"), START + 20 * SECOND)
    read = due(("cancelled", START), ("moved", START), ("moved away", START), ("same", START))
    assert agenda.fill(read, ())
    agenda.end_fill()
    agenda.advance(START + SECOND)
    assert names(taken(agenda, 9)) == ["same"]
    agenda.advance(START + 5 * SECOND)
    assert names(taken(agenda, 9)) == ["moved"]
    assert len(agenda) == 0


def test_changes_between_two_pages_count_for_the_second() -> None:
    agenda = Agenda(START, 8)
    agenda.begin_fill(START + 10 * SECOND)
    agenda.fill(due(("a", START)), ())
    agenda.disarm(key("b"))
    agenda.fill(due(("b", START + 1)), ())
    agenda.end_fill()
    assert key("a") in agenda
    assert key("b") not in agenda


def test_the_next_look_trusts_the_table_again() -> None:
    agenda = Agenda(START, 8)
    agenda.begin_fill(START + 10 * SECOND)
    agenda.disarm(key("a"))
    agenda.end_fill()
    filled(agenda, START + 10 * SECOND, ("a", START))
    assert key("a") in agenda


def test_what_another_process_moved_is_moved_by_the_next_look() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + 10 * SECOND, ("a", START + 9 * SECOND))
    filled(agenda, START + 10 * SECOND, ("a", START + SECOND))
    assert len(agenda) == 1
    agenda.advance(START + SECOND)
    assert names(taken(agenda, 1)) == ["a"]


def test_what_is_taken_or_ready_is_not_taken_up_again() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + 10 * SECOND, ("ready", START), ("taken", START))
    agenda.advance(START)
    agenda.disarm(key("taken"))
    agenda.begin_fill(START + 10 * SECOND)
    read = due(("taken", START), ("ready", START))
    agenda.fill(read, {key("taken")})
    agenda.end_fill()
    assert names(taken(agenda, 5)) == ["ready"]
    assert len(agenda) == 0


def test_a_look_corrects_what_is_ready_too_early() -> None:
    """As when one that is under way is set anew for later, and then put back as it was."""
    agenda = Agenda(START, 10)
    filled(agenda, START + 10 * SECOND)
    agenda.arm(key("a"), START - SECOND)
    agenda.advance(START)
    filled(agenda, START + 60 * SECOND, ("a", START + 30 * MS))
    assert taken(agenda, 1) == []
    agenda.advance(START + 30 * MS)
    assert names(taken(agenda, 1)) == ["a"]


def test_what_is_parked_takes_the_place_of_what_a_look_corrects() -> None:
    """The room that was made is its own now; nothing may come that would make more."""
    agenda = Agenda(START, 10)
    filled(agenda, START + 10 * SECOND)
    for name in ("a", "b"):
        agenda.arm(key(name), START - SECOND)
    agenda.advance(START)
    assert agenda.take(lambda _: True) is None
    agenda.unpark(key("a").owner)
    filled(agenda, START + 60 * SECOND, ("a", START + SECOND))
    assert names(taken(agenda, 2)) == ["b"]


# --- ahead of time -------------------------------------------------------------------------------


def test_what_is_available_within_the_lead_is_ready() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, ("a", START + 10 * MS), ("b", START + 10 * MS + 1))
    agenda.advance(START, 10 * MS - 1)
    assert agenda.ready == 0
    assert agenda.reached == START + 9 * MS
    agenda.advance(START, 10 * MS)
    assert agenda.reached == START + 10 * MS
    assert names(taken(agenda, 5)) == ["a"]
    assert agenda.next_time() == START + 11 * MS


def test_a_shorter_lead_takes_nothing_back() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, ("a", START + 10 * MS))
    agenda.advance(START, 20 * MS)
    agenda.advance(START + MS, 0)
    assert agenda.now == START + MS
    # Who claims what is ready must know how far ahead of time that is.
    assert agenda.reached == START + 20 * MS
    assert agenda.arm(key("b"), START + 15 * MS)
    agenda.advance(START + 2 * MS, 0)
    assert names(taken(agenda, 5)) == ["a", "b"]


def test_a_clock_set_back_by_less_than_the_lead_counts() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, ("a", START + 10 * MS))
    agenda.advance(START, 20 * MS)
    agenda.advance(START - MS, 20 * MS)
    assert agenda.ready == 0
    assert agenda.wants_more


def test_the_next_time_is_a_horizon_that_was_drawn_in_if_that_is_nearer() -> None:
    agenda = Agenda(START, 2)
    filled(agenda, START + 60 * SECOND, ("a", START + SECOND), ("b", START + 2 * SECOND))
    agenda.advance(START)
    assert not agenda.arm(key("c"), START + 3 * SECOND)
    agenda.disarm(key("a"))
    agenda.disarm(key("b"))
    # Nobody else knows of the third.
    assert agenda.next_time() == agenda.horizon == START + 3 * SECOND
    filled(agenda, START + 60 * SECOND)
    assert agenda.next_time() is None


def test_a_horizon_in_the_past_is_no_time_to_wait_for() -> None:
    agenda = Agenda(START, 2)
    filled(agenda, START + 60 * SECOND, *[(number, START) for number in range(3)])
    agenda.advance(START)
    # There may be no room for those that are ready, and the third has to wait for them.
    assert agenda.ready == 2
    assert agenda.is_cut
    time = agenda.next_time()
    assert time is None or time > START


# --- hints ---------------------------------------------------------------------------------------


def hinted(*times: int) -> Agenda:
    """An agenda whose horizon is an hour away, after hints of these times."""
    agenda = Agenda(START, 10)
    filled(agenda, START + 3600 * SECOND)
    for time in times:
        agenda.hint(time)
    return agenda


def test_a_look_is_wanted_a_moment_before_the_earliest_time_that_was_hinted_at() -> None:
    agenda = hinted(START + 70 * SECOND, START + 10 * SECOND, START + 20 * SECOND)
    assert not agenda.wants_more
    assert agenda.next_time() == START + 10 * SECOND - 250 * MS
    agenda.advance(START + 10 * SECOND - 251 * MS)
    assert not agenda.wants_more
    agenda.advance(START + 10 * SECOND - 250 * MS)
    assert agenda.wants_more
    # Who sleeps until there is something to do doesn't wake again and again until it is done.
    assert agenda.next_time() is None


def test_a_hint_of_a_time_that_has_come_wants_a_look_at_once() -> None:
    for time in (START, START - SECOND, 0):
        agenda = hinted(time)
        assert agenda.wants_more
        assert agenda.next_time() is None


def test_a_look_answers_the_hints_that_came_before_it_and_not_those_that_come_during_it() -> None:
    agenda = hinted(START + SECOND)
    agenda.begin_fill(START + 3600 * SECOND)
    assert agenda.next_time() is None
    agenda.hint(START + 5 * SECOND)
    agenda.end_fill()
    assert agenda.next_time() == START + 5 * SECOND - 250 * MS


def test_a_hint_of_what_is_beyond_the_horizon_is_left_to_the_look_that_moves_it() -> None:
    assert hinted(START + 3600 * SECOND).next_time() is None
    assert hinted(START + 3600 * SECOND - 1).next_time() is not None


def test_a_hint_before_the_first_look_is_left_to_that() -> None:
    agenda = Agenda(START, 10)
    agenda.hint(START + SECOND)
    assert agenda.wants_more
    filled(agenda, START + 60 * SECOND)
    assert not agenda.wants_more
    assert agenda.next_time() is None


def test_a_hint_is_looked_after_as_far_ahead_as_alarms_are_claimed() -> None:
    agenda = hinted(START + SECOND)
    agenda.advance(START + 735 * MS, 15 * MS)
    assert agenda.wants_more


def test_what_comes_before_a_hint_comes_first() -> None:
    agenda = hinted(START + 10 * SECOND)
    agenda.arm(key("a"), START + 3 * MS)
    assert agenda.next_time() == START + 3 * MS
    agenda.disarm(key("a"))
    agenda.arm(key("a"), START + 30 * SECOND)
    assert agenda.next_time() == START + 10 * SECOND - 250 * MS


# --- parking -------------------------------------------------------------------------------------


def test_alarms_of_full_objects_are_passed_over() -> None:
    agenda = Agenda(START, 8)
    agenda.begin_fill(START + SECOND)
    agenda.end_fill()
    for number, of in enumerate("aabab"):
        agenda.arm(key(number, of), START + number * MS)
    agenda.advance(START + SECOND)
    full = {("Type", "a", "")}
    assert agenda.take(full.__contains__) == key(2, "b")
    assert agenda.take(full.__contains__) == key(4, "b")
    assert agenda.take(full.__contains__) is None
    # They are not ready, or the loop would try again and again.
    assert agenda.ready == 0
    assert len(agenda) == 3
    assert all(key(number, "a") in agenda for number in (0, 1, 3))


def test_each_unparking_lets_one_be_taken_oldest_first() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, *[(number, START + number * MS) for number in range(4)])
    agenda.advance(START + SECOND)
    assert agenda.take(always) is None
    for number in range(4):
        assert agenda.take(never) is None
        agenda.unpark(("Type", "id", ""))
        assert agenda.ready == 1
        assert agenda.take(never) == key(number)
    assert len(agenda) == 0
    agenda.unpark(("Type", "id", ""))
    assert agenda.take(never) is None


def test_what_is_parked_is_of_one_object_only() -> None:
    agenda = Agenda(START, 8)
    agenda.begin_fill(START + SECOND)
    agenda.end_fill()
    agenda.arm(key("x", "a"), START)
    agenda.advance(START)
    assert agenda.take(always) is None
    agenda.unpark(("Type", "b", ""))
    agenda.unpark(("Other", "a", ""))
    assert agenda.ready == 0
    assert key("x", "b") not in agenda
    agenda.disarm(key("x", "b"))
    agenda.disarm(key("y", "a"))
    assert key("x", "a") in agenda


def test_what_is_unparked_in_vain_is_parked_again() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, ("x", START), ("y", START + MS))
    agenda.advance(START + SECOND)
    assert agenda.take(always) is None
    agenda.unpark(("Type", "id", ""))
    assert agenda.take(always) is None
    assert len(agenda) == 2
    agenda.unpark(("Type", "id", ""))
    agenda.unpark(("Type", "id", ""))
    assert sorted(names(taken(agenda, 5))) == ["x", "y"]


def test_a_parked_alarm_that_is_cancelled_is_gone() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + SECOND, ("x", START), ("y", START + MS), ("z", START + 2 * MS))
    agenda.advance(START + SECOND)
    assert agenda.take(always) is None
    agenda.disarm(key("x"))
    agenda.disarm(key("z"))
    assert key("x") not in agenda
    assert len(agenda) == 1
    # The first of what is left.
    agenda.unpark(("Type", "id", ""))
    assert names(taken(agenda, 5)) == ["y"]
    assert len(agenda) == 0


def test_a_parked_alarm_that_is_set_anew_is_ready_at_its_new_time_only() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + 60 * SECOND, ("x", START))
    agenda.advance(START)
    assert agenda.take(always) is None
    assert agenda.arm(key("x"), START + 5 * SECOND)
    assert len(agenda) == 1
    agenda.unpark(("Type", "id", ""))
    assert agenda.ready == 0
    assert agenda.next_time() is not None
    agenda.advance(START + 5 * SECOND)
    assert names(taken(agenda, 5)) == ["x"]


def test_what_is_parked_is_not_taken_up_again() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + 60 * SECOND, ("x", START))
    agenda.advance(START)
    assert agenda.take(always) is None
    filled(agenda, START + 60 * SECOND, ("x", START))
    assert len(agenda) == 1
    agenda.advance(START + SECOND)
    assert agenda.ready == 0


def test_what_is_parked_takes_room() -> None:
    agenda = Agenda(START, 4)
    alarms = [(number, START + number * MS) for number in range(6)]
    assert not filled(agenda, START + 60 * SECOND, *alarms)
    agenda.advance(START + SECOND)
    assert agenda.take(always) is None
    assert len(agenda) == 4
    assert agenda.horizon == START + 4 * MS
    # Nothing of it is far away, so nothing can be displaced.
    assert not agenda.arm(key("another", "b"), START - SECOND)
    assert len(agenda) == 4
    assert all(key(number) in agenda for number in range(4))
    # Nor is there room before some of it is gone.
    for _ in range(2):
        agenda.unpark(("Type", "id", ""))
        assert agenda.take(never)
    assert agenda.wants_more
    assert filled(agenda, START + 60 * SECOND, *alarms[4:])
    assert len(agenda) == 4


def test_what_is_parked_is_forgotten_with_all_else_when_the_clock_is_set_back() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + 60 * SECOND, ("x", START))
    agenda.advance(START)
    assert agenda.take(always) is None
    agenda.advance(START - SECOND)
    assert len(agenda) == 0
    assert key("x") not in agenda
    agenda.unpark(("Type", "id", ""))
    assert agenda.ready == 0
    filled(agenda, START + 60 * SECOND, ("x", START))
    agenda.advance(START)
    assert names(taken(agenda, 5)) == ["x"]


@pytest.mark.parametrize("is_set_anew", [False, True])
def test_an_alarm_that_is_cancelled_when_it_was_unparked_leaves_its_turn_to_the_next(
    is_set_anew: bool,
) -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + 60 * SECOND, ("x", START), ("y", START))
    agenda.advance(START)
    assert agenda.take(always) is None
    # The last flight of the object is settled, so nothing will be unparked any more.
    agenda.unpark(("Type", "id", ""))
    if is_set_anew:
        agenda.arm(key("x"), START + 30 * SECOND)
    else:
        agenda.disarm(key("x"))
    assert names(taken(agenda, 5)) == ["y"]


# --- where room is short -------------------------------------------------------------------------


def test_a_full_agenda_draws_its_horizon_in_to_what_it_could_not_take() -> None:
    agenda = Agenda(START, 2)
    alarms = [(number, START + number * SECOND) for number in range(1, 5)]
    assert not filled(agenda, START + 60 * SECOND, *alarms)
    assert len(agenda) == 2
    assert agenda.is_cut
    assert agenda.horizon <= START + 3 * SECOND
    assert key(1) in agenda
    assert key(2) in agenda
    assert not agenda.wants_more


def test_a_nearer_alarm_displaces_what_is_far_away() -> None:
    agenda = Agenda(START, 2)
    filled(agenda, START + 60 * SECOND, ("far", START + 50 * SECOND), ("near", START + MS))
    assert agenda.arm(key("nearer"), START + 2 * MS)
    assert len(agenda) == 2
    assert key("far") not in agenda
    assert agenda.horizon <= START + 50 * SECOND
    assert agenda.is_cut
    # And what is set for a time beyond the horizon from now on is left to the next look.
    assert not agenda.arm(key("farther"), START + 51 * SECOND)


@pytest.mark.parametrize(("capacity", "dropped"), [(15, 1), (16, 2), (100, 7)])
def test_a_sixteenth_of_a_full_agenda_makes_room_at_once(capacity: int, dropped: int) -> None:
    # It takes time to find what is farthest.
    agenda = Agenda(START, capacity)
    at = {key(number): START + (100 + number) * SECOND for number in range(capacity)}
    alarms = [(each.name, time) for each, time in at.items()]
    filled(agenda, START + 1000 * SECOND, *reversed(alarms))
    assert not agenda.is_cut
    assert agenda.arm(key("nearer"), START + SECOND)
    assert [each for each in at if each not in agenda] == list(at)[capacity - dropped :]
    # What was dropped is not before the horizon, what is left is.
    assert at[key(capacity - dropped - 1)] < agenda.horizon <= at[key(capacity - dropped)]
    for number in range(dropped - 1):
        assert agenda.arm(key("nearer", str(number)), START + SECOND)
    assert len(agenda) == capacity
    assert key(capacity - dropped - 1) in agenda


def test_only_what_is_farther_makes_room() -> None:
    agenda = Agenda(START, 64)
    alarms = [(number, START + (100 + number) * SECOND) for number in range(64)]
    filled(agenda, START + 1000 * SECOND, *alarms)
    assert agenda.arm(key("nearer"), alarms[62][1])
    assert len(agenda) == 64
    assert key(63) not in agenda
    assert key(62) in agenda
    assert alarms[62][1] < agenda.horizon <= alarms[63][1]


def test_a_farther_alarm_does_not_displace_what_is_near() -> None:
    agenda = Agenda(START, 2)
    filled(agenda, START + 60 * SECOND, ("a", START + MS), ("b", START + 2 * MS))
    assert not agenda.arm(key("far"), START + 50 * SECOND)
    assert key("a") in agenda
    assert key("b") in agenda
    assert agenda.horizon == START + 50 * SECOND


def test_what_is_due_is_never_displaced() -> None:
    agenda = Agenda(START, 2)
    filled(agenda, START + SECOND, ("a", START - 2 * MS), ("b", START - MS))
    agenda.advance(START)
    assert not agenda.arm(key("c"), START - 3 * MS)
    assert names(taken(agenda, 5)) == ["a", "b"]
    assert agenda.wants_more


def test_an_alarm_that_is_moved_needs_no_more_room() -> None:
    agenda = Agenda(START, 2)
    filled(agenda, START + 60 * SECOND, ("a", START + MS), ("b", START + 50 * SECOND))
    assert agenda.arm(key("a"), START + 3 * MS)
    assert key("b") in agenda
    assert not agenda.is_cut


def test_after_a_look_with_room_for_all_no_more_is_wanted() -> None:
    agenda = Agenda(START, 2)
    filled(agenda, START + 60 * SECOND, *[(number, START) for number in range(6)])
    agenda.advance(START)
    taken(agenda, 2)
    assert agenda.wants_more
    assert filled(agenda, START + 60 * SECOND, (6, START))
    assert not agenda.is_cut
    assert not agenda.wants_more


def test_a_look_that_finds_what_is_known_needs_no_more_room() -> None:
    agenda = Agenda(START, 2)
    alarms = [("a", START + MS), ("b", START + 50 * SECOND)]
    filled(agenda, START + 60 * SECOND, *alarms)
    assert filled(agenda, START + 60 * SECOND, *alarms)
    assert agenda.horizon == START + 60 * SECOND
    assert not agenda.is_cut


# A tick at which a slot of a higher level begins.
SLOT = (START // MS // 4096 + 1) * 4096


def test_what_is_as_far_as_the_farthest_displaces_nothing() -> None:
    agenda = Agenda(START, 2)
    alarms = [("a", SLOT * MS), ("b", SLOT * MS)]
    filled(agenda, START + 60 * SECOND, *alarms)
    assert not agenda.arm(key("c"), SLOT * MS)
    assert key("a") in agenda
    assert key("b") in agenda
    assert agenda.horizon == SLOT * MS


def test_the_horizon_comes_before_all_that_was_displaced() -> None:
    # Rounded up to a tick, its time is the very beginning of its slot.
    agenda = Agenda(START, 1)
    far = (SLOT - 1) * MS + 1
    filled(agenda, START + 60 * SECOND, ("far", far))
    assert agenda.arm(key("near"), START + MS)
    assert key("far") not in agenda
    assert agenda.horizon <= far


def test_a_horizon_that_was_drawn_in_is_not_moved_out_by_what_is_read_behind_it() -> None:
    agenda = Agenda(START, 2)
    agenda.begin_fill(START + 60 * SECOND)
    agenda.arm(key("far"), START + 50 * SECOND)
    agenda.arm(key("a"), START + MS)
    agenda.arm(key("b"), START + 2 * MS)
    drawn_in = agenda.horizon
    assert drawn_in <= START + 50 * SECOND
    assert not agenda.fill(due(("farther", START + 55 * SECOND)), ())
    agenda.end_fill()
    assert agenda.horizon == drawn_in


def test_more_is_wanted_when_half_of_a_cut_agenda_is_gone() -> None:
    agenda = Agenda(START, 4)
    filled(agenda, START + 60 * SECOND, *[(number, START) for number in range(6)])
    agenda.advance(START)
    assert agenda.take(never)
    # What is ready comes before what the table has yet, so there is no haste.
    assert not agenda.wants_more
    taken(agenda, 1)
    assert agenda.wants_more


def test_more_is_wanted_when_the_horizon_is_reached() -> None:
    agenda = Agenda(START, 4)
    filled(agenda, START + SECOND)
    agenda.advance(START + SECOND - 1)
    assert not agenda.wants_more
    agenda.advance(START + SECOND)
    assert agenda.wants_more


def test_the_first_of_a_crowd_at_one_tick_are_taken_and_then_the_next() -> None:
    agenda = Agenda(START, 8)
    table = {key(f"{number:02}"): START + MS for number in range(40)}
    fired: list[AlarmKey] = []
    looks = 0
    agenda.advance(START + MS)
    while table:
        if agenda.wants_more:
            looks += 1
            agenda.begin_fill(START + 60 * SECOND)
            agenda.fill([DueAlarm(at, each) for each, at in sorted(table.items())], ())
            agenda.end_fill()
            agenda.advance(START + MS)
        now = taken(agenda, 8)
        assert now, "nothing is ready though something is due"
        fired += now
        for each in now:
            del table[each]
    assert len(fired) == len(set(fired)) == 40
    assert looks <= 6


# --- the clock -----------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_begins_anew() -> None:
    agenda = Agenda(START, 8)
    filled(agenda, START + 60 * SECOND, ("a", START + SECOND), ("b", START + 30 * SECOND))
    agenda.advance(START + 2 * SECOND)
    assert agenda.ready == 1
    agenda.advance(START - 3600 * SECOND)
    # What was ready isn't any more by this clock.
    assert len(agenda) == 0
    assert agenda.now == START - 3600 * SECOND
    assert agenda.wants_more
    assert not agenda.arm(key("a"), START)
    filled(agenda, START, ("c", START - 3599 * SECOND))
    agenda.advance(START - 3599 * SECOND)
    assert names(taken(agenda, 5)) == ["c"]


def test_a_clock_set_back_while_the_table_is_read_makes_it_be_read_again() -> None:
    agenda = Agenda(START, 8)
    agenda.begin_fill(START + 60 * SECOND)
    agenda.fill(due(("a", START)), ())
    agenda.advance(START - 3600 * SECOND)
    agenda.fill(due(("b", START)), ())
    agenda.end_fill()
    assert agenda.wants_more


def test_a_clock_set_back_by_less_than_a_tick_counts() -> None:
    agenda = Agenda(START + 5, 8)
    filled(agenda, START + SECOND, ("a", START))
    agenda.advance(START + 5)
    assert agenda.ready == 1
    agenda.advance(START + 4)
    assert agenda.ready == 0
    assert agenda.wants_more


def test_a_clock_set_forward_makes_everything_due_in_order() -> None:
    agenda = Agenda(START, 100)
    alarms = [(number, START + number * 700 * MS) for number in range(80)]
    filled(agenda, START + 60 * SECOND, *alarms)
    agenda.advance(START + 365 * 86400 * SECOND)
    assert names(taken(agenda, 100)) == [str(number) for number in range(80)]
    assert agenda.wants_more


# --- against a table -----------------------------------------------------------------------------

ALARMS = [key(number, of) for number, of in enumerate("aaaaaaaabbcd")]
KEYS = st.sampled_from(ALARMS)
# From overdue by minutes to beyond any horizon, close together in places and far apart in others.
TIMES = st.one_of(
    st.integers(-3, 6).map(lambda n: n * MS // 2),
    st.integers(-100, 100).map(lambda n: n * SECOND),
    st.integers(0, 90_000).map(lambda n: n * MS),
)


@attrs.define(eq=False)
class Flight:
    """As `Deliveries` knows one."""

    key: AlarmKey
    due: int
    """What is available by then is claimed."""
    row: int | None = None
    """When it was available, if it is claimed."""
    is_current: bool = True


class UnderWay:
    """The flights, for the objects that have as many as they may and the alarms that are taken."""

    def __init__(self, of_object: int) -> None:
        self.of_object = of_object
        self.flights: list[Flight] = []

    def __contains__(self, alarm: object) -> bool:
        return any(flight.is_current for flight in self.flights if flight.key == alarm)

    def is_full(self, object_id: Owner) -> bool:
        return sum(flight.key.owner == object_id for flight in self.flights) >= self.of_object


class AgainstATable(RuleBasedStateMachine):
    """A table of alarms, read page by page while its alarms are set, cancelled and claimed.

    As in the runtime, changes reach the agenda when they are in the table, and a page may be
    older than a change when it arrives.
    """

    @initialize(
        capacity=st.sampled_from([1, 2, 3, 8, 100]),
        page=st.sampled_from([1, 2, 5]),
        of_object=st.sampled_from([1, 2, 4]),
    )
    def begin(self, capacity: int, page: int, of_object: int) -> None:
        self.now = START
        self.capacity = capacity
        self.page = page
        self.agenda = Agenda(START, capacity)
        self.table: dict[AlarmKey, int] = {}
        self.claims: dict[AlarmKey, Flight] = {}
        self.under_way = UnderWay(of_object)
        self.fill_horizon: int | None = None
        self.last: DueAlarm | None = None
        self.on_its_way: list[DueAlarm] | None = None
        self.put_back = 0
        self.look_at_once()

    # What happens in the table.

    @rule(alarm=KEYS, ahead=TIMES)
    def set_alarm(self, alarm: AlarmKey, ahead: int) -> None:
        self.table[alarm] = self.now + ahead
        self.supersede(alarm)
        before = self.agenda.horizon
        known = self.agenda.arm(alarm, self.now + ahead)
        assert known == (alarm in self.agenda)
        assert not known or self.now + ahead < before

    @rule()
    def set_a_crowd(self) -> None:
        for alarm in ALARMS:
            self.set_alarm(alarm, 0)

    @rule(alarm=KEYS)
    def cancel(self, alarm: AlarmKey) -> None:
        self.table.pop(alarm, None)
        self.supersede(alarm)
        self.agenda.disarm(alarm)
        assert alarm not in self.agenda

    @precondition(lambda self: self.agenda.ready)
    @rule(ahead=st.none() | TIMES)
    def change_what_comes_next(self, ahead: int | None) -> None:
        alarm = deepcopy(self.agenda).take(never)
        assert alarm is not None
        if ahead is None:
            self.cancel(alarm)
        else:
            self.set_alarm(alarm, ahead)

    def supersede(self, alarm: AlarmKey) -> None:
        self.claims.pop(alarm, None)
        for flight in self.under_way.flights:
            if flight.key == alarm:
                flight.is_current = False

    # What is under way.

    @rule(limit=st.integers(1, 4))
    def begin_claim(self, limit: int) -> None:
        if self.claiming():
            return
        for _ in range(limit):
            alarm = self.agenda.take(self.under_way.is_full)
            if alarm is None:
                break
            assert alarm not in self.agenda
            assert not self.under_way.is_full(alarm.owner)
            if alarm not in self.under_way:
                due = max(self.now, self.agenda.reached)
                self.under_way.flights.append(Flight(alarm, due))

    def claiming(self) -> list[Flight]:
        return [flight for flight in self.under_way.flights if flight.row is None]

    @rule()
    def claim(self) -> None:
        for flight in self.claiming():
            available_at = self.table.get(flight.key)
            if available_at is None or available_at > flight.due:
                self.settle(flight)
            else:
                # Perhaps as it was set since, if it was: then it is given back.
                flight.row = available_at
                self.table[flight.key] = flight.due + TTL
                self.claims[flight.key] = flight

    @rule()
    def claim_at_once(self) -> None:
        self.agenda.advance(self.now)
        self.begin_claim(5)
        self.claim()

    @rule()
    def fail_to_claim(self) -> None:
        claiming = self.claiming()
        for flight in claiming:
            self.settle(flight)
        keys = [flight.key for flight in claiming if flight.is_current]
        self.agenda.put_back(keys)
        self.put_back += len(keys)

    @precondition(lambda self: any(each.row is not None for each in self.under_way.flights))
    @rule(nth=st.integers(0, 9), again_after=st.none() | st.integers(0, 300))
    def end_delivery(self, nth: int, again_after: int | None) -> None:
        claimed = [each for each in self.under_way.flights if each.row is not None]
        flight = claimed[nth % len(claimed)]
        alarm = flight.key
        has_claim = self.claims.get(alarm) is flight
        if has_claim:
            del self.claims[alarm]
        if flight.is_current and again_after is None:
            del self.table[alarm]
            self.agenda.disarm(alarm)
            self.settle(flight)
            return
        assert flight.row is not None
        again_at = flight.row
        if flight.is_current and again_after:
            again_at = self.now + again_after * SECOND
        if has_claim:
            self.table[alarm] = again_at
        self.settle(flight)
        if alarm not in self.agenda:
            self.agenda.arm(alarm, again_at)

    def settle(self, flight: Flight) -> None:
        self.under_way.flights.remove(flight)
        self.agenda.unpark(flight.key.owner)

    # Reading it.

    @precondition(lambda self: self.fill_horizon is None)
    @rule(reach=st.sampled_from([5 * MS, 10 * SECOND, 60 * SECOND]))
    def begin_look(self, reach: int) -> None:
        self.fill_horizon = self.now + reach
        self.last = None
        self.on_its_way = None
        self.agenda.begin_fill(self.fill_horizon)

    @precondition(lambda self: self.fill_horizon is not None and self.on_its_way is None)
    @rule()
    def read_page(self) -> None:
        assert self.fill_horizon is not None
        rows = sorted((at, each) for each, at in self.table.items() if at < self.fill_horizon)
        if self.last is not None:
            rows = [row for row in rows if row > (self.last.available_at, self.last.key)]
        self.on_its_way = [DueAlarm(*row) for row in rows[: self.page]]

    @precondition(lambda self: self.on_its_way is not None)
    @rule()
    def page_arrives(self) -> None:
        page, self.on_its_way = self.on_its_way, None
        assert page is not None
        has_room = self.agenda.fill(page, self.under_way)
        if has_room and len(page) == self.page:
            self.last = page[-1]
        else:
            self.agenda.end_fill()
            self.fill_horizon = None

    @precondition(lambda self: self.fill_horizon is not None)
    @rule()
    def end_look(self) -> None:
        while self.fill_horizon is not None:
            if self.on_its_way is None:
                self.read_page()
            self.page_arrives()

    @precondition(lambda self: self.fill_horizon is None)
    @rule()
    def look_at_once(self) -> None:
        self.begin_look(60 * SECOND)
        self.end_look()

    # Time.

    @rule(step=TIMES.filter(lambda step: step >= 0), lead=st.sampled_from([0, 0, 1500, 20 * MS]))
    def let_time_pass(self, step: int, lead: int) -> None:
        self.now += step
        self.agenda.advance(self.now, lead)
        assert self.agenda.reached > self.now - MS

    @rule()
    def sleep(self) -> None:
        time = self.agenda.next_time()
        if time is not None:
            self.now = max(self.now, time)
            self.agenda.advance(self.now)

    # Seldom, because little is known after that.
    @rule(step=st.sampled_from([1, SECOND, 1000 * SECOND]), chance=st.integers(0, 9))
    def set_clock_back(self, step: int, chance: int) -> None:
        if chance == 9:
            self.now -= step
            self.agenda.advance(self.now)
            self.put_back = 0

    @rule(ahead=TIMES)
    def hint(self, ahead: int) -> None:
        self.agenda.hint(self.now + ahead)

    # What holds.

    def known_before_the_horizon(self) -> set[AlarmKey]:
        """What the agenda should know. While the table is being read, nothing is promised."""
        if self.fill_horizon is not None:
            return set()
        return {
            each
            for each, at in self.table.items()
            if at < self.agenda.horizon and each not in self.under_way and each not in self.claims
        }

    @invariant()
    def everything_before_the_horizon_is_known(self) -> None:
        missing = [each for each in self.known_before_the_horizon() if each not in self.agenda]
        assert not missing

    @rule()
    def everything_before_the_horizon_is_ready_in_time(self) -> None:
        self.check_readiness()

    def check_readiness(self) -> None:
        promised = self.known_before_the_horizon()
        later, under_way = deepcopy(self.agenda), deepcopy(self.under_way)
        came = drained(later, under_way)
        for at in sorted({self.table[each] for each in promised}):
            later.advance(max(-(-at // MS) * MS, later.now))
            came |= drained(later, under_way)
            assert {each for each in promised if self.table[each] <= at} <= came
        # Neither is anything else here forgotten.
        later.advance(later.now + 10**6 * SECOND)
        came |= drained(later, under_way)
        assert len(later) == 0

    @invariant()
    def no_more_is_known_than_there_is_room_for(self) -> None:
        # What is put back was in its place before, which something else may have by now.
        assert len(self.agenda) <= self.capacity + self.put_back
        assert self.agenda.ready <= len(self.agenda)

    @invariant()
    def nothing_is_missed_by_sleeping(self) -> None:
        time = self.agenda.next_time()
        if time is not None:
            sleeping = deepcopy(self.agenda)
            ready = sleeping.ready
            sleeping.advance(max(sleeping.now, time - MS))
            assert sleeping.ready == ready or time <= self.agenda.reached
        # Asleep means that nothing is waiting to be taken or looked for.
        elif not self.agenda.ready and not self.agenda.wants_more:
            known = self.known_before_the_horizon()
            # What is parked waits for what is under way.
            busy = {flight.key.owner for flight in self.under_way.flights}
            assert {each.owner for each in known} <= busy

    def teardown(self) -> None:
        if hasattr(self, "agenda"):
            self.check_readiness()


def drained(agenda: Agenda, under_way: UnderWay) -> set[AlarmKey]:
    """What comes if there is always time for it, and all that is under way ends."""
    came: set[AlarmKey] = set()
    while True:
        while (alarm := agenda.take(under_way.is_full)) is not None:
            came.add(alarm)
            under_way.flights.append(Flight(alarm, 0))
        if not under_way.flights:
            return came
        agenda.unpark(under_way.flights.pop(0).key.owner)


TestAgainstATable = AgainstATable.TestCase
TestAgainstATable.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, report_multiple_bugs=False
)


# --- in a scheduler's loop -----------------------------------------------------------------------


@attrs.define
class Simulation:
    """What `WheelScheduler` does with an agenda, without tasks: a look takes no time."""

    capacity: int
    room: int
    """How many may be under way at a time."""
    page: int
    polling_interval: int = 30 * SECOND
    now: int = START
    of_object: int = 4
    """How many of one object may be."""
    takes: Callable[[AlarmKey], int] = lambda alarm: 0
    """How long one is under way."""
    table: dict[AlarmKey, int] = attrs.field(factory=dict)
    fired: dict[AlarmKey, int] = attrs.field(factory=dict)
    """Alarms and when they fired, in that order."""
    set_at: dict[AlarmKey, int] = attrs.field(factory=dict)
    """When those were set that weren't in the table at the start."""
    lateness: dict[AlarmKey, int] = attrs.field(factory=dict)
    """How long after its time, or after being set if that was later, each fired."""
    under_way: list[tuple[int, AlarmKey]] = attrs.field(factory=list)
    """Until when, and what."""
    looks: int = 0
    rounds: int = 0

    @property
    def worst(self) -> int:
        return max(self.lateness.values(), default=0)

    def run(self, later: list[tuple[int, AlarmKey, int]]) -> None:
        """Go on until the table is empty. ``later`` says when which alarms are set and for when."""
        agenda = Agenda(self.now, self.capacity)
        later = sorted(later)
        polled = -self.polling_interval
        while self.table or later:
            self.rounds += 1
            agenda.advance(self.now)
            self.land(agenda)
            if agenda.wants_more or self.now >= polled + self.polling_interval:
                polled = self.now
                self.look(agenda)
                agenda.advance(self.now)
            if agenda.ready and len(self.under_way) < self.room:
                self.fire(agenda)
                continue
            # What `expect` is told wakes the loop if it comes before all else it waits for.
            time = agenda.next_time()
            sleeps_until = 2**63 if time is None else time
            assert sleeps_until > self.now, "there is nothing to do, and nothing to wait for"
            wakes_at = min([sleeps_until, polled + self.polling_interval, *self.landings()])
            while later and later[0][0] <= wakes_at:
                self.now, alarm, at = later.pop(0)
                self.table[alarm] = at
                self.set_at[alarm] = self.now
                is_known = agenda.arm(alarm, at)
                if at < sleeps_until and (is_known or agenda.is_cut):
                    wakes_at = self.now
            self.now = max(self.now, wakes_at)
        assert not len(agenda), "something is here that is nowhere else"

    def landings(self) -> list[int]:
        return [until for until, _ in self.under_way]

    def land(self, agenda: Agenda) -> None:
        for until, alarm in [each for each in self.under_way if each[0] <= self.now]:
            self.under_way.remove((until, alarm))
            agenda.unpark(alarm.owner)

    def look(self, agenda: Agenda) -> None:
        self.looks += 1
        horizon = self.now + 2 * self.polling_interval
        agenda.begin_fill(horizon)
        rows = sorted((at, each) for each, at in self.table.items() if at < horizon)
        for start in range(0, len(rows), self.page):
            page = [DueAlarm(*row) for row in rows[start : start + self.page]]
            if not agenda.fill(page, ()):
                break
        agenda.end_fill()

    def is_full(self, object_id: Owner) -> bool:
        return sum(alarm.owner == object_id for _, alarm in self.under_way) >= self.of_object

    def fire(self, agenda: Agenda) -> None:
        while len(self.under_way) < self.room:
            alarm = agenda.take(self.is_full)
            if alarm is None:
                break
            at = self.table.get(alarm)
            if at is None or at > self.now:
                self.under_way.append((self.now, alarm))  # the claim is refused
                continue
            del self.table[alarm]
            self.under_way.append((self.now + self.takes(alarm), alarm))
            self.fired[alarm] = self.now
            self.lateness[alarm] = self.now - max(at, self.set_at.get(alarm, START))


SHAPES = {"capacity": st.integers(1, 12), "room": st.integers(1, 12), "page": st.integers(1, 12)}
# Few different times, so that many alarms have the same.
CROWDED = st.lists(
    st.one_of(
        st.sampled_from([-SECOND, 0, MS, 5 * SECOND, 5 * SECOND + 1, 61 * SECOND]),
        st.integers(0, 100).map(lambda n: n * SECOND),
        st.integers(-90 * SECOND, 90 * SECOND),
    ),
    max_size=60,
)


@given(times=CROWDED, **SHAPES)
@settings(max_examples=250, deadline=None)
def test_every_alarm_of_a_table_fires_at_its_time(
    times: list[int], capacity: int, room: int, page: int
) -> None:
    table = {key(number): START + at for number, at in enumerate(times)}
    simulation = Simulation(capacity, room, page, table=dict(table))
    simulation.run([])
    assert simulation.fired.keys() == table.keys()
    # `fire` refuses what is early.
    assert simulation.worst < MS
    # Oldest first, but for what is due within the same millisecond.
    order = [max(table[each], START) // MS for each in simulation.fired]
    assert all(each - before >= -1 for before, each in pairwise(order))
    check_effort(simulation, len(table))


@given(
    times=CROWDED,
    later=st.lists(
        st.tuples(
            st.integers(0, 90 * SECOND), st.integers(0, 80), st.integers(-SECOND, 90 * SECOND)
        ),
        max_size=30,
    ),
    **SHAPES,
)
@settings(max_examples=250, deadline=None)
def test_alarms_set_meanwhile_fire_too(
    times: list[int], later: list[tuple[int, int, int]], capacity: int, room: int, page: int
) -> None:
    table = {key(number): START + at for number, at in enumerate(times)}
    simulation = Simulation(capacity, room, page, table=dict(table))
    settings_of = [(START + when, key(name), START + when + in_) for when, name, in_ in later]
    simulation.run(settings_of)
    assert simulation.fired.keys() == table.keys() | {each for _, each, _ in settings_of}
    # Those that don't fit in are looked for when their time has come.
    assert simulation.worst < MS
    check_effort(simulation, len(table) + len(later))


def check_effort(simulation: Simulation, alarms: int) -> None:
    """Each round fires something or lets time pass, and time passes in long steps."""
    polls = 8
    # An alarm that is far off cascades through some levels, and each setting may cost a look.
    assert simulation.looks <= polls + 2 * alarms
    assert simulation.rounds <= polls + 6 * alarms + simulation.looks


@pytest.mark.parametrize("capacity", [1, 2, 8, 9])
def test_a_crowd_at_one_tick_takes_few_looks(capacity: int) -> None:
    table = {key(number): START + 5 * SECOND for number in range(90)}
    simulation = Simulation(capacity, room=4, page=3, table=table)
    simulation.run([])
    assert len(simulation.fired) == 90
    assert set(simulation.fired.values()) == {START + 5 * SECOND}
    # At least half of the agenda is new each time.
    assert simulation.looks <= 2 + 90 // max(1, capacity // 2)


def test_an_alarm_that_did_not_fit_in_fires_at_its_time() -> None:
    # All lie in one slot of the wheel, so the near one can't displace the far ones.
    slot = (START // MS // 4096 + 2) * 4096 * MS
    table = {key(number): slot + 4000 * MS for number in range(4)}
    simulation = Simulation(capacity=4, room=4, page=4, table=table)
    simulation.run([(START, key("near"), slot + 10 * MS)])
    assert simulation.fired[key("near")] == slot + 10 * MS


@given(
    times=CROWDED,
    of_object=st.integers(1, 4),
    room=st.integers(5, 12),
    page=st.integers(1, 12),
    takes=st.sampled_from([0, MS, 700 * MS]),
)
@settings(max_examples=150, deadline=None)
def test_alarms_of_one_object_that_are_many_fire_in_their_turn(
    times: list[int], of_object: int, room: int, page: int, takes: int
) -> None:
    table = {key(number, "abc"[number % 3]): START + at for number, at in enumerate(times)}
    simulation = Simulation(
        100, room, page, of_object=of_object, takes=lambda alarm: takes, table=dict(table)
    )
    simulation.run([])
    assert simulation.fired.keys() == table.keys()
    # Each waits for no more than those before it.
    assert simulation.worst < MS + len(table) * takes


@given(times=CROWDED, slow=st.integers(5, 30), page=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_an_object_with_much_to_do_keeps_no_others_waiting(
    times: list[int], slow: int, page: int
) -> None:
    table = {key(number, f"quick {number}"): START + at for number, at in enumerate(times)}
    table |= {key(number, "slow"): START for number in range(slow)}
    simulation = Simulation(
        200,
        200,
        page,
        takes=lambda alarm: SECOND if alarm.object_id == "slow" else 0,
        table=dict(table),
    )
    simulation.run([])
    assert simulation.fired.keys() == table.keys()
    assert all(
        late < MS for alarm, late in simulation.lateness.items() if alarm.object_id != "slow"
    )
    fired = [at for alarm, at in simulation.fired.items() if alarm.object_id == "slow"]
    # Four at a time, one after the other.
    assert fired == [START + number // 4 * SECOND for number in range(slow)]


def test_an_object_with_very_many_alarms_due_leaves_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trio_durable.scheduler._wheel.upcoming._MAX_PARKED", 2)
    agenda = Agenda(START, 6)
    crowd = [DueAlarm(START - 20 + n, key(f"{n:02}", "crowded")) for n in range(20)]
    other = DueAlarm(START, key("x", "other"))
    left = [*crowd, other]
    done: list[AlarmKey] = []
    for _ in range(50):
        if agenda.wants_more:
            agenda.begin_fill(START + SECOND)
            agenda.fill(left, ())
            agenda.end_fill()
        agenda.advance(START)
        under_way: dict[Owner, AlarmKey] = {}  # one of each object
        while (each := agenda.take(under_way.__contains__)) is not None:
            under_way[each.owner] = each
        assert len(agenda) <= 2
        for object_id, each in under_way.items():
            done.append(each)
            left = [alarm for alarm in left if alarm.key != each]
            agenda.unpark(object_id)
    assert not left
    assert [each for each in done if each != other.key] == [alarm.key for alarm in crowd]
    assert done.index(other.key) < 10
