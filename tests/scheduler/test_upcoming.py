"""The agenda, step by step: horizon, hints, parking, little room."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from trio_durable._keys import AlarmKey, Owner
from trio_durable.scheduler._wheel.upcoming import UpcomingAlarms
from trio_durable.storage import DueAlarm

from .agendas import MS, SECOND, START, due, key, never


def always(object_id: Owner) -> bool:
    return True


def taken(agenda: UpcomingAlarms, most: int) -> list[AlarmKey]:
    """Take so many, or all, of objects that are never full."""
    keys: list[AlarmKey] = []
    while len(keys) < most and (each := agenda.take(never)) is not None:
        keys.append(each)
    return keys


def names(keys: Iterable[AlarmKey]) -> list[str]:
    return [each.name for each in keys]


def filled(agenda: UpcomingAlarms, horizon: int, *alarms: tuple[object, int]) -> bool:
    agenda.begin_fill(horizon)
    has_room = agenda.fill(due(*alarms), ())
    agenda.end_fill()
    return has_room


# --- one by one ----------------------------------------------------------------------------------


def test_a_new_agenda_knows_nothing_and_wants_to_look() -> None:
    agenda = UpcomingAlarms(START, 8)
    assert len(agenda) == agenda.ready == 0
    assert agenda.wants_more
    assert agenda.next_time() is None
    assert agenda.take(never) is None


def test_nothing_is_kept_before_the_first_look() -> None:
    # The look will find it in the table.
    agenda = UpcomingAlarms(START, 8)
    assert not agenda.arm(key("a"), START + SECOND)
    assert key("a") not in agenda


def test_what_is_before_the_horizon_is_kept() -> None:
    agenda = UpcomingAlarms(START, 8)
    agenda.begin_fill(START + 10 * SECOND)
    agenda.end_fill()
    assert not agenda.wants_more
    assert agenda.arm(key("a"), START + 10 * SECOND - 1)
    assert key("a") in agenda
    assert not agenda.arm(key("b"), START + 10 * SECOND)
    assert key("b") not in agenda


def test_an_alarm_moved_beyond_the_horizon_is_forgotten() -> None:
    agenda = UpcomingAlarms(START, 8)
    filled(agenda, START + SECOND, ("a", START + MS))
    assert not agenda.arm(key("a"), START + 2 * SECOND)
    agenda.advance(START + SECOND)
    assert taken(agenda, 5) == []


def test_an_alarm_moved_while_it_is_ready_is_ready_no_more() -> None:
    agenda = UpcomingAlarms(START, 8)
    filled(agenda, START + SECOND, ("a", START))
    agenda.advance(START)
    assert agenda.ready == 1
    assert agenda.arm(key("a"), START + 5 * MS)
    assert agenda.ready == 0
    assert len(agenda) == 1
    agenda.advance(START + 5 * MS)
    assert names(taken(agenda, 5)) == ["a"]


def test_nothing_is_ready_a_microsecond_too_early() -> None:
    agenda = UpcomingAlarms(START, 8)
    filled(agenda, START + SECOND, ("a", START + MS + 1))
    agenda.advance(START + 2 * MS - 1)
    assert agenda.ready == 0
    assert agenda.next_time() == START + 2 * MS
    agenda.advance(START + 2 * MS)
    assert agenda.ready == 1


def test_what_is_ready_is_taken_oldest_first() -> None:
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
    filled(agenda, START + SECOND, ("a", START), ("b", START + MS), ("c", START + 2 * MS))
    agenda.advance(START + SECOND)
    agenda.put_back(taken(agenda, 2))
    assert agenda.ready == 3
    assert names(taken(agenda, 3)) == ["a", "b", "c"]


def test_years_before_1970_are_past_too() -> None:
    agenda = UpcomingAlarms(START, 8)
    filled(agenda, START + SECOND, ("a", -62_135_596_800 * SECOND))
    agenda.advance(START)
    assert names(taken(agenda, 1)) == ["a"]


# --- reading while things change -----------------------------------------------------------------


def test_what_changed_while_the_table_was_read_wins_over_what_was_read() -> None:
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
    agenda.begin_fill(START + 10 * SECOND)
    agenda.fill(due(("a", START)), ())
    agenda.disarm(key("b"))
    agenda.fill(due(("b", START + 1)), ())
    agenda.end_fill()
    assert key("a") in agenda
    assert key("b") not in agenda


def test_the_next_look_trusts_the_table_again() -> None:
    agenda = UpcomingAlarms(START, 8)
    agenda.begin_fill(START + 10 * SECOND)
    agenda.disarm(key("a"))
    agenda.end_fill()
    filled(agenda, START + 10 * SECOND, ("a", START))
    assert key("a") in agenda


def test_what_another_process_moved_is_moved_by_the_next_look() -> None:
    agenda = UpcomingAlarms(START, 8)
    filled(agenda, START + 10 * SECOND, ("a", START + 9 * SECOND))
    filled(agenda, START + 10 * SECOND, ("a", START + SECOND))
    assert len(agenda) == 1
    agenda.advance(START + SECOND)
    assert names(taken(agenda, 1)) == ["a"]


def test_what_is_taken_or_ready_is_not_taken_up_again() -> None:
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 10)
    filled(agenda, START + 10 * SECOND)
    agenda.arm(key("a"), START - SECOND)
    agenda.advance(START)
    filled(agenda, START + 60 * SECOND, ("a", START + 30 * MS))
    assert taken(agenda, 1) == []
    agenda.advance(START + 30 * MS)
    assert names(taken(agenda, 1)) == ["a"]


def test_what_is_parked_takes_the_place_of_what_a_look_corrects() -> None:
    """The room that was made is its own now; nothing may come that would make more."""
    agenda = UpcomingAlarms(START, 10)
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
    agenda = UpcomingAlarms(START, 8)
    filled(agenda, START + SECOND, ("a", START + 10 * MS), ("b", START + 10 * MS + 1))
    agenda.advance(START, 10 * MS - 1)
    assert agenda.ready == 0
    assert agenda.reached == START + 9 * MS
    agenda.advance(START, 10 * MS)
    assert agenda.reached == START + 10 * MS
    assert names(taken(agenda, 5)) == ["a"]
    assert agenda.next_time() == START + 11 * MS


def test_a_shorter_lead_takes_nothing_back() -> None:
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
    filled(agenda, START + SECOND, ("a", START + 10 * MS))
    agenda.advance(START, 20 * MS)
    agenda.advance(START - MS, 20 * MS)
    assert agenda.ready == 0
    assert agenda.wants_more


def test_the_next_time_is_a_horizon_that_was_drawn_in_if_that_is_nearer() -> None:
    agenda = UpcomingAlarms(START, 2)
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
    agenda = UpcomingAlarms(START, 2)
    filled(agenda, START + 60 * SECOND, *[(number, START) for number in range(3)])
    agenda.advance(START)
    # There may be no room for those that are ready, and the third has to wait for them.
    assert agenda.ready == 2
    assert agenda.is_cut
    time = agenda.next_time()
    assert time is None or time > START


# --- hints ---------------------------------------------------------------------------------------


def hinted(*times: int) -> UpcomingAlarms:
    """An agenda whose horizon is an hour away, after hints of these times."""
    agenda = UpcomingAlarms(START, 10)
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
    agenda = UpcomingAlarms(START, 10)
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
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
    filled(agenda, START + 60 * SECOND, ("x", START))
    agenda.advance(START)
    assert agenda.take(always) is None
    filled(agenda, START + 60 * SECOND, ("x", START))
    assert len(agenda) == 1
    agenda.advance(START + SECOND)
    assert agenda.ready == 0


def test_what_is_parked_takes_room() -> None:
    agenda = UpcomingAlarms(START, 4)
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
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 2)
    alarms = [(number, START + number * SECOND) for number in range(1, 5)]
    assert not filled(agenda, START + 60 * SECOND, *alarms)
    assert len(agenda) == 2
    assert agenda.is_cut
    assert agenda.horizon <= START + 3 * SECOND
    assert key(1) in agenda
    assert key(2) in agenda
    assert not agenda.wants_more


def test_a_nearer_alarm_displaces_what_is_far_away() -> None:
    agenda = UpcomingAlarms(START, 2)
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
    agenda = UpcomingAlarms(START, capacity)
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
    agenda = UpcomingAlarms(START, 64)
    alarms = [(number, START + (100 + number) * SECOND) for number in range(64)]
    filled(agenda, START + 1000 * SECOND, *alarms)
    assert agenda.arm(key("nearer"), alarms[62][1])
    assert len(agenda) == 64
    assert key(63) not in agenda
    assert key(62) in agenda
    assert alarms[62][1] < agenda.horizon <= alarms[63][1]


def test_a_farther_alarm_does_not_displace_what_is_near() -> None:
    agenda = UpcomingAlarms(START, 2)
    filled(agenda, START + 60 * SECOND, ("a", START + MS), ("b", START + 2 * MS))
    assert not agenda.arm(key("far"), START + 50 * SECOND)
    assert key("a") in agenda
    assert key("b") in agenda
    assert agenda.horizon == START + 50 * SECOND


def test_what_is_due_is_never_displaced() -> None:
    agenda = UpcomingAlarms(START, 2)
    filled(agenda, START + SECOND, ("a", START - 2 * MS), ("b", START - MS))
    agenda.advance(START)
    assert not agenda.arm(key("c"), START - 3 * MS)
    assert names(taken(agenda, 5)) == ["a", "b"]
    assert agenda.wants_more


def test_an_alarm_that_is_moved_needs_no_more_room() -> None:
    agenda = UpcomingAlarms(START, 2)
    filled(agenda, START + 60 * SECOND, ("a", START + MS), ("b", START + 50 * SECOND))
    assert agenda.arm(key("a"), START + 3 * MS)
    assert key("b") in agenda
    assert not agenda.is_cut


def test_after_a_look_with_room_for_all_no_more_is_wanted() -> None:
    agenda = UpcomingAlarms(START, 2)
    filled(agenda, START + 60 * SECOND, *[(number, START) for number in range(6)])
    agenda.advance(START)
    taken(agenda, 2)
    assert agenda.wants_more
    assert filled(agenda, START + 60 * SECOND, (6, START))
    assert not agenda.is_cut
    assert not agenda.wants_more


def test_a_look_that_finds_what_is_known_needs_no_more_room() -> None:
    agenda = UpcomingAlarms(START, 2)
    alarms = [("a", START + MS), ("b", START + 50 * SECOND)]
    filled(agenda, START + 60 * SECOND, *alarms)
    assert filled(agenda, START + 60 * SECOND, *alarms)
    assert agenda.horizon == START + 60 * SECOND
    assert not agenda.is_cut


# A tick at which a slot of a higher level begins.
SLOT = (START // MS // 4096 + 1) * 4096


def test_what_is_as_far_as_the_farthest_displaces_nothing() -> None:
    agenda = UpcomingAlarms(START, 2)
    alarms = [("a", SLOT * MS), ("b", SLOT * MS)]
    filled(agenda, START + 60 * SECOND, *alarms)
    assert not agenda.arm(key("c"), SLOT * MS)
    assert key("a") in agenda
    assert key("b") in agenda
    assert agenda.horizon == SLOT * MS


def test_the_horizon_comes_before_all_that_was_displaced() -> None:
    # Rounded up to a tick, its time is the very beginning of its slot.
    agenda = UpcomingAlarms(START, 1)
    far = (SLOT - 1) * MS + 1
    filled(agenda, START + 60 * SECOND, ("far", far))
    assert agenda.arm(key("near"), START + MS)
    assert key("far") not in agenda
    assert agenda.horizon <= far


def test_a_horizon_that_was_drawn_in_is_not_moved_out_by_what_is_read_behind_it() -> None:
    agenda = UpcomingAlarms(START, 2)
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
    agenda = UpcomingAlarms(START, 4)
    filled(agenda, START + 60 * SECOND, *[(number, START) for number in range(6)])
    agenda.advance(START)
    assert agenda.take(never)
    # What is ready comes before what the table has yet, so there is no haste.
    assert not agenda.wants_more
    taken(agenda, 1)
    assert agenda.wants_more


def test_more_is_wanted_when_the_horizon_is_reached() -> None:
    agenda = UpcomingAlarms(START, 4)
    filled(agenda, START + SECOND)
    agenda.advance(START + SECOND - 1)
    assert not agenda.wants_more
    agenda.advance(START + SECOND)
    assert agenda.wants_more


def test_the_first_of_a_crowd_at_one_tick_are_taken_and_then_the_next() -> None:
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
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
    agenda = UpcomingAlarms(START, 8)
    agenda.begin_fill(START + 60 * SECOND)
    agenda.fill(due(("a", START)), ())
    agenda.advance(START - 3600 * SECOND)
    agenda.fill(due(("b", START)), ())
    agenda.end_fill()
    assert agenda.wants_more


def test_a_clock_set_back_by_less_than_a_tick_counts() -> None:
    agenda = UpcomingAlarms(START + 5, 8)
    filled(agenda, START + SECOND, ("a", START))
    agenda.advance(START + 5)
    assert agenda.ready == 1
    agenda.advance(START + 4)
    assert agenda.ready == 0
    assert agenda.wants_more


def test_a_clock_set_forward_makes_everything_due_in_order() -> None:
    agenda = UpcomingAlarms(START, 100)
    alarms = [(number, START + number * 700 * MS) for number in range(80)]
    filled(agenda, START + 60 * SECOND, *alarms)
    agenda.advance(START + 365 * 86400 * SECOND)
    assert names(taken(agenda, 100)) == [str(number) for number in range(80)]
    assert agenda.wants_more
