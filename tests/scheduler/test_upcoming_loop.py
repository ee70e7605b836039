"""Upcoming alarms in a scheduler's loop: every alarm fires, with few looks at the storage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_durable._keys import AlarmKey, Owner
from trio_durable.scheduler._wheel.upcoming import UpcomingAlarms
from trio_durable.storage import DueAlarm

from .upcoming_alarms import MS, SECOND, START, key


@attrs.define
class Simulation:
    """What `WheelScheduler` does with upcoming alarms, without tasks: a look takes no time."""

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
        upcoming = UpcomingAlarms(self.now, self.capacity)
        later = sorted(later)
        polled = -self.polling_interval
        while self.table or later:
            self.rounds += 1
            upcoming.advance(self.now)
            self.land(upcoming)
            if upcoming.wants_more or self.now >= polled + self.polling_interval:
                polled = self.now
                self.look(upcoming)
                upcoming.advance(self.now)
            if upcoming.ready and len(self.under_way) < self.room:
                self.fire(upcoming)
                continue
            # What `expect` is told wakes the loop if it comes before all else it waits for.
            time = upcoming.next_time()
            sleeps_until = 2**63 if time is None else time
            assert sleeps_until > self.now, "there is nothing to do, and nothing to wait for"
            wakes_at = min([sleeps_until, polled + self.polling_interval, *self.landings()])
            while later and later[0][0] <= wakes_at:
                self.now, alarm, at = later.pop(0)
                self.table[alarm] = at
                self.set_at[alarm] = self.now
                is_known = upcoming.arm(alarm, at)
                if at < sleeps_until and (is_known or upcoming.is_cut):
                    wakes_at = self.now
            self.now = max(self.now, wakes_at)
        assert not len(upcoming), "something is here that is nowhere else"

    def landings(self) -> list[int]:
        return [until for until, _ in self.under_way]

    def land(self, upcoming: UpcomingAlarms) -> None:
        for until, alarm in [each for each in self.under_way if each[0] <= self.now]:
            self.under_way.remove((until, alarm))
            upcoming.unpark(alarm.owner)

    def look(self, upcoming: UpcomingAlarms) -> None:
        self.looks += 1
        horizon = self.now + 2 * self.polling_interval
        upcoming.begin_fill(horizon)
        rows = sorted((at, each) for each, at in self.table.items() if at < horizon)
        for start in range(0, len(rows), self.page):
            page = [DueAlarm(*row) for row in rows[start : start + self.page]]
            if not upcoming.fill(page, ()):
                break
        upcoming.end_fill()

    def is_full(self, object_id: Owner) -> bool:
        return sum(alarm.owner == object_id for _, alarm in self.under_way) >= self.of_object

    def fire(self, upcoming: UpcomingAlarms) -> None:
        while len(self.under_way) < self.room:
            alarm = upcoming.take(self.is_full)
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
    # At least half of the cache is new each time.
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
    monkeypatch.setattr("trio_durable.scheduler._wheel.upcoming.MAX_PARKED_PER_OBJECT", 2)
    upcoming = UpcomingAlarms(START, 6)
    crowd = [DueAlarm(START - 20 + n, key(f"{n:02}", "crowded")) for n in range(20)]
    other = DueAlarm(START, key("x", "other"))
    left = [*crowd, other]
    done: list[AlarmKey] = []
    for _ in range(50):
        if upcoming.wants_more:
            upcoming.begin_fill(START + SECOND)
            upcoming.fill(left, ())
            upcoming.end_fill()
        upcoming.advance(START)
        under_way: dict[Owner, AlarmKey] = {}  # one of each object
        while (each := upcoming.take(under_way.__contains__)) is not None:
            under_way[each.owner] = each
        assert len(upcoming) <= 2
        for object_id, each in under_way.items():
            done.append(each)
            left = [alarm for alarm in left if alarm.key != each]
            upcoming.unpark(object_id)
    assert not left
    assert [each for each in done if each != other.key] == [alarm.key for alarm in crowd]
    assert done.index(other.key) < 10
