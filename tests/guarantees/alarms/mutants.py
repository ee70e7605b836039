"""Recurring alarms with one rule broken, to see that a test notices.

    PYTHONPATH=tests python -m guarantees.alarms.mutants           all mutants
    PYTHONPATH=tests python -m guarantees.alarms.mutants NAME …    some of them

Each mutant has the test that must find it. See `exactness.mutants`, which makes them.
"""

from __future__ import annotations

import sys

from exactness.mutants import BOUNDED_TESTS, Mutant, main

_RECURRING = "guarantees/alarms/test_recurring.py"
_CORNERS = "guarantees/alarms/test_recurring_corners.py"
_SCHEDULERS = "scheduler/test_conformance.py"
_RECURRENCE = "_alarms/recurrence.py"
_ON_BOTH_LOOPS = (_RECURRING, _CORNERS, _SCHEDULERS, "cluster/test_member_alarms.py")

CHECKS: dict[str, tuple[str, ...]] = {
    name: (*BOUNDED_TESTS, path, "-k", f"({test}) and trio" if path in _ON_BOTH_LOOPS else test)
    for name, path, test in (
        ("delay", _RECURRING, "whatever_the_delay"),
        ("dead letter", _RECURRING, "dead_letter_does_not_end_it"),
        ("spread", "alarms/test_recurrence.py", "spread"),
        ("off", _RECURRING, "stays_off"),
        ("another schedule", _RECURRING, "another_schedule"),
        ("acknowledged", _RECURRING, "in_the_commit_that_acknowledges"),
        ("unhandled", _RECURRING, "older_release_without"),
        ("doubled hour", "alarms/test_cron.py", "second_pass or comes_once"),
        ("year", _RECURRING, "year_ahead_and_back"),
        ("acquired", _SCHEDULERS, "as_they_come"),
        ("lost commit", _SCHEDULERS, "commit_fails_has_one_successor"),
        ("kept mark", _SCHEDULERS, "keeps_its_mark_and_its_time"),
        ("death", _SCHEDULERS, "firing_that_dies"),
        ("skipped", _SCHEDULERS, "too_late_is_skipped"),
        ("kept in flight", _SCHEDULERS, "kept_while_it_runs or on_while_it_runs"),
        ("kept time", _SCHEDULERS, "kept_keeps_its_time"),
        ("merged", "persistence/test_alarm_changes.py", "merge_in_order"),
        ("catch-all", _CORNERS, "handles_any_alarm_leaves_it"),
        ("past", _CORNERS, "moved_to_the_past"),
        ("own turn", _CORNERS, "own_turn_keeps"),
        ("look-alike", _CORNERS, "only_looks_like"),
        ("thousand", "alarms/test_recurrence.py", "however_they_lie"),
        ("catching up", "alarms/test_recurrence.py", "catching_up"),
        ("just set", "alarms/test_recurrence.py", "just_set"),
        ("stale time", _SCHEDULERS, "time_from_before_a_firing"),
        ("by the owner", "cluster/test_member_alarms.py", "by_who_has"),
    )
}

MUTANTS = [
    Mutant(
        "next_from_now",
        "an interval is counted from when the last firing was delivered",
        "delay",
        _RECURRENCE,
        "due_at + ((latest - due_at) // interval + 1) * interval",
        "latest + interval",
    ),
    Mutant(
        "dead_letter_ends_recurrence",
        "a firing that becomes a dead letter sets no next one",
        "dead letter",
        "scheduler/_delivery/deliverer.py",
        "        if (following := flight.delivery.following(self._clock.now())) is None:\n",
        "        if (following := flight.delivery.following(self._clock.now())) or True:\n",
    ),
    Mutant(
        "negative_spread",
        "an object's firings are earlier than the schedule",
        "spread",
        _RECURRENCE,
        "return int.from_bytes(digest) % self.spread",
        "return -(int.from_bytes(digest) % self.spread)",
    ),
    Mutant(
        "cancel_without_mark",
        "a recurring alarm that is cancelled leaves no mark",
        "off",
        _RECURRENCE,
        "stopped(now) if new is None and name in recurrences else new",
        "new",
    ),
    Mutant(
        "fingerprint_not_compared",
        "an alarm of another schedule keeps its time",
        "another schedule",
        _RECURRENCE,
        "differs = is_late or stored.recurrence != new.recurrence",
        "differs = is_late",
    ),
    Mutant(
        "next_firing_not_staged",
        "the turn that handles an alarm doesn't set the next one",
        "acknowledged",
        "_activations/effects.py",
        "        if not alarms.supersedes(name):\n"
        "            alarms.changed[name] = delivery.following(now)",
        "        if False:\n            alarms.changed[name] = delivery.following(now)",
    ),
    Mutant(
        "unhandled_recurrence_discarded",
        "a recurring alarm that nothing handles is acknowledged",
        "unhandled",
        "_alarms/delivery.py",
        "        if self.is_of_other_release:\n            raise",
        "        if False:\n            raise",
    ),
    Mutant(
        "doubled_hour_fires_twice",
        "a certain time comes in both passes of a doubled hour",
        "doubled hour",
        "_alarms/cron.py",
        "return self._names_times and first > offset",
        "return False",
    ),
    Mutant(
        "far_future_kept",
        "an alarm that lies beyond its next time isn't pulled in at the start",
        "year",
        "scheduler/_wheel/scheduler.py",
        "            tasks.start_soon(self._start_check.run)\n",
        "",
    ),
    Mutant(
        "acquired_not_checked",
        "a member doesn't check the far times of objects that it has got",
        "acquired",
        "scheduler/_wheel/scheduler.py",
        "        self._start_check.request()\n",
        "",
    ),
    Mutant(
        "lost_commit_forgets_next",
        "the next firing that a commit of unknown outcome has set is found at the next poll only",
        "lost commit",
        "scheduler/_wheel/scheduler.py",
        "        if flight.is_uncertain:",
        "        if False:",
    ),
    Mutant(
        "retry_drops_mark",
        "a retry is written as an alarm that is set, without its mark",
        "kept mark",
        "storage/_memory_alarms.py",
        "            crashes=record.crashes,\n",
        "            crashes=record.crashes,\n            recurrence=None,\n",
    ),
    Mutant(
        "next_outside_of_the_record",
        "the record of a death hasn't the next firing, which would be set later",
        "death",
        "scheduler/_delivery/deliverer.py",
        "dead_firing=DeadFiring(name, FIRING, following)",
        "dead_firing=None",
    ),
    Mutant(
        "delivery_not_begun",
        "the scheduler delivers a firing that is too late",
        "skipped",
        "_alarms/delivery.py",
        "        self.is_skipped = recurrence is not None and recurrence.skips(stored, now)\n",
        "",
    ),
    Mutant(
        "condition_supersedes",
        "a change that may not apply supersedes the delivery",
        "kept in flight",
        "storage/_records.py",
        "        return new is None or not new.is_conditional\n",
        "        return new is not _UNCHANGED\n",
    ),
    Mutant(
        "condition_is_believed",
        "an alarm that is kept is expected at the time that it hasn't got",
        "kept time",
        "scheduler/_wheel/scheduler.py",
        "elif new.is_conditional and self._may_be_kept(alarm_key, new):",
        "elif False:",
    ),
    Mutant(
        "condition_outlives_row",
        "a condition is applied to the row that a later turn has acknowledged by then",
        "merged",
        "storage/_records.py",
        "                del self.changed[name]\n",
        "                pass\n",
    ),
    Mutant(
        "catch_all_ends_it",
        "the catch-all handler of an older release gets a recurring alarm",
        "catch-all",
        "_activations/calls.py",
        "        if handler is self.object_type.handle_alarm and delivery.is_of_other_release:\n",
        "        if False:\n",
    ),
    Mutant(
        "moved_to_the_past",
        "a firing that is moved to the past is skipped, or brings back what was since then",
        "past",
        "_alarms/input.py",
        "MOVED, max(due_at, now)",
        "MOVED, due_at",
    ),
    Mutant(
        "own_condition_committed_early",
        "a commit within an alarm's turn applies its condition while the row is there",
        "own turn",
        "_activations/effects.py",
        "own = {name: changed.pop(name)} if name in changed else {}",
        "own: dict[str, NewAlarm | None] = {}",
    ),
    Mutant(
        "any_at_is_a_letter",
        "an alarm with an @ in its name is taken for a firing that has died",
        "look-alike",
        _RECURRENCE,
        "return name if letter is None else letter[1]",
        "return name.partition('@')[0]",
    ),
    Mutant(
        "no_bound",
        "all that a year has missed is delivered",
        "thousand",
        _RECURRENCE,
        "if len(last) < MOST_MISSED or last[0] + offset <= following:",
        "if True:",
    ),
    Mutant(
        "backlog_counted_each_time",
        "each firing of a backlog computes all times of it",
        "catching up",
        "_alarms/cron.py",
        "        times = _last_times(self, (until // _HOUR + 1) * _HOUR, number + 60)\n",
        "        times = _last_times.__wrapped__(self, until, number)\n",
    ),
    Mutant(
        "late_at_once",
        "what a firing has just set is too late for a clock that is behind by a moment",
        "just set",
        _RECURRENCE,
        "TOLERANCE = 60_000_000\n",
        "TOLERANCE = 0\n",
    ),
    Mutant(
        "turning_on_pulls_in",
        "turning an alarm on sets it back to a time from before its firing",
        "stale time",
        "storage/_memory_alarms.py",
        "is_late = Onto.LATE in new.onto and self.due_at > new.due_at",
        "is_late = self.due_at > new.due_at",
    ),
    Mutant(
        "members_check_nothing",
        "a member that gets objects only looks for what is due",
        "by the owner",
        "_runtime/open_runtime.py",
        "        self.scheduler.acquired()\n",
        "        self.scheduler.uncertain()\n",
    ),
]

if __name__ == "__main__":
    sys.exit(main("python -m guarantees.alarms.mutants", MUTANTS, CHECKS))
