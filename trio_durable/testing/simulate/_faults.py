"""What goes wrong, and at which point of a step.

A process may die at any moment, but what survives it only changes at a few: where the storage
writes, and where something is done to the world outside. A crash anywhere else comes to the same
as one at the point before. So these points are counted, and a fault names one of them, in words
that read well in a story: ``"crash after commit 2"``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, Self, get_args

import attrs

Verb = Literal["crash", "fail"]
When = Literal["before", "after"]
What = Literal["commit", "claim", "load", "effect"]


_MOST_CLAIMS = 2000
"""In a step. An alarm each minute of a day is less; these take about a second."""


class ProcessDied(BaseException):
    """Ends what still runs in a process that has crashed, as nothing there runs on.

    Not an `Exception`, for no handler may survive it. What handlers do on their way out counts
    for nothing any more.
    """


_VERBS: dict[str, Verb] = {verb: verb for verb in get_args(Verb)}
_WHENS: dict[str, When] = {when: when for when in get_args(When)}
_WHATS: dict[str, What] = {what: what for what in get_args(What)}

_DRAWN: dict[Verb, frozenset[tuple[When, What]]] = {
    # Where nothing has changed since the point before, a crash comes to the same as there.
    "crash": frozenset(
        {("before", "commit"), ("after", "commit"), ("after", "claim"), ("after", "effect")}
    ),
    "fail": frozenset(
        {
            ("before", "commit"),
            ("after", "commit"),
            ("before", "claim"),
            ("after", "claim"),
            ("before", "effect"),
            ("after", "effect"),
            ("before", "load"),
        }
    ),
}


@attrs.frozen
class Fault:
    """Something that goes wrong at the n-th point of a kind."""

    verb: Verb
    """The process crashes, or what was tried fails and the process goes on."""
    when: When
    """Whether that comes before it is done or after, when it is done but nobody knows."""
    what: What
    number: int
    """Counted from 1, in one step."""

    def __str__(self) -> str:
        return f"{self.verb} {self.when} {self.what} {self.number}"

    @classmethod
    def of(cls, text: str) -> Self:
        """The fault that ``text`` describes.

        Raises:
            ValueError: There is none such.
        """
        match text.split(" "):
            case [verb, when, what, number] if (
                verb in _VERBS
                and when in _WHENS
                and what in _WHATS
                and re.fullmatch("[1-9][0-9]*", number, re.ASCII)
            ):
                return cls(_VERBS[verb], _WHENS[when], _WHATS[what], int(number))
        raise ValueError(
            f"{text!r} is no fault; one is crash or fail, before or after, commit, claim, load or "
            "effect, and which one in the step: 'crash after commit 1'"
        )


@attrs.frozen
class Chance:
    """A fault as it is drawn: before it is known which points there will be in the step."""

    verb: Verb
    point: int
    """At which of all points where that makes sense, counted from 1."""


class Faults:
    """What is to go wrong in a step, and what has.

    Args:
        unfailing: The names of effects outside that can't fail.
    """

    def __init__(self, unfailing: Sequence[str]) -> None:
        self._unfailing = unfailing
        self.begin_step(None)

    def begin_step(self, expected: str | Chance | None) -> None:
        """Begin a step in which ``expected`` is to happen, if there is such a point.

        Raises:
            ValueError: There can be no such fault.
        """
        self.struck: Fault | None = None
        """What has happened in this step."""
        self._expected = self._given(expected) if isinstance(expected, str) else expected
        self._passed: Counter[tuple[When, What]] = Counter()
        self._chances = 0

    def _given(self, text: str) -> Fault:
        fault = Fault.of(text)
        if (fault.verb, fault.what) == ("fail", "effect") and self._unfailing:
            raise ValueError(f"{text!r}: {', '.join(self._unfailing)} has no fails_with")
        return fault

    def check_claims(self) -> Literal[False]:
        """Look after the alarms that fire in the step.

        Raises:
            AssertionError: So many that a search would take for ever.
        """
        if self._passed["before", "claim"] > _MOST_CLAIMS:
            raise AssertionError(
                f"alarms fired more than {_MOST_CLAIMS} times in one wait; let less time pass, by "
                "delays of the simulation that are nearer to those of its alarms"
            )
        return False

    def strikes(self, when: When, what: What) -> Verb | None:
        """What goes wrong at this point, if something does."""
        expected = self._expected
        point: tuple[When, What] = (when, what)
        self._passed[point] += 1
        if expected is None or self.struck is not None:
            return None
        fault = Fault(expected.verb, when, what, self._passed[point])
        if isinstance(expected, Chance):
            if point not in _DRAWN[expected.verb]:
                return None
            if (expected.verb, what) == ("fail", "effect") and self._unfailing:
                return None
            self._chances += 1
            if self._chances < expected.point:
                return None
        elif fault != expected:
            return None
        self.struck = fault
        return fault.verb


class Life:
    """One life of a process, which a fault may end."""

    def __init__(self, faults: Faults) -> None:
        self.is_over = False
        self._faults = faults

    def pass_point(self, when: When, what: What, failure: Callable[[], Exception]) -> None:
        """Come to a point where a fault may be.

        Raises:
            ProcessDied: The process crashes here, or has before.
            Exception: ``failure``, if the fault is that this fails.
        """
        if self.is_over:
            raise ProcessDied
        verb = self._faults.strikes(when, what)
        if verb == "fail":
            raise failure()
        if verb == "crash":
            self.is_over = True
            raise ProcessDied
