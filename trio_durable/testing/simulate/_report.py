"""Report of a simulation: a count of the events in its stories.

A search that passes shows only as much as it has tried. Calls that are all refused, faults that hit
nothing and invariants that are never evaluated pass as well. The report tells these apart, and
`SimulationReport.doubts` names them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from ..._errors import DurableError
from ._call import Call
from ._faults import Fault


class SimulationWarning(UserWarning):
    """A simulation has passed that could hardly fail. Its report says why."""


@attrs.define
class SimulationReport:
    """Counts of the events in the stories of a simulation, for which `str` has some lines.

    Steps that Hypothesis has tried while it made a failing story shorter are counted, too.
    """

    simulation: str
    """The name of its class."""
    stories: int = 0
    steps: int = 0
    accepted: Counter[str] = attrs.field(factory=Counter)
    """The calls that returned, by ``"Class.handler"``."""
    refused: Counter[str] = attrs.field(factory=Counter)
    """The calls that raised an error of the app, by ``"Class.handler"``."""
    unanswered: Counter[str] = attrs.field(factory=Counter)
    """The calls whose outcome a fault hid from the caller, by ``"Class.handler"``."""
    refusals: Counter[str] = attrs.field(factory=Counter)
    """The errors of refused calls, by the names of their classes."""
    alarms_fired: int = 0
    """Alarms whose handler has committed."""
    messages_delivered: int = 0
    """Messages whose handler has committed, dead letters left out."""
    faults: Counter[str] = attrs.field(factory=Counter)
    """The faults that were hit, such as ``"crash after commit"``."""
    restores: int = 0
    """How often a backup was restored."""
    tenants_dropped: int = 0
    """How often a tenant that had data was dropped."""
    invariants: Counter[str] = attrs.field(factory=Counter)
    """The evaluations of invariants, by name; 0 if the preconditions of one have never held."""
    models_compared: int = 0
    """How often an object was compared with its model."""

    def add(self, other: SimulationReport) -> None:
        """Add the counts of another report."""
        for field in attrs.fields(SimulationReport):
            if field.name != "simulation":
                mine, more = getattr(self, field.name), getattr(other, field.name)
                if isinstance(mine, Counter):
                    mine.update(more)  # `+` would drop those that are 0
                else:
                    setattr(self, field.name, mine + more)

    @property
    def doubts(self) -> list[str]:
        """Reasons why the simulation could hardly fail; empty if there is none."""
        found = []
        if not self.accepted.total():
            refused = f": {_by_count(self.refusals)}" if self.refusals else ""
            found.append(f"no call was accepted{refused}; choose other `arguments`")
        if not self.faults and not self.restores:
            found.append("no fault was hit; call handlers that change or load something")
        if not self.models_compared and not any(self.invariants.values()):
            found.append("no invariant and no model was evaluated; add one")
        return found

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.simulation}: {_count(self.stories, 'story')}, {_count(self.steps, 'step')}"
        calls = [f"{self.accepted.total():,} accepted"]
        because = f" ({_by_count(self.refusals)})" if self.refusals else ""
        calls.append(f"{self.refused.total():,} refused{because}")
        calls.append(f"{self.unanswered.total():,} without an answer")
        yield f"  calls: {', '.join(calls)}"
        yield f"  alarms fired: {self.alarms_fired:,}"
        yield f"  messages delivered: {self.messages_delivered:,}"
        hit = f": {_by_count(self.faults)}" if self.faults else ""
        yield f"  faults hit: {self.faults.total():,}{hit}"
        if self.restores:
            yield f"  backups restored: {self.restores:,}"
        if self.tenants_dropped:
            yield f"  tenants dropped: {self.tenants_dropped:,}"
        yield (
            f"  checks: {self.invariants.total():,} of invariants, {self.models_compared:,} of "
            "models"
        )
        never = sorted({*self.refused, *self.unanswered} - {*self.accepted})
        if never:
            yield f"  never accepted: {', '.join(never)}"
        never = [name for name, times in self.invariants.items() if not times]
        if never:
            yield f"  never evaluated: {', '.join(never)}"

    # --- counting a story ------------------------------------------------------------------------

    def count_step(self, calls: Iterable[Call], fault: Fault | None) -> None:
        """Count a step with its calls and the fault that hit it."""
        self.steps += 1
        if fault is not None:
            self.faults[f"{fault.verb} {fault.when} {fault.kind}"] += 1
        for call in calls:
            name = f"{call.object_type.__name__}.{call.handler}"
            if not call.has_ended or isinstance(call.error, DurableError):
                self.unanswered[name] += 1
            elif call.error is None:
                self.accepted[name] += 1
            else:
                self.refused[name] += 1
                self.refusals[type(call.error).__name__] += 1


_TOTAL: ContextVar[SimulationReport | None] = ContextVar("total of simulations", default=None)


@contextmanager
def counted_in(total: SimulationReport) -> Iterator[None]:
    """Add the reports of all stories that end in the block to ``total``."""
    token = _TOTAL.set(total)
    try:
        yield
    finally:
        _TOTAL.reset(token)


def story_ended(report: SimulationReport) -> None:
    """Add the report of a story to the total, if one is wanted."""
    total = _TOTAL.get()
    if total is not None:
        report.stories = 1
        total.add(report)


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun.removesuffix('y')}{'ies' if noun.endswith('y') else 's'}"


def _by_count(counter: Counter[str]) -> str:
    return ", ".join(f"{times:,} {name}" for name, times in counter.most_common())
