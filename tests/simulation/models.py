"""What each kind of object is to do, as functions of immutable states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import attrs

from .checker import State
from .history import Operation

Step = Callable[..., tuple[Any, Any]]
"""From a state and arguments to the next state and the result."""


class ObjectModel(ABC):
    """Args: what callers were told, from which a model may know what can't have been."""

    steps: ClassVar[Mapping[str, Step]]

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self._places = _places(operations)
        self._next = {place[0]: name for name, place in self._places.items() if len(place) == 2}

    @abstractmethod
    def initial(self) -> State: ...

    def after(self, state: State, operation: Operation) -> list[Any]:
        after, result = self.steps[operation.name](state, *operation.args)
        if operation.known == "ok" and result != operation.result:
            return []
        return [after]

    def simplified(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        """Operations that are easier to order, and say the same."""
        return operations

    def fits(self, names: tuple[object, ...]) -> bool:
        """Whether the last of ``names`` may be there, if each is added to its list only once.

        Without that, a wrong guess shows only when somebody reads the list, and until then there
        are many more.
        """
        *_, last = names
        place = self._places.get(last)
        if place is not None and place != names[-2:]:
            return False
        return len(names) == 1 or self._next.get(names[-2], last) == last

    def only_reads(self, operation: Operation) -> bool:
        """See `Model.only_reads`."""
        if operation.name == "swap":
            return operation.known == "ok" and operation.result is False
        return operation.name in ("read", "see", "alarms", "inspect")


def _places(operations: Iterable[Operation]) -> dict[object, tuple[object, ...]]:
    """By name: itself as somebody saw it in a list, with what was before it."""
    places: dict[object, tuple[object, ...]] = {}
    for operation in operations:
        if operation.known != "ok" or operation.name not in ("read", "inspect"):
            continue
        seen: Any = operation.result
        if operation.name == "inspect":
            seen, _ = seen
        if isinstance(seen, tuple):
            for n, name in enumerate(seen):
                places.setdefault(name, seen[max(0, n - 1) : n + 1])
    return places


class RegisterModel(ObjectModel):
    """A text. Who writes is told what was there before."""

    steps: ClassVar[Mapping[str, Step]] = {
        "write": lambda value, new: (new, value),
        "read": lambda value: (value, value),
        "swap": lambda value, old, new: (new, True) if value == old else (value, False),
        "erase": lambda value: ("", None),
    }

    def initial(self) -> State:
        return ""


class CounterModel(ObjectModel):
    """A number."""

    steps: ClassVar[Mapping[str, Step]] = {
        "add": lambda total, by: (total + by, total + by),
        "read": lambda total: (total, total),
    }

    def initial(self) -> State:
        return 0


class LedgerModel(ObjectModel):
    """A list. Who appends is told the new length and what was last."""

    steps: ClassVar[Mapping[str, Step]] = {
        "append": lambda names, name: ((*names, name), (len(names) + 1, *names[-1:])),
        "read": lambda names: (names, names),
        "erase": lambda names: ((), None),
    }

    def initial(self) -> State:
        return ()

    def after(self, state: State, operation: Operation) -> list[State]:
        found = super().after(state, operation)
        return found if operation.name != "append" else [s for s in found if self.fits(s)]


Alarms = tuple[tuple[str, str], ...]
"""Names and tokens, by name."""
Desk = tuple[tuple[str, ...], Alarms]
"""The tokens whose alarms have had their effect, and the alarms that are set."""


class ClerkModel(ObjectModel):
    """Effects of alarms, and the alarms that are set, each with a token of its own.

    Nobody asks for an effect, so each is an operation that may be done at any time after its
    handler first began, or never; but only while its alarm is set, and only once.
    """

    steps: ClassVar[Mapping[str, Step]] = {
        "order": lambda desk, name, token: (_with(desk, name, token), _seen(desk)),
        "withdraw": lambda desk, name: (_without(desk, name), _seen(desk)),
        "arm": lambda desk, name, token: (_with(desk, name, token), None),
        "disarm": lambda desk, name: (_without(desk, name), None),
        "disarm_all": lambda desk: ((desk[0], ()), None),
        "read": lambda desk: (desk, desk[0]),
        "see": lambda desk: (desk, _seen(desk)),
        "alarms": lambda desk: (desk, desk[1]),
        "erase": lambda desk: (((), ()), None),
        "inspect": lambda desk: (desk, desk),
    }

    def initial(self) -> State:
        return ((), ())

    def simplified(self, operations: Sequence[Operation]) -> list[Operation]:
        """Operations that say the same, but more of them the same as another one.

        Of an alarm that may have been set and that nobody has ever seen, it doesn't matter which
        one it was.
        """
        seen: set[object] = {each.args[1] for each in operations if each.name == "fire"}
        for each in operations:
            if each.name in ("alarms", "inspect") and each.known == "ok":
                result: Any = each.result
                alarms = result if each.name == "alarms" else result[1]
                seen |= {token for _, token in alarms}
        return [_simplified(each, seen) for each in operations]

    def after(self, state: State, operation: Operation) -> list[State]:
        if operation.name == "fire":
            return [s for s in _fired(state, *operation.args) if not s[0] or self.fits(s[0])]
        return super().after(state, operation)


def _simplified(operation: Operation, seen: Collection[object]) -> Operation:
    name, args = operation.name, operation.args
    if operation.known == "unknown" and name in ("order", "arm") and args[1] not in seen:
        return attrs.evolve(operation, name="arm", args=(args[0], ""))
    if operation.known == "unknown" and name == "withdraw":
        return attrs.evolve(operation, name="disarm")
    return operation


def _with(desk: Desk, name: str, token: str) -> Desk:
    fired, alarms = desk
    return fired, tuple(sorted({**dict(alarms), name: token}.items()))


def _without(desk: Desk, name: str) -> Desk:
    fired, alarms = desk
    return fired, tuple(each for each in alarms if each[0] != name)


def _seen(desk: Desk) -> tuple[object, ...]:
    """What handlers tell of the effects there have been."""
    return (len(desk[0]), *desk[0][-1:])


def _fired(state: Any, *args: Any) -> list[Any]:
    name, token, plan = args
    fired, alarms = state
    if (name, token) not in alarms:
        return []
    after = _without(((*fired, token), alarms), name)
    match plan:
        case "again":
            return [_with(after, name, f"{token}'")]
        case "withdraw":
            return [_without(after, other_name(name))]
        case "erase":
            return [((), ())]
    return [after]


def other_name(name: str) -> str:
    """The alarm that some handlers withdraw."""
    return "slow" if name == "quick" else "quick"
