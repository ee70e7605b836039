"""Recurring alarms with one rule broken, to see that a test notices.

    PYTHONPATH=tests python -m guarantees.alarms.mutants           all mutants
    PYTHONPATH=tests python -m guarantees.alarms.mutants NAME …    some of them

Each mutant has the test that must find it. See `exactness.mutants`, which makes them.
"""

from __future__ import annotations

import sys

from exactness.mutants import TESTS, Mutant, main

_TESTS = (*TESTS, "-q", "-x", "-p", "no:xdist", "--timeout", "60", "--timeout-method", "thread")
_RECURRING = "guarantees/alarms/test_recurring.py"
_RECURRENCE = "_alarms/recurrence.py"

CHECKS: dict[str, tuple[str, ...]] = {
    name: (*_TESTS, path, "-k", f"{test} and trio" if path == _RECURRING else test)
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
        "scheduler/_wheel/deliverer.py",
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
        "differs = stored.recurrence != new.recurrence or stored.due_at > new.due_at",
        "differs = False",
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
]

if __name__ == "__main__":
    sys.exit(main("python -m guarantees.alarms.mutants", MUTANTS, CHECKS))
