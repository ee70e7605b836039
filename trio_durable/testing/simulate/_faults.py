"""Fault injection: the faults, and the points of a step at which they can occur.

A process can crash at any moment, but durable state changes at few points only: where the storage
writes, and where a stand-in acts on the outside world. A crash anywhere else has the same outcome
as one at the point before. So the points of a step are counted, and a fault names one of them:
``"crash after commit 2"``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, Self, get_args

import attrs

Verb = Literal["crash", "fail", "replace"]
When = Literal["before", "after"]
Kind = Literal["commit", "claim", "load", "effect", "defer", "mark", "retry", "drop"]


_MAX_CLAIMS_PER_STEP = 2000
"""They take about a second to run. An alarm that fires each minute is claimed 1,440 times a day."""


class ProcessDied(BaseException):
    """Raised at every point of a crashed process, to end the code that still runs in it.

    It isn't an `Exception`, so that handlers don't catch it. Anything that they do while it
    propagates has no effect.
    """


_VERBS: dict[str, Verb] = {verb: verb for verb in get_args(Verb)}
_WHENS: dict[str, When] = {when: when for when in get_args(When)}
_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}

_DRAWN: dict[Verb, frozenset[tuple[When, Kind]]] = {
    # Without the points at which nothing has changed since the point before: a crash there has
    # the same outcome.
    "crash": frozenset(
        {
            ("before", "commit"),
            ("after", "commit"),
            ("after", "claim"),
            ("after", "effect"),
            ("after", "defer"),
            ("after", "mark"),
            ("after", "retry"),
            ("after", "drop"),
        }
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
            ("before", "defer"),
            ("after", "defer"),
            ("before", "mark"),
            ("after", "mark"),
            ("before", "retry"),
            ("after", "retry"),
            ("before", "drop"),
            ("after", "drop"),
        }
    ),
    # A process that was replaced still acts outside, which a dead one doesn't.
    "replace": frozenset(
        {
            ("before", "commit"),
            ("after", "commit"),
            ("after", "claim"),
            ("before", "effect"),
            ("after", "effect"),
        }
    ),
}


@attrs.frozen
class Fault:
    """A fault at the n-th point of a kind in a step."""

    verb: Verb
    """``"crash"`` ends the process. ``"fail"`` makes the operation raise; the process goes on.
    ``"replace"`` suspends the process until a second owner has done its work; see `Life`."""
    when: When
    """``"before"``: the operation isn't done. ``"after"``: it is done, unknown to its caller."""
    kind: Kind
    number: int
    """The number of the point among those of its kind in the step, from 1."""

    def __str__(self) -> str:
        return f"{self.verb} {self.when} {self.kind} {self.number}"

    @classmethod
    def of(cls, text: str) -> Self:
        """The fault that ``text`` describes.

        Raises:
            ValueError: The text describes no fault.
        """
        match text.split(" "):
            case [verb, when, kind, number] if (
                verb in _VERBS
                and when in _WHENS
                and kind in _KINDS
                and re.fullmatch("[1-9][0-9]*", number, re.ASCII)
            ):
                return cls(_VERBS[verb], _WHENS[when], _KINDS[kind], int(number))
        raise ValueError(
            f"{text!r} is not a fault; write crash, fail or replace, before or after, one of "
            f"{', '.join(_KINDS)}, and its number in the step: 'crash after commit 1'"
        )


@attrs.frozen
class DrawnFault:
    """A fault as Hypothesis draws it, before the step and thus the points in it are known."""

    verb: Verb
    point: int
    """The number of the point among all at which this verb can be drawn, from 1."""


class Faults:
    """The fault that is expected in a step, and the one that was injected.

    Args:
        unfailing: The names of stand-ins that can't fail.
    """

    def __init__(self, unfailing: Sequence[str]) -> None:
        self._unfailing = unfailing
        self.begin_step(None)

    def begin_step(self, expected: str | DrawnFault | None) -> None:
        """Begin a step, into which ``expected`` is injected if the step reaches its point.

        Raises:
            ValueError: There is no such fault.
        """
        self.injected: Fault | None = None
        """The fault that was injected in this step."""
        self._expected = self._parsed(expected) if isinstance(expected, str) else expected
        self._passed: Counter[tuple[When, Kind]] = Counter()
        self._candidates = 0

    def _parsed(self, text: str) -> Fault:
        fault = Fault.of(text)
        if (fault.verb, fault.kind) == ("fail", "effect") and self._unfailing:
            raise ValueError(f"{text!r}: {', '.join(self._unfailing)} has no fails_with")
        return fault

    def check_claims(self) -> Literal[False]:
        """Limit the number of alarms that fire in a step.

        Raises:
            AssertionError: More alarms fired than a search has time for.
        """
        if self._passed["before", "claim"] > _MAX_CLAIMS_PER_STEP:
            raise AssertionError(
                f"alarms fired more than {_MAX_CLAIMS_PER_STEP} times in one wait; use shorter "
                "delays in the simulation, close to those of its alarms"
            )
        return False

    def inject(self, when: When, kind: Kind) -> Verb | None:
        """Count a point. Returns the verb of the fault to inject there, or None."""
        expected = self._expected
        point: tuple[When, Kind] = (when, kind)
        self._passed[point] += 1
        if expected is None or self.injected is not None:
            return None
        fault = Fault(expected.verb, when, kind, self._passed[point])
        if isinstance(expected, DrawnFault):
            if point not in _DRAWN[expected.verb]:
                return None
            if (expected.verb, kind) == ("fail", "effect") and self._unfailing:
                return None
            self._candidates += 1
            if self._candidates < expected.point:
                return None
        elif fault != expected:
            return None
        self.injected = fault
        return fault.verb


class Life:
    """The life of one process, which a fault may end.

    A process that is replaced goes on with its memory: it may still act outside, but the
    storage refuses it, and none of its replies reaches a caller. So is a process on PostgreSQL that
    was suspended for longer than its lease.

    Args:
        faults: The faults.
        take_over: Runs the second owner. It is called when this process is replaced, and returns
            when that one has ended.
    """

    def __init__(self, faults: Faults, take_over: Callable[[], None]) -> None:
        self.is_over: bool = False
        """True once the process has died: nothing that it does has an effect any more."""
        self.is_replaced: bool = False
        self._faults = faults
        self._take_over = take_over

    @property
    def is_heard(self) -> bool:
        """True while callers get its replies."""
        return not (self.is_over or self.is_replaced)

    def pass_point(self, when: When, kind: Kind, failure: Callable[[], Exception]) -> None:
        """Pass a point at which a fault can be injected.

        Raises:
            ProcessDied: The process crashes here, or has crashed before.
            Exception: ``failure()``, if the fault is that the operation fails.
        """
        if self.is_over:
            raise ProcessDied
        verb = self._faults.inject(when, kind)
        if verb == "fail":
            raise failure()
        if verb == "crash":
            self.is_over = True
            raise ProcessDied
        if verb == "replace":
            self.is_replaced = True
            self._take_over()
