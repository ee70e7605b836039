"""The cache of upcoming alarms against a table of alarms that changes while it is read."""

from __future__ import annotations

from copy import deepcopy

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_durable._keys import AlarmKey, Owner
from trio_durable.scheduler._wheel.upcoming import UpcomingAlarms
from trio_durable.storage import DueAlarm

from .upcoming_alarms import MS, SECOND, START, key, never

TTL = 60 * SECOND


ALARMS = [key(number, of) for number, of in enumerate("aaaaaaaabbcd")]
KEYS = st.sampled_from(ALARMS)
# From overdue by minutes to beyond any horizon, close together in places and far apart in others.
TIMES = st.one_of(
    st.integers(-3, 6).map(lambda n: n * MS // 2),
    st.integers(-100, 100).map(lambda n: n * SECOND),
    st.integers(0, 90_000).map(lambda n: n * MS),
)


@attrs.define(eq=False)
class InFlight:
    """As `Deliverer` knows one."""

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
        self.flights: list[InFlight] = []

    def __contains__(self, alarm: object) -> bool:
        return any(flight.is_current for flight in self.flights if flight.key == alarm)

    def is_full(self, object_id: Owner) -> bool:
        return sum(flight.key.owner == object_id for flight in self.flights) >= self.of_object


class AgainstATable(RuleBasedStateMachine):
    """A table of alarms, read page by page while its alarms are set, cancelled and claimed.

    As in the runtime, changes reach the upcoming when they are in the table, and a page may be
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
        self.upcoming = UpcomingAlarms(START, capacity)
        self.table: dict[AlarmKey, int] = {}
        self.claims: dict[AlarmKey, InFlight] = {}
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
        before = self.upcoming.horizon
        known = self.upcoming.arm(alarm, self.now + ahead)
        assert known == (alarm in self.upcoming)
        assert not known or self.now + ahead < before

    @rule()
    def set_a_crowd(self) -> None:
        for alarm in ALARMS:
            self.set_alarm(alarm, 0)

    @rule(alarm=KEYS)
    def cancel(self, alarm: AlarmKey) -> None:
        self.table.pop(alarm, None)
        self.supersede(alarm)
        self.upcoming.disarm(alarm)
        assert alarm not in self.upcoming

    @precondition(lambda self: self.upcoming.ready)
    @rule(ahead=st.none() | TIMES)
    def change_what_comes_next(self, ahead: int | None) -> None:
        alarm = deepcopy(self.upcoming).take(never)
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
            alarm = self.upcoming.take(self.under_way.is_full)
            if alarm is None:
                break
            assert alarm not in self.upcoming
            assert not self.under_way.is_full(alarm.owner)
            if alarm not in self.under_way:
                due = max(self.now, self.upcoming.reached)
                self.under_way.flights.append(InFlight(alarm, due))

    def claiming(self) -> list[InFlight]:
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
        self.upcoming.advance(self.now)
        self.begin_claim(5)
        self.claim()

    @rule()
    def fail_to_claim(self) -> None:
        claiming = self.claiming()
        for flight in claiming:
            self.settle(flight)
        keys = [flight.key for flight in claiming if flight.is_current]
        self.upcoming.put_back(keys)
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
            self.upcoming.disarm(alarm)
            self.settle(flight)
            return
        assert flight.row is not None
        again_at = flight.row
        if flight.is_current and again_after:
            again_at = self.now + again_after * SECOND
        if has_claim:
            self.table[alarm] = again_at
        self.settle(flight)
        if alarm not in self.upcoming:
            self.upcoming.arm(alarm, again_at)

    def settle(self, flight: InFlight) -> None:
        self.under_way.flights.remove(flight)
        self.upcoming.unpark(flight.key.owner)

    # Reading it.

    @precondition(lambda self: self.fill_horizon is None)
    @rule(reach=st.sampled_from([5 * MS, 10 * SECOND, 60 * SECOND]))
    def begin_look(self, reach: int) -> None:
        self.fill_horizon = self.now + reach
        self.last = None
        self.on_its_way = None
        self.upcoming.begin_fill(self.fill_horizon)

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
        has_room = self.upcoming.fill(page, self.under_way)
        if has_room and len(page) == self.page:
            self.last = page[-1]
        else:
            self.upcoming.end_fill()
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
        self.upcoming.advance(self.now, lead)
        assert self.upcoming.reached > self.now - MS

    @rule()
    def sleep(self) -> None:
        time = self.upcoming.next_time()
        if time is not None:
            self.now = max(self.now, time)
            self.upcoming.advance(self.now)

    # Seldom, because little is known after that.
    @rule(step=st.sampled_from([1, SECOND, 1000 * SECOND]), chance=st.integers(0, 9))
    def set_clock_back(self, step: int, chance: int) -> None:
        if chance == 9:
            self.now -= step
            self.upcoming.advance(self.now)
            self.put_back = 0

    @rule(ahead=TIMES)
    def hint(self, ahead: int) -> None:
        self.upcoming.hint(self.now + ahead)

    # What holds.

    def known_before_the_horizon(self) -> set[AlarmKey]:
        """Alarms that the cache should know. While the table is being read, nothing is promised."""
        if self.fill_horizon is not None:
            return set()
        return {
            each
            for each, at in self.table.items()
            if at < self.upcoming.horizon and each not in self.under_way and each not in self.claims
        }

    @invariant()
    def everything_before_the_horizon_is_known(self) -> None:
        missing = [each for each in self.known_before_the_horizon() if each not in self.upcoming]
        assert not missing

    @rule()
    def everything_before_the_horizon_is_ready_in_time(self) -> None:
        self.check_readiness()

    def check_readiness(self) -> None:
        promised = self.known_before_the_horizon()
        later, under_way = deepcopy(self.upcoming), deepcopy(self.under_way)
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
        assert len(self.upcoming) <= self.capacity + self.put_back
        assert self.upcoming.ready <= len(self.upcoming)

    @invariant()
    def nothing_is_missed_by_sleeping(self) -> None:
        time = self.upcoming.next_time()
        if time is not None:
            sleeping = deepcopy(self.upcoming)
            ready = sleeping.ready
            sleeping.advance(max(sleeping.now, time - MS))
            assert sleeping.ready == ready or time <= self.upcoming.reached
        # Asleep means that nothing is waiting to be taken or looked for.
        elif not self.upcoming.ready and not self.upcoming.wants_more:
            known = self.known_before_the_horizon()
            # What is parked waits for what is under way.
            busy = {flight.key.owner for flight in self.under_way.flights}
            assert {each.owner for each in known} <= busy

    def teardown(self) -> None:
        if hasattr(self, "upcoming"):
            self.check_readiness()


def drained(upcoming: UpcomingAlarms, under_way: UnderWay) -> set[AlarmKey]:
    """What comes if there is always time for it, and all that is under way ends."""
    came: set[AlarmKey] = set()
    while True:
        while (alarm := upcoming.take(under_way.is_full)) is not None:
            came.add(alarm)
            under_way.flights.append(InFlight(alarm, 0))
        if not under_way.flights:
            return came
        upcoming.unpark(under_way.flights.pop(0).key.owner)


TestAgainstATable = AgainstATable.TestCase
TestAgainstATable.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, report_multiple_bugs=False
)
