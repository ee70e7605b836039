"""The timing wheel against a dictionary and a heap: every order of calls, and its boundaries."""

from __future__ import annotations

import heapq
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_durable.scheduler import TimingWheel
from trio_durable.scheduler._wheel.timing_wheel import MAX_TICK

KEYS = st.integers(0, 30)
# Distances that lie around the ends of slots and levels: 1, 64, 4096 and so on.
STEPS = st.one_of(
    st.integers(0, 200),
    st.builds(
        lambda level, times, off: max(0, 64**level * times + off),
        st.integers(1, 7),
        st.integers(1, 64),
        st.integers(-2, 2),
    ),
    st.integers(0, MAX_TICK),
)


class AgainstADictionary(RuleBasedStateMachine):
    """A dictionary of due ticks is the model. Ties may come in any order, so they're compared
    as sets.
    """

    @initialize(now=st.one_of(st.just(0), st.just(MAX_TICK), st.integers(0, MAX_TICK), STEPS))
    def begin(self, now: int) -> None:
        now = min(now, MAX_TICK)
        self.wheel: TimingWheel[int] = TimingWheel(now)
        self.now = now
        self.model: dict[int, int] = {}

    @rule(key=KEYS, ahead=STEPS)
    def insert(self, key: int, ahead: int) -> None:
        due = min(self.now + ahead, MAX_TICK)
        self.wheel.insert(key, due)
        self.model[key] = due

    @rule(key=KEYS, past=st.one_of(STEPS, st.integers(0, 2**70)))
    def insert_what_is_past(self, key: int, past: int) -> None:
        self.wheel.insert(key, self.now - past)
        self.model[key] = self.now - past

    @rule(key=KEYS, unaligned=st.integers(0, MAX_TICK))
    def insert_anywhere(self, key: int, unaligned: int) -> None:
        self.wheel.insert(key, unaligned)
        self.model[key] = unaligned

    @rule(key=KEYS)
    def cancel(self, key: int) -> None:
        assert self.wheel.cancel(key) == (key in self.model)
        self.model.pop(key, None)

    @rule(step=STEPS)
    def advance(self, step: int) -> None:
        self.advance_to(min(self.now + step, MAX_TICK))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), off=st.integers(-1, 1))
    def advance_to_about_an_entry(self, data: st.DataObject, off: int) -> None:
        tick = data.draw(st.sampled_from(sorted(self.model.values()))) + off
        if self.now <= tick <= MAX_TICK:
            self.advance_to(tick)

    @rule()
    def advance_to_the_next_tick(self) -> None:
        tick = self.wheel.next_tick()
        if tick is not None:
            self.advance_to(tick)

    def advance_to(self, now: int) -> None:
        due = self.wheel.advance(now)
        expected = {key: tick for key, tick in self.model.items() if tick <= now}
        assert len(due) == len(set(due))
        assert set(due) == expected.keys()
        ticks = [expected[key] for key in due]
        assert ticks == sorted(ticks)
        for key in due:
            del self.model[key]
        self.now = now

    @rule(count=st.integers(0, 35), ahead=st.one_of(STEPS, STEPS.map(lambda step: -step)))
    def drop_the_last(self, count: int, ahead: int) -> None:
        self.drop(count, self.now + ahead)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), count=st.integers(0, 35), off=st.integers(-1, 1))
    def drop_the_last_about_an_entry(self, data: st.DataObject, count: int, off: int) -> None:
        self.drop(count, data.draw(st.sampled_from(sorted(self.model.values()))) + off)

    def drop(self, count: int, beyond: int) -> None:
        # What is due already is not far away, whatever is asked.
        late = sorted(tick for tick in self.model.values() if tick > max(beyond, self.now))
        expected = late[-count:] if count else []
        first = self.wheel.drop_last(count, beyond)
        assert first == (expected[0] if expected else None)
        gone = self.model.keys() - {key for key in self.model if key in self.wheel}
        assert sorted(self.model[key] for key in gone) == expected
        for key in gone:
            del self.model[key]

    @invariant()
    def what_is_in_it_is_known(self) -> None:
        assert self.wheel.now == self.now
        assert len(self.wheel) == len(self.model)
        assert {key for key in range(31) if key in self.wheel} == self.model.keys()

    @invariant()
    def nothing_is_due_before_the_next_tick(self) -> None:
        tick = self.wheel.next_tick()
        if not self.model:
            assert tick is None
            return
        assert tick is not None
        nearest = min(self.model.values())
        assert self.now <= tick <= max(nearest, self.now)
        # Sleeping until then gets somewhere: it is ahead, unless something is due now.
        assert (tick == self.now) == (nearest <= self.now)


TestAgainstADictionary = AgainstADictionary.TestCase
TestAgainstADictionary.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


@given(
    st.integers(0, 2**40),
    st.lists(st.tuples(st.integers(0, 2**30), st.booleans()), max_size=60),
    st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2**28)), max_size=30),
)
@settings(max_examples=200, deadline=None)
def test_it_gives_what_a_heap_gives(
    start: int, entries: list[tuple[int, bool]], steps: list[int]
) -> None:
    # What is cancelled stays in the heap until it comes up.
    wheel: TimingWheel[int] = TimingWheel(start)
    heap: list[tuple[int, int]] = []
    cancelled: set[int] = set()
    now = start
    waiting = list(enumerate(entries))
    for step in [*steps, 2**31]:
        # A few more at each step, so that they are placed relative to different presents.
        for _ in range(3):
            if waiting:
                key, (ahead, is_cancelled) = waiting.pop()
                wheel.insert(key, now + ahead)
                heapq.heappush(heap, (now + ahead, key))
                if is_cancelled:
                    assert wheel.cancel(key)
                    cancelled.add(key)
        now += step
        expected: list[tuple[int, int]] = []
        while heap and heap[0][0] <= now:
            tick, key = heapq.heappop(heap)
            if key not in cancelled:
                expected.append((tick, key))
        ticks = {key: tick for tick, key in expected}
        got = wheel.advance(now)
        assert [ticks[key] for key in got] == [tick for tick, _ in expected]
        assert sorted(got) == sorted(key for _, key in expected)
    assert len(wheel) == 0
    assert not heap


BOUNDARIES = sorted(
    {
        64**level * times + off
        for level in range(8)
        for times in (1, 2, 63, 64)
        for off in (-1, 0, 1)
        if 0 < 64**level * times + off <= MAX_TICK
    }
)


@pytest.mark.parametrize("start", [0, 1, 62, 63, 64, 4095, 4096, 262_143, 1_790_000_000_000])
def test_each_is_due_at_its_own_tick_and_not_one_before(start: int) -> None:
    for ahead in BOUNDARIES:
        due = start + ahead
        if due > MAX_TICK:
            continue
        wheel: TimingWheel[str] = TimingWheel(start)
        wheel.insert("x", due)
        assert wheel.advance(due - 1) == []
        assert wheel.next_tick() == due
        assert wheel.advance(due) == ["x"]
        assert len(wheel) == 0
        assert wheel.next_tick() is None


@pytest.mark.parametrize("start", [0, 63, 4095, 1_790_000_000_000])
def test_one_jump_gives_all_in_the_order_of_their_ticks(start: int) -> None:
    ticks = [start + ahead for ahead in BOUNDARIES if start + ahead <= MAX_TICK]
    wheel: TimingWheel[int] = TimingWheel(start)
    for tick in ticks[::2] + ticks[1::2][::-1]:
        wheel.insert(tick, tick)
    assert wheel.advance(MAX_TICK) == ticks


def test_sleeping_until_the_next_tick_takes_few_steps() -> None:
    # One per level at most, however far away the entry is.
    wheel: TimingWheel[str] = TimingWheel(1)
    wheel.insert("x", MAX_TICK)
    steps = 0
    while "x" in wheel:
        tick = wheel.next_tick()
        assert tick is not None
        assert tick > wheel.now
        wheel.advance(tick)
        steps += 1
    assert wheel.now == MAX_TICK
    assert steps <= 8


def test_the_last_tick_of_all_can_be_reached() -> None:
    wheel: TimingWheel[str] = TimingWheel(MAX_TICK)
    wheel.insert("now", MAX_TICK)
    assert wheel.next_tick() == MAX_TICK
    assert wheel.advance(MAX_TICK) == ["now"]


def test_what_is_past_is_due_at_once_oldest_first() -> None:
    wheel: TimingWheel[str] = TimingWheel(1000)
    wheel.insert("present", 1000)
    wheel.insert("long ago", -5)
    wheel.insert("a moment ago", 999)
    assert wheel.next_tick() == 1000
    assert wheel.drop_last(3, -10) is None
    assert wheel.advance(1000) == ["long ago", "a moment ago", "present"]


def test_what_is_overdue_comes_before_what_became_due_since() -> None:
    wheel: TimingWheel[str] = TimingWheel(1000)
    wheel.insert("soon", 1001)
    wheel.insert("late", 10)
    assert wheel.advance(5000) == ["late", "soon"]


def test_a_key_inserted_again_is_due_at_its_new_tick_only() -> None:
    wheel: TimingWheel[str] = TimingWheel(0)
    for old in (0, 5, 70, 5000, 10**9):
        for new in (-1, 6, 71, 5001, 10**9 + 1):
            now = wheel.now
            wheel.insert("x", now + old)
            wheel.insert("x", now + new)
            assert len(wheel) == 1
            if new > 0:
                assert wheel.advance(now + new - 1) == []
            assert wheel.advance(now + max(new, 0)) == ["x"]


def test_a_slot_that_was_emptied_by_cancelling_is_not_looked_at() -> None:
    wheel: TimingWheel[str] = TimingWheel(0)
    wheel.insert("a", 70)
    wheel.insert("b", 71)
    wheel.insert("c", 5000)
    assert wheel.next_tick() == 64
    wheel.cancel("a")
    assert wheel.next_tick() == 64
    wheel.cancel("b")
    assert wheel.next_tick() == 4096
    assert not wheel.cancel("b")


def test_the_last_go_across_slots_and_levels_and_nothing_else_does() -> None:
    wheel: TimingWheel[str] = TimingWheel(0)
    wheel.insert("near", 3)
    wheel.insert("nearer", 2)
    wheel.insert("far", 4096)
    wheel.insert("farther", 8191)  # in the same slot
    wheel.insert("overdue", -1)
    assert wheel.drop_last(1, 0) == 8191
    assert "farther" not in wheel
    assert wheel.drop_last(2, 0) == 3
    assert "far" not in wheel
    assert "near" not in wheel
    assert len(wheel) == 2
    assert wheel.next_tick() == 0
    assert wheel.drop_last(9, -5) == 2
    assert wheel.drop_last(9, -5) is None
    assert wheel.advance(10_000) == ["overdue"]


def test_what_is_due_at_the_tick_itself_is_not_beyond_it() -> None:
    wheel: TimingWheel[str] = TimingWheel(0)
    wheel.insert("at", 5000)
    wheel.insert("beyond", 5001)
    wheel.insert("far beyond", 10**9)
    assert wheel.drop_last(9, 5000) == 5001
    assert wheel.drop_last(9, 5000) is None
    assert wheel.advance(5000) == ["at"]


def test_of_those_due_at_one_tick_as_many_go_as_are_to() -> None:
    wheel: TimingWheel[int] = TimingWheel(0)
    for key in range(10):
        wheel.insert(key, 70)
    assert wheel.drop_last(4, 69) == 70
    assert len(wheel) == 6
    assert wheel.drop_last(0, 69) is None
    assert len(wheel.advance(70)) == 6


def test_no_slots_are_left_behind_when_the_wheel_is_empty() -> None:
    # The same wheel serves for years.
    wheel: TimingWheel[int] = TimingWheel(1_790_000_000_000)
    for turn in range(200):
        for key in range(20):
            wheel.insert(key, wheel.now + (key * 977 * 13**turn) % 10**9)
        for key in range(0, 20, 3):
            wheel.cancel(key)
        ticks = []
        while (tick := wheel.next_tick()) is not None:
            wheel.advance(tick)
            ticks.append(tick)
        assert all(earlier < later for earlier, later in pairwise(ticks))
        assert len(wheel) == 0
        assert wheel.drop_last(1, -1) is None


@pytest.mark.parametrize("now", [-1, MAX_TICK + 1, -(2**70), 2**70])
def test_the_present_must_be_a_tick(now: int) -> None:
    with pytest.raises(ValueError, match=f"not {now}$"):
        TimingWheel(now)
    wheel: TimingWheel[str] = TimingWheel(5)
    wheel.insert("x", 6)
    with pytest.raises(ValueError, match=f"not {now}$"):
        wheel.advance(now)
    assert wheel.advance(6) == ["x"]


def test_time_does_not_go_back() -> None:
    wheel: TimingWheel[str] = TimingWheel(100)
    wheel.insert("overdue", 1)
    wheel.insert("x", 101)
    with pytest.raises(ValueError, match=r"^tick 99 is in the past of 100$"):
        wheel.advance(99)
    # A refusal changes nothing.
    assert wheel.now == 100
    assert wheel.advance(101) == ["overdue", "x"]


@pytest.mark.parametrize("due", [MAX_TICK + 1, sys.maxsize, 2**100])
def test_what_is_beyond_the_last_tick_is_refused_and_nothing_changes(due: int) -> None:
    wheel: TimingWheel[str] = TimingWheel(0)
    wheel.insert("x", 7)
    with pytest.raises(ValueError, match=f"^tick {due} is beyond the wheel's last"):
        wheel.insert("x", due)
    with pytest.raises(ValueError, match=f"^tick {due} is beyond the wheel's last"):
        wheel.insert("y", due)
    assert "y" not in wheel
    assert wheel.advance(7) == ["x"]


def test_keys_are_any_hashable_things() -> None:
    wheel: TimingWheel[object] = TimingWheel(0)
    wheel.insert(("a", 1), 2)
    wheel.insert(None, 1)
    assert None in wheel
    assert wheel.advance(2) == [None, ("a", 1)]
