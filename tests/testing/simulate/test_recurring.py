"""Recurring alarms in simulations: each has one firing to come, or is off, whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from trio_durable import DurableObject, Retry, alarm, handler
from trio_durable._activations.effects import Effects
from trio_durable._alarms.delivery import Delivery
from trio_durable._alarms.recurrence import Recurrence
from trio_durable._api import context
from trio_durable.scheduler._delivery.deliverer import Deliverer
from trio_durable.storage import AlarmChanges, NewAlarm
from trio_durable.testing.simulate import Simulation
from trio_durable.testing.simulate._disk import _Writer

from .objects import simulate, story_of
from .test_search import acknowledge_later, set_later

NAMES = ("read", "sample", "report")
BRIEF = Retry(attempts=2, initial=5, factor=1)


class Broken(Exception):
    pass


class Meter(DurableObject, name="simulated.Meter", hibernate_after=30):
    """Notes with each change of its alarms, in the same commit, which of them are on."""

    on: dict[str, bool] = attrs.field(
        factory=lambda: {"read": True, "sample": False, "report": False}
    )
    last: dict[str, float] = attrs.field(factory=dict)
    """The due time of each alarm's last firing."""
    breaks: int = 0
    attempts: int = 0
    """Of ``sample``."""

    @handler
    def start(self, name: str) -> None:
        self.on[name] = True
        self.ctx.schedule_alarm(name)

    @handler
    def stop(self, name: str) -> None:
        self.on[name] = False
        self.ctx.cancel_alarm(name)

    @handler
    def stop_all(self) -> None:
        self.on = dict.fromkeys(NAMES, False)
        self.ctx.cancel_all_alarms()

    @handler
    def move(self, name: str, after: int) -> None:
        self.on[name] = True
        self.ctx.schedule_alarm(name, after=after)

    @handler
    def keep(self, name: str) -> None:
        self.on[name] = True
        self.ctx.schedule_alarm(name, after=30, keep=True)

    @handler
    def forget(self) -> None:
        self.ctx.delete()

    @handler
    def break_down(self, times: int) -> None:
        self.breaks = times
        for name, is_on in self.on.items():
            if is_on:
                self.ctx.schedule_alarm(name)

    @alarm(every=60, autostart=True, retry=BRIEF)
    def read(self) -> None:
        self._fire()

    @alarm(cron="*/2 * * * *", missed="all", retry=BRIEF)
    async def sample(self) -> None:
        # Stays if the turn fails later, or if it isn't known whether this was stored.
        self.attempts += 1
        await self.ctx.commit()
        self._fire()

    @alarm(every=90, missed="skip", spread=20, retry=BRIEF)
    def report(self) -> None:
        self._fire()

    def _fire(self) -> None:
        current = self.ctx.alarm
        assert current is not None
        name = current.name.partition("@")[0]
        if current.name == name:
            self.last[name] = current.due_at.timestamp()
        if self.breaks:
            raise Broken


class Meters(Simulation):
    objects = (Meter,)
    ids = ("a", "b")
    allowed = (Broken,)
    delays = (1, 60, 400)
    arguments: ClassVar = {
        **{
            f"Meter.{handler}.name": st.sampled_from(NAMES)
            for handler in ("start", "stop", "move", "keep")
        },
        "Meter.move.after": st.sampled_from([10, 200]),
        "Meter.break_down.times": st.sampled_from([0, 1]),
    }

    @invariant()
    def each_alarm_has_one_firing_to_come_or_is_off(self) -> None:
        stored = self.stored(Meter)
        for object_id in self.ids:
            on = stored[object_id].on if object_id in stored else {}
            expected = sorted(name for name, is_on in on.items() if is_on)
            assert sorted(each.name for each in self.alarms(Meter, object_id)) == expected


class SteadyMeters(Meters):
    left_out = ("Meter.move", "Meter.keep")

    @invariant()
    def the_next_firing_is_after_the_last(self) -> None:
        for object_id, meter in self.stored(Meter).items():
            for each in self.alarms(Meter, object_id):
                last = meter.last.get(each.name, 0.0)
                # One that fails has been undone, with its note of the time.
                assert each.due_at.timestamp() > last


class JumpingMeters(Meters):
    clock_jumps = (-3000, 500, 20_000)


YEAR = 366 * 86400
STORIES = int(os.environ.get("TRIO_DURABLE_EXAMPLES", "5"))


def test_recurring_alarms_stand_it() -> None:
    simulate(SteadyMeters, stories=STORIES)


def test_recurring_alarms_stand_clocks_that_jump() -> None:
    simulate(JumpingMeters, stories=STORIES // 2)


def test_a_year_ahead_and_back_leaves_no_firing_a_year_away() -> None:
    state = JumpingMeters()
    try:
        state.call(Meter, "a", "start", "read")
        state.set_clock(YEAR)
        state.wait(400)
        state.set_clock(-YEAR)
        state.crash()
        state.wait(400)
        assert all(
            (each.due_at - state.now).total_seconds() < 200 for each in state.alarms(Meter, "a")
        )
        assert len(state.alarms(Meter, "a")) == 1
    finally:
        state.teardown()


def test_a_clock_is_set_by_a_time_and_only_if_that_is_declared() -> None:
    state = JumpingMeters()
    before = state.now
    state.set_clock(500)
    assert 500 <= (state.now - before).total_seconds() < 510
    with pytest.raises(ValueError, match="by must be seconds or a timedelta"):
        state.set_clock("an hour")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the class has no clock_jumps"):
        Meters().set_clock(1)


# --- planted mistakes ----------------------------------------------------------------------------


def nothing(*_: Any) -> None:
    return None


def unmarked(_recurrences: Any, changes: AlarmChanges, _now: int) -> AlarmChanges:
    return changes


def from_the_start(
    self: Recurrence, key: Any, due_at: int, began: int, now: int
) -> tuple[NewAlarm, None]:
    return NewAlarm(due_at, None, self.fingerprint), None


def dead_for_good(_self: Deliverer, _flight: Any, _stored: Any, dead: Any) -> Any:
    return dead


MISTAKES: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "the next firing is set in a commit of its own": (_Writer, "commit", set_later),
    "a firing is acknowledged in a commit of its own": (_Writer, "commit", acknowledge_later),
    "the turn sets no next firing": (Effects, "end_delivery", nothing),
    "a death ends it": (Deliverer, "_buried", dead_for_good),
    "the next time is the last one": (Recurrence, "following", from_the_start),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_with_recurring_alarms_are_found(
    mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*MISTAKES[mistake])
    with pytest.raises(AssertionError) as raised:
        simulate(SteadyMeters, stories=100, phases=[Phase.generate])
    assert story_of(raised.value)[0] == "state = SteadyMeters()"


def test_a_skip_that_ends_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Delivery, "discarded", lambda self, now: AlarmChanges({self.key.name: self.claim})
    )
    state = SteadyMeters()
    state.call(Meter, "a", "start", "report")
    with pytest.raises(AssertionError):
        state.crash(down_for=400)


def test_one_that_begins_though_it_was_turned_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "with_marks", unmarked)
    state = SteadyMeters()
    state.call(Meter, "a", "stop", "read")
    state.crash()
    with pytest.raises(AssertionError):
        state.call(Meter, "a", "start", "sample")
