"""Whether the effects of alarms happened exactly once, as their ledgers tell.

Each alarm that is ever set has a token of its own, and its handler notes the token in the state of
its object. What the ledgers say in the end, after a time in which nothing failed and nothing was
asked for, is held against what was ordered. `ClerkModel` says the same in the terms of states; here
it is said of each alarm by itself, so that a violation names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import attrs

from .history import Key, Operation
from .models import other_name


@attrs.frozen
class Attempt:
    """Its handler began."""

    event: int
    wall: int
    """The latest that the clock has shown since the alarm was set."""


@attrs.define(eq=False)
class Ordered:
    """An alarm that somebody has tried to set."""

    key: Key
    name: str
    token: str
    due_at: int
    """When it was set for, or the earliest time of those that it may have been set for."""
    by: Operation | None
    """What set it; None if that was the handler of another alarm, which did it with its effect."""
    attempts: list[Attempt] = attrs.field(factory=list)

    def __str__(self) -> str:
        return f"alarm {self.token} of {self.key.object_id} ({self.name})"


class EffectsViolated(AssertionError):
    """Alarms had other effects than they must."""


def check_effects(
    ordered: Iterable[Ordered],
    operations: Sequence[Operation],
    ledgers: Mapping[Key, Sequence[str]],
    left: Collection[tuple[Key, str]],
) -> None:
    """Check what became of all alarms.

    Args:
        ordered: All that anybody has tried to set.
        operations: What callers did to the objects.
        ledgers: By object: the tokens of the effects that are stored in the end.
        left: Object and token of the alarms that are set in the end.

    Raises:
        EffectsViolated: Of some alarm it isn't so.
    """
    by_object: dict[Key, list[Operation]] = {}
    for operation in operations:
        if operation.name in _ENDS and operation.known != "never":
            by_object.setdefault(operation.key, []).append(operation)
    problems = [f"{key} still waits for {token}" for key, token in sorted(left)]
    tokens = {each.token for each in ordered}
    for key, effects in ledgers.items():
        problems += [f"{key} notes {t}, which nobody ordered" for t in effects if t not in tokens]
    for each in ordered:
        problems += _problems(each, by_object.get(each.key, []), ledgers.get(each.key, ()))
    if problems:
        raise EffectsViolated("\n".join(problems[:20]))


_ENDS = {"order", "arm", "withdraw", "disarm", "disarm_all", "erase", "fire"}


def _problems(
    alarm: Ordered, operations: Sequence[Operation], ledger: Sequence[str]
) -> Iterator[str]:
    effects = Counter(ledger)[alarm.token]
    if effects > 1:
        yield f"{alarm} had its effect {effects} times"
    for attempt in alarm.attempts:
        if attempt.wall < alarm.due_at:
            early = (alarm.due_at - attempt.wall) / 1e6
            yield f"{alarm} was handled {early:.6g} s before its time, at {attempt.event}"
    by = alarm.by
    if by is None:
        return
    if by.known == "never" or by.name not in ("order", "arm"):  # its turn was rolled back
        if effects:
            yield f"{alarm} had an effect though its order was refused"
        return
    # What may have ended it.
    rivals = [o for o in operations if o is not by and _concerns(o, alarm)]
    if by.known == "ok" and not effects and not any(o.end > by.start for o in rivals):
        yield f"{alarm} never had its effect"
    first = alarm.attempts[0].event if alarm.attempts else 0
    for rival in rivals:
        if effects and rival.known == "ok" and by.end < rival.start and rival.end < first:
            yield f"{alarm} had an effect, first tried at {first}, after {rival}"


def _concerns(operation: Operation, alarm: Ordered) -> bool:
    if operation.name != "fire":
        return operation.name in ("erase", "disarm_all") or operation.args[0] == alarm.name
    name, token, plan = operation.args
    match plan:
        case "erase":
            return True
        case "withdraw":
            return other_name(str(name)) == alarm.name
        case "again":
            return name == alarm.name and token != alarm.token
    return False
