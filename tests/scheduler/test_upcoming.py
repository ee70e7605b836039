"""`UpcomingAlarms`, step by step: horizon, hints, parking, little room."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from trio_durable._keys import AlarmKey, Owner
from trio_durable.scheduler._wheel.upcoming import UpcomingAlarms
from trio_durable.storage import DueAlarm

from .upcoming_alarms import MS, SECOND, START, due, key, never


def always(object_id: Owner) -> bool:
    return True


def taken(upcoming: UpcomingAlarms, most: int) -> list[AlarmKey]:
    """Take so many, or all, of objects that are never full."""
    keys: list[AlarmKey] = []
    while len(keys) < most and (each := upcoming.take(never)) is not None:
        keys.append(each)
    return keys


def names(keys: Iterable[AlarmKey]) -> list[str]:
    return [each.name for each in keys]


def filled(upcoming: UpcomingAlarms, horizon: int, *alarms: tuple[object, int]) -> bool:
    upcoming.begin_fill(horizon)
    has_room = upcoming.fill(due(*alarms), ())
    upcoming.end_fill()
    return has_room


# --- one by one ----------------------------------------------------------------------------------


def test_a_new_cache_knows_nothing_and_wants_to_look() -> None:
    upcoming = UpcomingAlarms(START, 8)
    assert len(upcoming) == upcoming.ready == 0
    assert upcoming.wants_more
    assert upcoming.next_time() is None
    assert upcoming.take(never) is None


def test_nothing_is_kept_before_the_first_look() -> None:
    # The look will find it in the table.
    upcoming = UpcomingAlarms(START, 8)
    assert not upcoming.arm(key("a"), START + SECOND)
    assert key("a") not in upcoming


def test_what_is_before_the_horizon_is_kept() -> None:
    upcoming = UpcomingAlarms(START, 8)
    upcoming.begin_fill(START + 10 * SECOND)
    upcoming.end_fill()
    assert not upcoming.wants_more
    assert upcoming.arm(key("a"), START + 10 * SECOND - 1)
    assert key("a") in upcoming
    assert not upcoming.arm(key("b"), START + 10 * SECOND)
    assert key("b") not in upcoming


def test_an_alarm_moved_beyond_the_horizon_is_forgotten() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, ("a", START + MS))
    assert not upcoming.arm(key("a"), START + 2 * SECOND)
    upcoming.advance(START + SECOND)
    assert taken(upcoming, 5) == []


def test_an_alarm_moved_while_it_is_ready_is_ready_no_more() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, ("a", START))
    upcoming.advance(START)
    assert upcoming.ready == 1
    assert upcoming.arm(key("a"), START + 5 * MS)
    assert upcoming.ready == 0
    assert len(upcoming) == 1
    upcoming.advance(START + 5 * MS)
    assert names(taken(upcoming, 5)) == ["a"]


def test_nothing_is_ready_a_microsecond_too_early() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, ("a", START + MS + 1))
    upcoming.advance(START + 2 * MS - 1)
    assert upcoming.ready == 0
    assert upcoming.next_time() == START + 2 * MS
    upcoming.advance(START + 2 * MS)
    assert upcoming.ready == 1


def test_what_is_ready_is_taken_oldest_first() -> None:
    upcoming = UpcomingAlarms(START, 8)
    times = [("d", 3), ("a", -5), ("c", 2), ("b", -1)]
    for name, at in times:
        upcoming.begin_fill(START + SECOND)
        upcoming.end_fill()
        upcoming.arm(key(name), START + at * MS)
    upcoming.advance(START + SECOND)
    assert names(taken(upcoming, 3)) == ["a", "b", "c"]
    assert names(taken(upcoming, 3)) == ["d"]
    assert taken(upcoming, 3) == []


def test_what_is_put_back_comes_first_and_in_its_order() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, ("a", START), ("b", START + MS), ("c", START + 2 * MS))
    upcoming.advance(START + SECOND)
    upcoming.put_back(taken(upcoming, 2))
    assert upcoming.ready == 3
    assert names(taken(upcoming, 3)) == ["a", "b", "c"]


def test_years_before_1970_are_past_too() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, ("a", -62_135_596_800 * SECOND))
    upcoming.advance(START)
    assert names(taken(upcoming, 1)) == ["a"]


# --- reading while things change -----------------------------------------------------------------


def test_what_changed_while_the_table_was_read_wins_over_what_was_read() -> None:
    upcoming = UpcomingAlarms(START, 8)
    upcoming.begin_fill(START + 10 * SECOND)
    upcoming.disarm(key("cancelled"))
    upcoming.arm(key("moved"), START + 5 * SECOND)
    upcoming.arm(key("moved away"), START + 20 * SECOND)
    read = due(("cancelled", START), ("moved", START), ("moved away", START), ("same", START))
    assert upcoming.fill(read, ())
    upcoming.end_fill()
    upcoming.advance(START + SECOND)
    assert names(taken(upcoming, 9)) == ["same"]
    upcoming.advance(START + 5 * SECOND)
    assert names(taken(upcoming, 9)) == ["moved"]
    assert len(upcoming) == 0


def test_changes_between_two_pages_count_for_the_second() -> None:
    upcoming = UpcomingAlarms(START, 8)
    upcoming.begin_fill(START + 10 * SECOND)
    upcoming.fill(due(("a", START)), ())
    upcoming.disarm(key("b"))
    upcoming.fill(due(("b", START + 1)), ())
    upcoming.end_fill()
    assert key("a") in upcoming
    assert key("b") not in upcoming


def test_the_next_look_trusts_the_table_again() -> None:
    upcoming = UpcomingAlarms(START, 8)
    upcoming.begin_fill(START + 10 * SECOND)
    upcoming.disarm(key("a"))
    upcoming.end_fill()
    filled(upcoming, START + 10 * SECOND, ("a", START))
    assert key("a") in upcoming


def test_what_another_process_moved_is_moved_by_the_next_look() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + 10 * SECOND, ("a", START + 9 * SECOND))
    filled(upcoming, START + 10 * SECOND, ("a", START + SECOND))
    assert len(upcoming) == 1
    upcoming.advance(START + SECOND)
    assert names(taken(upcoming, 1)) == ["a"]


def test_what_is_taken_or_ready_is_not_taken_up_again() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + 10 * SECOND, ("ready", START), ("taken", START))
    upcoming.advance(START)
    upcoming.disarm(key("taken"))
    upcoming.begin_fill(START + 10 * SECOND)
    read = due(("taken", START), ("ready", START))
    upcoming.fill(read, {key("taken")})
    upcoming.end_fill()
    assert names(taken(upcoming, 5)) == ["ready"]
    assert len(upcoming) == 0


def test_a_look_corrects_what_is_ready_too_early() -> None:
    """As when one that is under way is set anew for later, and then put back as it was."""
    upcoming = UpcomingAlarms(START, 10)
    filled(upcoming, START + 10 * SECOND)
    upcoming.arm(key("a"), START - SECOND)
    upcoming.advance(START)
    filled(upcoming, START + 60 * SECOND, ("a", START + 30 * MS))
    assert taken(upcoming, 1) == []
    upcoming.advance(START + 30 * MS)
    assert names(taken(upcoming, 1)) == ["a"]


def test_what_is_parked_takes_the_place_of_what_a_look_corrects() -> None:
    """The room that was made is its own now; nothing may come that would make more."""
    upcoming = UpcomingAlarms(START, 10)
    filled(upcoming, START + 10 * SECOND)
    for name in ("a", "b"):
        upcoming.arm(key(name), START - SECOND)
    upcoming.advance(START)
    assert upcoming.take(lambda _: True) is None
    upcoming.unpark(key("a").owner)
    filled(upcoming, START + 60 * SECOND, ("a", START + SECOND))
    assert names(taken(upcoming, 2)) == ["b"]


# --- ahead of time -------------------------------------------------------------------------------


def test_what_is_available_within_the_lead_is_ready() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, ("a", START + 10 * MS), ("b", START + 10 * MS + 1))
    upcoming.advance(START, 10 * MS - 1)
    assert upcoming.ready == 0
    assert upcoming.reached == START + 9 * MS
    upcoming.advance(START, 10 * MS)
    assert upcoming.reached == START + 10 * MS
    assert names(taken(upcoming, 5)) == ["a"]
    assert upcoming.next_time() == START + 11 * MS


def test_a_shorter_lead_takes_nothing_back() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, ("a", START + 10 * MS))
    upcoming.advance(START, 20 * MS)
    upcoming.advance(START + MS, 0)
    assert upcoming.now == START + MS
    # Who claims what is ready must know how far ahead of time that is.
    assert upcoming.reached == START + 20 * MS
    assert upcoming.arm(key("b"), START + 15 * MS)
    upcoming.advance(START + 2 * MS, 0)
    assert names(taken(upcoming, 5)) == ["a", "b"]


def test_a_clock_set_back_by_less_than_the_lead_counts() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, ("a", START + 10 * MS))
    upcoming.advance(START, 20 * MS)
    upcoming.advance(START - MS, 20 * MS)
    assert upcoming.ready == 0
    assert upcoming.wants_more


def test_the_next_time_is_a_horizon_that_was_drawn_in_if_that_is_nearer() -> None:
    upcoming = UpcomingAlarms(START, 2)
    filled(upcoming, START + 60 * SECOND, ("a", START + SECOND), ("b", START + 2 * SECOND))
    upcoming.advance(START)
    assert not upcoming.arm(key("c"), START + 3 * SECOND)
    upcoming.disarm(key("a"))
    upcoming.disarm(key("b"))
    # Nobody else knows of the third.
    assert upcoming.next_time() == upcoming.horizon == START + 3 * SECOND
    filled(upcoming, START + 60 * SECOND)
    assert upcoming.next_time() is None


def test_a_horizon_in_the_past_is_no_time_to_wait_for() -> None:
    upcoming = UpcomingAlarms(START, 2)
    filled(upcoming, START + 60 * SECOND, *[(number, START) for number in range(3)])
    upcoming.advance(START)
    # There may be no room for those that are ready, and the third has to wait for them.
    assert upcoming.ready == 2
    assert upcoming.is_cut
    time = upcoming.next_time()
    assert time is None or time > START


# --- hints ---------------------------------------------------------------------------------------


def hinted(*times: int) -> UpcomingAlarms:
    """A cache whose horizon is an hour away, after hints of these times."""
    upcoming = UpcomingAlarms(START, 10)
    filled(upcoming, START + 3600 * SECOND)
    for time in times:
        upcoming.hint(time)
    return upcoming


def test_a_look_is_wanted_a_moment_before_the_earliest_time_that_was_hinted_at() -> None:
    upcoming = hinted(START + 70 * SECOND, START + 10 * SECOND, START + 20 * SECOND)
    assert not upcoming.wants_more
    assert upcoming.next_time() == START + 10 * SECOND - 250 * MS
    upcoming.advance(START + 10 * SECOND - 251 * MS)
    assert not upcoming.wants_more
    upcoming.advance(START + 10 * SECOND - 250 * MS)
    assert upcoming.wants_more
    # Who sleeps until there is something to do doesn't wake again and again until it is done.
    assert upcoming.next_time() is None


def test_a_hint_of_a_time_that_has_come_wants_a_look_at_once() -> None:
    for time in (START, START - SECOND, 0):
        upcoming = hinted(time)
        assert upcoming.wants_more
        assert upcoming.next_time() is None


def test_a_look_answers_the_hints_that_came_before_it_and_not_those_that_come_during_it() -> None:
    upcoming = hinted(START + SECOND)
    upcoming.begin_fill(START + 3600 * SECOND)
    assert upcoming.next_time() is None
    upcoming.hint(START + 5 * SECOND)
    upcoming.end_fill()
    assert upcoming.next_time() == START + 5 * SECOND - 250 * MS


def test_a_hint_of_what_is_beyond_the_horizon_is_left_to_the_look_that_moves_it() -> None:
    assert hinted(START + 3600 * SECOND).next_time() is None
    assert hinted(START + 3600 * SECOND - 1).next_time() is not None


def test_a_hint_before_the_first_look_is_left_to_that() -> None:
    upcoming = UpcomingAlarms(START, 10)
    upcoming.hint(START + SECOND)
    assert upcoming.wants_more
    filled(upcoming, START + 60 * SECOND)
    assert not upcoming.wants_more
    assert upcoming.next_time() is None


def test_a_hint_is_looked_after_as_far_ahead_as_alarms_are_claimed() -> None:
    upcoming = hinted(START + SECOND)
    upcoming.advance(START + 735 * MS, 15 * MS)
    assert upcoming.wants_more


def test_what_comes_before_a_hint_comes_first() -> None:
    upcoming = hinted(START + 10 * SECOND)
    upcoming.arm(key("a"), START + 3 * MS)
    assert upcoming.next_time() == START + 3 * MS
    upcoming.disarm(key("a"))
    upcoming.arm(key("a"), START + 30 * SECOND)
    assert upcoming.next_time() == START + 10 * SECOND - 250 * MS


# --- parking -------------------------------------------------------------------------------------


def test_alarms_of_full_objects_are_passed_over() -> None:
    upcoming = UpcomingAlarms(START, 8)
    upcoming.begin_fill(START + SECOND)
    upcoming.end_fill()
    for number, of in enumerate("aabab"):
        upcoming.arm(key(number, of), START + number * MS)
    upcoming.advance(START + SECOND)
    full = {("Type", "a", "")}
    assert upcoming.take(full.__contains__) == key(2, "b")
    assert upcoming.take(full.__contains__) == key(4, "b")
    assert upcoming.take(full.__contains__) is None
    # They are not ready, or the loop would try again and again.
    assert upcoming.ready == 0
    assert len(upcoming) == 3
    assert all(key(number, "a") in upcoming for number in (0, 1, 3))


def test_each_unparking_lets_one_be_taken_oldest_first() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, *[(number, START + number * MS) for number in range(4)])
    upcoming.advance(START + SECOND)
    assert upcoming.take(always) is None
    for number in range(4):
        assert upcoming.take(never) is None
        upcoming.unpark(("Type", "id", ""))
        assert upcoming.ready == 1
        assert upcoming.take(never) == key(number)
    assert len(upcoming) == 0
    upcoming.unpark(("Type", "id", ""))
    assert upcoming.take(never) is None


def test_what_is_parked_is_of_one_object_only() -> None:
    upcoming = UpcomingAlarms(START, 8)
    upcoming.begin_fill(START + SECOND)
    upcoming.end_fill()
    upcoming.arm(key("x", "a"), START)
    upcoming.advance(START)
    assert upcoming.take(always) is None
    upcoming.unpark(("Type", "b", ""))
    upcoming.unpark(("Other", "a", ""))
    assert upcoming.ready == 0
    assert key("x", "b") not in upcoming
    upcoming.disarm(key("x", "b"))
    upcoming.disarm(key("y", "a"))
    assert key("x", "a") in upcoming


def test_what_is_unparked_in_vain_is_parked_again() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, ("x", START), ("y", START + MS))
    upcoming.advance(START + SECOND)
    assert upcoming.take(always) is None
    upcoming.unpark(("Type", "id", ""))
    assert upcoming.take(always) is None
    assert len(upcoming) == 2
    upcoming.unpark(("Type", "id", ""))
    upcoming.unpark(("Type", "id", ""))
    assert sorted(names(taken(upcoming, 5))) == ["x", "y"]


def test_a_parked_alarm_that_is_cancelled_is_gone() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + SECOND, ("x", START), ("y", START + MS), ("z", START + 2 * MS))
    upcoming.advance(START + SECOND)
    assert upcoming.take(always) is None
    upcoming.disarm(key("x"))
    upcoming.disarm(key("z"))
    assert key("x") not in upcoming
    assert len(upcoming) == 1
    # The first of what is left.
    upcoming.unpark(("Type", "id", ""))
    assert names(taken(upcoming, 5)) == ["y"]
    assert len(upcoming) == 0


def test_a_parked_alarm_that_is_set_anew_is_ready_at_its_new_time_only() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + 60 * SECOND, ("x", START))
    upcoming.advance(START)
    assert upcoming.take(always) is None
    assert upcoming.arm(key("x"), START + 5 * SECOND)
    assert len(upcoming) == 1
    upcoming.unpark(("Type", "id", ""))
    assert upcoming.ready == 0
    assert upcoming.next_time() is not None
    upcoming.advance(START + 5 * SECOND)
    assert names(taken(upcoming, 5)) == ["x"]


def test_what_is_parked_is_not_taken_up_again() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + 60 * SECOND, ("x", START))
    upcoming.advance(START)
    assert upcoming.take(always) is None
    filled(upcoming, START + 60 * SECOND, ("x", START))
    assert len(upcoming) == 1
    upcoming.advance(START + SECOND)
    assert upcoming.ready == 0


def test_what_is_parked_takes_room() -> None:
    upcoming = UpcomingAlarms(START, 4)
    alarms = [(number, START + number * MS) for number in range(6)]
    assert not filled(upcoming, START + 60 * SECOND, *alarms)
    upcoming.advance(START + SECOND)
    assert upcoming.take(always) is None
    assert len(upcoming) == 4
    assert upcoming.horizon == START + 4 * MS
    # Nothing of it is far away, so nothing can be displaced.
    assert not upcoming.arm(key("another", "b"), START - SECOND)
    assert len(upcoming) == 4
    assert all(key(number) in upcoming for number in range(4))
    # Nor is there room before some of it is gone.
    for _ in range(2):
        upcoming.unpark(("Type", "id", ""))
        assert upcoming.take(never)
    assert upcoming.wants_more
    assert filled(upcoming, START + 60 * SECOND, *alarms[4:])
    assert len(upcoming) == 4


def test_what_is_parked_is_forgotten_with_all_else_when_the_clock_is_set_back() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + 60 * SECOND, ("x", START))
    upcoming.advance(START)
    assert upcoming.take(always) is None
    upcoming.advance(START - SECOND)
    assert len(upcoming) == 0
    assert key("x") not in upcoming
    upcoming.unpark(("Type", "id", ""))
    assert upcoming.ready == 0
    filled(upcoming, START + 60 * SECOND, ("x", START))
    upcoming.advance(START)
    assert names(taken(upcoming, 5)) == ["x"]


@pytest.mark.parametrize("is_set_anew", [False, True])
def test_an_alarm_that_is_cancelled_when_it_was_unparked_leaves_its_turn_to_the_next(
    is_set_anew: bool,
) -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + 60 * SECOND, ("x", START), ("y", START))
    upcoming.advance(START)
    assert upcoming.take(always) is None
    # The last flight of the object is settled, so nothing will be unparked any more.
    upcoming.unpark(("Type", "id", ""))
    if is_set_anew:
        upcoming.arm(key("x"), START + 30 * SECOND)
    else:
        upcoming.disarm(key("x"))
    assert names(taken(upcoming, 5)) == ["y"]


# --- where room is short -------------------------------------------------------------------------


def test_a_full_cache_draws_its_horizon_in_to_what_it_could_not_take() -> None:
    upcoming = UpcomingAlarms(START, 2)
    alarms = [(number, START + number * SECOND) for number in range(1, 5)]
    assert not filled(upcoming, START + 60 * SECOND, *alarms)
    assert len(upcoming) == 2
    assert upcoming.is_cut
    assert upcoming.horizon <= START + 3 * SECOND
    assert key(1) in upcoming
    assert key(2) in upcoming
    assert not upcoming.wants_more


def test_a_nearer_alarm_displaces_what_is_far_away() -> None:
    upcoming = UpcomingAlarms(START, 2)
    filled(upcoming, START + 60 * SECOND, ("far", START + 50 * SECOND), ("near", START + MS))
    assert upcoming.arm(key("nearer"), START + 2 * MS)
    assert len(upcoming) == 2
    assert key("far") not in upcoming
    assert upcoming.horizon <= START + 50 * SECOND
    assert upcoming.is_cut
    # And what is set for a time beyond the horizon from now on is left to the next look.
    assert not upcoming.arm(key("farther"), START + 51 * SECOND)


@pytest.mark.parametrize(("capacity", "dropped"), [(15, 1), (16, 2), (100, 7)])
def test_a_sixteenth_of_a_full_cache_makes_room_at_once(capacity: int, dropped: int) -> None:
    # It takes time to find what is farthest.
    upcoming = UpcomingAlarms(START, capacity)
    at = {key(number): START + (100 + number) * SECOND for number in range(capacity)}
    alarms = [(each.name, time) for each, time in at.items()]
    filled(upcoming, START + 1000 * SECOND, *reversed(alarms))
    assert not upcoming.is_cut
    assert upcoming.arm(key("nearer"), START + SECOND)
    assert [each for each in at if each not in upcoming] == list(at)[capacity - dropped :]
    # What was dropped is not before the horizon, what is left is.
    assert at[key(capacity - dropped - 1)] < upcoming.horizon <= at[key(capacity - dropped)]
    for number in range(dropped - 1):
        assert upcoming.arm(key("nearer", str(number)), START + SECOND)
    assert len(upcoming) == capacity
    assert key(capacity - dropped - 1) in upcoming


def test_only_what_is_farther_makes_room() -> None:
    upcoming = UpcomingAlarms(START, 64)
    alarms = [(number, START + (100 + number) * SECOND) for number in range(64)]
    filled(upcoming, START + 1000 * SECOND, *alarms)
    assert upcoming.arm(key("nearer"), alarms[62][1])
    assert len(upcoming) == 64
    assert key(63) not in upcoming
    assert key(62) in upcoming
    assert alarms[62][1] < upcoming.horizon <= alarms[63][1]


def test_a_farther_alarm_does_not_displace_what_is_near() -> None:
    upcoming = UpcomingAlarms(START, 2)
    filled(upcoming, START + 60 * SECOND, ("a", START + MS), ("b", START + 2 * MS))
    assert not upcoming.arm(key("far"), START + 50 * SECOND)
    assert key("a") in upcoming
    assert key("b") in upcoming
    assert upcoming.horizon == START + 50 * SECOND


def test_what_is_due_is_never_displaced() -> None:
    upcoming = UpcomingAlarms(START, 2)
    filled(upcoming, START + SECOND, ("a", START - 2 * MS), ("b", START - MS))
    upcoming.advance(START)
    assert not upcoming.arm(key("c"), START - 3 * MS)
    assert names(taken(upcoming, 5)) == ["a", "b"]
    assert upcoming.wants_more


def test_an_alarm_that_is_moved_needs_no_more_room() -> None:
    upcoming = UpcomingAlarms(START, 2)
    filled(upcoming, START + 60 * SECOND, ("a", START + MS), ("b", START + 50 * SECOND))
    assert upcoming.arm(key("a"), START + 3 * MS)
    assert key("b") in upcoming
    assert not upcoming.is_cut


def test_after_a_look_with_room_for_all_no_more_is_wanted() -> None:
    upcoming = UpcomingAlarms(START, 2)
    filled(upcoming, START + 60 * SECOND, *[(number, START) for number in range(6)])
    upcoming.advance(START)
    taken(upcoming, 2)
    assert upcoming.wants_more
    assert filled(upcoming, START + 60 * SECOND, (6, START))
    assert not upcoming.is_cut
    assert not upcoming.wants_more


def test_a_look_that_finds_what_is_known_needs_no_more_room() -> None:
    upcoming = UpcomingAlarms(START, 2)
    alarms = [("a", START + MS), ("b", START + 50 * SECOND)]
    filled(upcoming, START + 60 * SECOND, *alarms)
    assert filled(upcoming, START + 60 * SECOND, *alarms)
    assert upcoming.horizon == START + 60 * SECOND
    assert not upcoming.is_cut


# A tick at which a slot of a higher level begins.
SLOT = (START // MS // 4096 + 1) * 4096


def test_what_is_as_far_as_the_farthest_displaces_nothing() -> None:
    upcoming = UpcomingAlarms(START, 2)
    alarms = [("a", SLOT * MS), ("b", SLOT * MS)]
    filled(upcoming, START + 60 * SECOND, *alarms)
    assert not upcoming.arm(key("c"), SLOT * MS)
    assert key("a") in upcoming
    assert key("b") in upcoming
    assert upcoming.horizon == SLOT * MS


def test_the_horizon_comes_before_all_that_was_displaced() -> None:
    # Rounded up to a tick, its time is the very beginning of its slot.
    upcoming = UpcomingAlarms(START, 1)
    far = (SLOT - 1) * MS + 1
    filled(upcoming, START + 60 * SECOND, ("far", far))
    assert upcoming.arm(key("near"), START + MS)
    assert key("far") not in upcoming
    assert upcoming.horizon <= far


def test_a_horizon_that_was_drawn_in_is_not_moved_out_by_what_is_read_behind_it() -> None:
    upcoming = UpcomingAlarms(START, 2)
    upcoming.begin_fill(START + 60 * SECOND)
    upcoming.arm(key("far"), START + 50 * SECOND)
    upcoming.arm(key("a"), START + MS)
    upcoming.arm(key("b"), START + 2 * MS)
    drawn_in = upcoming.horizon
    assert drawn_in <= START + 50 * SECOND
    assert not upcoming.fill(due(("farther", START + 55 * SECOND)), ())
    upcoming.end_fill()
    assert upcoming.horizon == drawn_in


def test_more_is_wanted_when_half_of_a_cut_cache_is_gone() -> None:
    upcoming = UpcomingAlarms(START, 4)
    filled(upcoming, START + 60 * SECOND, *[(number, START) for number in range(6)])
    upcoming.advance(START)
    assert upcoming.take(never)
    # What is ready comes before what the table has yet, so there is no haste.
    assert not upcoming.wants_more
    taken(upcoming, 1)
    assert upcoming.wants_more


def test_more_is_wanted_when_the_horizon_is_reached() -> None:
    upcoming = UpcomingAlarms(START, 4)
    filled(upcoming, START + SECOND)
    upcoming.advance(START + SECOND - 1)
    assert not upcoming.wants_more
    upcoming.advance(START + SECOND)
    assert upcoming.wants_more


def test_the_first_of_a_crowd_at_one_tick_are_taken_and_then_the_next() -> None:
    upcoming = UpcomingAlarms(START, 8)
    table = {key(f"{number:02}"): START + MS for number in range(40)}
    fired: list[AlarmKey] = []
    looks = 0
    upcoming.advance(START + MS)
    while table:
        if upcoming.wants_more:
            looks += 1
            upcoming.begin_fill(START + 60 * SECOND)
            upcoming.fill([DueAlarm(at, each) for each, at in sorted(table.items())], ())
            upcoming.end_fill()
            upcoming.advance(START + MS)
        now = taken(upcoming, 8)
        assert now, "nothing is ready though something is due"
        fired += now
        for each in now:
            del table[each]
    assert len(fired) == len(set(fired)) == 40
    assert looks <= 6


# --- the clock -----------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_begins_anew() -> None:
    upcoming = UpcomingAlarms(START, 8)
    filled(upcoming, START + 60 * SECOND, ("a", START + SECOND), ("b", START + 30 * SECOND))
    upcoming.advance(START + 2 * SECOND)
    assert upcoming.ready == 1
    upcoming.advance(START - 3600 * SECOND)
    # What was ready isn't any more by this clock.
    assert len(upcoming) == 0
    assert upcoming.now == START - 3600 * SECOND
    assert upcoming.wants_more
    assert not upcoming.arm(key("a"), START)
    filled(upcoming, START, ("c", START - 3599 * SECOND))
    upcoming.advance(START - 3599 * SECOND)
    assert names(taken(upcoming, 5)) == ["c"]


def test_a_clock_set_back_while_the_table_is_read_makes_it_be_read_again() -> None:
    upcoming = UpcomingAlarms(START, 8)
    upcoming.begin_fill(START + 60 * SECOND)
    upcoming.fill(due(("a", START)), ())
    upcoming.advance(START - 3600 * SECOND)
    upcoming.fill(due(("b", START)), ())
    upcoming.end_fill()
    assert upcoming.wants_more


def test_a_clock_set_back_by_less_than_a_tick_counts() -> None:
    upcoming = UpcomingAlarms(START + 5, 8)
    filled(upcoming, START + SECOND, ("a", START))
    upcoming.advance(START + 5)
    assert upcoming.ready == 1
    upcoming.advance(START + 4)
    assert upcoming.ready == 0
    assert upcoming.wants_more


def test_a_clock_set_forward_makes_everything_due_in_order() -> None:
    upcoming = UpcomingAlarms(START, 100)
    alarms = [(number, START + number * 700 * MS) for number in range(80)]
    filled(upcoming, START + 60 * SECOND, *alarms)
    upcoming.advance(START + 365 * 86400 * SECOND)
    assert names(taken(upcoming, 100)) == [str(number) for number in range(80)]
    assert upcoming.wants_more
