"""Whether a history of one object is linearizable: explained by doing one thing after the other.

Prior art: Wing and Gong, "Testing and verifying concurrent objects", 1993; Lowe's memory of the
configurations that were tried, "Testing for linearizability", 2017; Porcupine for checking each
object by itself. Linearizability is local (Herlihy and Wing, 1990), so the objects' histories
together are linearizable if each is.

Trade-off: an operation whose outcome nobody knows may be left out or put anywhere in its interval,
which multiplies the orders to try. They are tried last: most orders that need one more don't
explain the next reply, and end there. What is only read is put in its place at once, for no other
place is better.

Invariants of a configuration:

- what was done is closed under real time: nothing else that must be done ended before anything that
  was done began;
- ``latest`` is the latest beginning of what was done. What ended before can't be done any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from .history import Operation

State = object
MOST_STEPS = 200_000


class Model(Protocol):
    """What an object is to do: a function, not a thing that changes."""

    def initial(self) -> State:
        """What it is at first. States are hashable."""
        ...

    def after(self, state: State, operation: Operation) -> Iterable[State]:
        """What it may be after ``operation``; nothing if that can't have come out so.

        An operation of unknown outcome has had its effect here; that it had none is not the
        model's business.
        """
        ...

    def only_reads(self, operation: Operation) -> bool:
        """Whether it leaves every state as it is, having come out as it did."""
        ...


class NotLinearizable(AssertionError):
    """No order of the operations explains what callers were told."""


class TooHard(AssertionError):
    """There are too many orders to try."""


class _Configuration:
    __slots__ = ("done", "done_unsure", "last", "latest", "lowest", "parent", "size", "state")

    def __init__(
        self,
        parent: _Configuration | None,
        last: Operation | None,
        state: State,
        done: int,
        done_unsure: int,
        lowest: int,
        latest: float,
    ) -> None:
        self.parent = parent
        self.last = last
        self.state = state
        self.done = done
        """A bit for each sure operation, from ``lowest`` on; all below are done."""
        self.done_unsure = done_unsure
        self.lowest = lowest
        self.latest = latest
        self.size: int = 0 if parent is None else parent.size + 1

    @property
    def place(self) -> tuple[State, int, int]:
        """What is known of it, but for what of the unsure was done."""
        return self.state, self.lowest, self.done

    def path(self) -> list[Operation]:
        operations = []
        configuration: _Configuration | None = self
        while configuration is not None:
            if configuration.last is not None:
                operations.append(configuration.last)
            configuration = configuration.parent
        return operations[::-1]


def check_linearizable(
    model: Model, operations: Iterable[Operation], *, most_steps: int = MOST_STEPS
) -> list[Operation]:
    """Find an order of ``operations``, which are of one object.

    Returns:
        The order.

    Raises:
        NotLinearizable: There is none.
        TooHard: None was found in ``most_steps``.
    """
    operations = list(operations)
    search = _Search(model, operations)
    best = configuration = search.begin()
    tried = _Tried()
    stack = [search.next_of(configuration)]
    steps = 0
    while stack:
        if search.is_complete(configuration):
            return configuration.path()
        steps += 1
        if steps > most_steps:
            raise TooHard(f"no order was found in {most_steps} steps\n{search.explain(best)}")
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
        elif tried.is_new(found):
            stack.append(search.next_of(found))
            configuration = found
            if found.size > best.size:
                best = found
    raise NotLinearizable(search.explain(best))


class _Tried:
    """The configurations that were met."""

    def __init__(self) -> None:
        self._at: dict[tuple[State, int, int], list[int]] = {}

    def is_new(self, configuration: _Configuration) -> bool:
        """Whether none was met from which as much can be done, or more. It is met from now on.

        If less of the unsure was done to come to the same state, more of it is left to do.
        """
        unsure = configuration.done_unsure
        met = self._at.setdefault(configuration.place, [])
        if any(less & ~unsure == 0 for less in met):
            return False
        met.append(unsure)
        return True


class _Search:
    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self._model = model
        ordered = sorted(operations, key=lambda operation: operation.start)
        self._sure = [each for each in ordered if each.known == "ok"]
        # What may have been read by somebody who never heard of it says nothing.
        self._unsure = [
            each
            for each in ordered
            if each.known in ("unknown", "open") and not model.only_reads(each)
        ]

    def begin(self) -> _Configuration:
        return _Configuration(None, None, self._model.initial(), 0, 0, 0, -1)

    def is_complete(self, configuration: _Configuration) -> bool:
        return configuration.lowest == len(self._sure)

    def next_of(self, before: _Configuration) -> Iterator[_Configuration]:
        """What may come next, the likeliest first."""
        sure, soonest_end = self._next_sure(before)
        unsure = self._next_unsure(before, soonest_end)
        soonest_unsure = min((self._unsure[n].end for n in unsure), default=float("inf"))
        outcomes = []
        for n in sure:
            operation = self._sure[n]
            states = list(self._model.after(before.state, operation))
            if states and soonest_unsure >= operation.start and self._model.only_reads(operation):
                yield self._with_sure(before, n, before.state)
                return
            outcomes.append((operation.end, n, states))
        outcomes.sort(key=lambda each: each[:2])
        for _, n, states in outcomes:
            for state in states:
                yield self._with_sure(before, n, state)
        for n in self._without_twins(unsure):
            for state in self._model.after(before.state, self._unsure[n]):
                if state != before.state:  # or it may as well be left out
                    yield self._with_unsure(before, n, state)

    def _next_sure(self, before: _Configuration) -> tuple[list[int], float]:
        found = []
        soonest_end = float("inf")
        done = before.done
        for n in range(before.lowest, len(self._sure)):
            operation = self._sure[n]
            if operation.start > soonest_end:
                break
            if not done & 1:
                found.append(n)
                soonest_end = min(soonest_end, operation.end)
            done >>= 1
        return found, soonest_end

    def _next_unsure(self, before: _Configuration, soonest_end: float) -> list[int]:
        found = []
        done, latest = before.done_unsure, before.latest
        for n, operation in enumerate(self._unsure):
            if operation.start > soonest_end:
                break
            if operation.end >= latest and not done >> n & 1:
                found.append(n)
        return found

    def _without_twins(self, unsure: list[int]) -> Iterator[int]:
        """Leave out what does the same as another one that both begins and ends before it.

        The other one may take its place; and if both are done, the later one comes later.
        """
        chosen: dict[tuple[str, tuple[object, ...]], float] = {}
        for n in unsure:  # as they begin
            operation = self._unsure[n]
            identity = operation.name, operation.args
            if identity not in chosen or operation.end < chosen[identity]:
                chosen[identity] = operation.end
                yield n

    def _with_sure(self, before: _Configuration, n: int, state: State) -> _Configuration:
        operation = self._sure[n]
        lowest, done = before.lowest, before.done | 1 << n - before.lowest
        while done & 1:
            done >>= 1
            lowest += 1
        latest = max(before.latest, operation.start)
        return _Configuration(before, operation, state, done, before.done_unsure, lowest, latest)

    def _with_unsure(self, before: _Configuration, n: int, state: State) -> _Configuration:
        operation = self._unsure[n]
        latest = max(before.latest, operation.start)
        done = before.done_unsure | 1 << n
        return _Configuration(before, operation, state, before.done, done, before.lowest, latest)

    def explain(self, best: _Configuration) -> str:
        """How far one comes, and what doesn't fit then."""
        path = best.path()
        sure, soonest_end = self._next_sure(best)
        unsure = self._next_unsure(best, soonest_end)
        lines = [f"of {len(self._sure)} operations the last of {len(path)} that fit are"]
        lines += [f"    {operation}" for operation in path[-12:]]
        lines += [f"which leaves {best.state!r:.300}; then one of these must be next:"]
        lines += [f"    {self._sure[n]}" for n in sure[:12]]
        lines += [f"    {self._unsure[n]} (or never)" for n in unsure[:12]]
        return "\n".join(lines)
