"""The history of a round of chaos, put together from the files of its processes, and judged.

Each object's history is judged by the checker of the simulation. A call whose caller got an error
of unknown outcome, or was killed, may have had its effect at any time from its beginning on, or
never: a turn may run after its caller has learned that its owner is silent. Alarms have such
effects, too; at the end all of them have gone off. The contents of the storage are one more read.

A failover that loses commits is one more operation on each object, which brings back what the
standby has. What was done before it was right on the primary, also what is lost, and all that comes
after it builds on the standby.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
from simulation.checker import TooHard, check_linearizable
from simulation.history import Key, Operation
from simulation.models import CounterModel, LedgerModel, ObjectModel, RegisterModel, Step

from .chaos_storage import Contents, Failover

_TYPES = {"ChaosLedger": "ledger", "ChaosRegister": "register", "ChaosCounter": "counter"}
_FIELDS = {"ledger": "names", "register": "value", "counter": "total"}
_CHANGES = frozenset({"append", "write", "put", "add"})
_NEVER: Any = {"ledger": (), "register": "", "counter": 0}


_REWIND: Mapping[str, Step] = {"rewind": lambda _, kept: (kept, True)}
"""A failover that loses commits."""


class _LedgerModel(LedgerModel):
    """With the exception of a handler that changes the list and raises."""

    steps: ClassVar[Mapping[str, Step]] = {
        **LedgerModel.steps,
        "rewind": lambda names, kept: (kept, names[: len(kept)] == kept),
        "peek": lambda names: (names, (len(names), *names[-1:])),
    }

    def only_reads(self, operation: Operation) -> bool:
        return operation.name == "peek" or super().only_reads(operation)


class _RegisterModel(RegisterModel):
    """With a state that is put there from outside."""

    steps: ClassVar[Mapping[str, Step]] = {
        **RegisterModel.steps,
        **_REWIND,
        "put": lambda _, new: (new, None),
    }


class _CounterModel(CounterModel):
    steps: ClassVar[Mapping[str, Step]] = {**CounterModel.steps, **_REWIND}


_MODELS: Mapping[str, type[ObjectModel]] = {
    "ledger": _LedgerModel,
    "register": _RegisterModel,
    "counter": _CounterModel,
}


class History:
    """The operations of a round, by object."""

    def __init__(self) -> None:
        self.operations: dict[Key, list[Operation]] = {}
        self.armed: dict[str, Operation] = {}
        """What has set alarms for sure, by the name that each appends."""
        self.stored: dict[Key, Any] = {}
        self.failover: Failover | None = None
        self.kept: dict[Key, Any] = {}
        """What was stored after the failover."""
        self.errors: Counter[str] = Counter()
        self.timeouts: list[tuple[Operation, float, str]] = []
        """The operations that timed out, each with its end and its message."""

    @classmethod
    def of(cls, paths: Iterable[Path]) -> History:
        """The history that the files of the processes tell.

        Raises:
            AssertionError: A caller got an error that none should get.
        """
        history = cls()
        for path in paths:
            history._read(path)
        return history

    def _read(self, path: Path) -> None:
        begun: dict[int, Operation] = {}
        for line in path.read_text().splitlines():
            match json.loads(line):
                case ["fault", text]:
                    raise AssertionError(f"{path}: {text}")
                case [number, where, name, args, start]:
                    kind, object_id = where.split(" ")
                    key = Key(kind, object_id)
                    begun[number] = Operation(key, name, tuple(args), start, number=number)
                    if name != "arm":
                        self.operations.setdefault(key, []).append(begun[number])
                case [number, known, result, end]:
                    self._ended(begun[number], known, result, end)

    def _ended(self, operation: Operation, known: Any, result: Any, end: float) -> None:
        if operation.name == "arm" and known == "ok":
            self.armed[str(operation.args[0])] = operation
        if known == "unknown" and isinstance(result, str):
            self.errors[result.partition(":")[0]] += 1
            if result.startswith("CallTimeout"):
                self.timeouts.append((operation, end, result))
        operation.known = known
        if known == "ok":
            operation.end = end
            operation.result = _flat(operation, result)

    def read(self, contents: Contents, failover: Failover | None = None) -> None:
        """Take what is stored, and what a failover has kept. All processes have ended."""
        self.stored = dict(_states(contents))
        if failover is not None:
            self.failover = failover
            self.kept = dict(_states(failover.kept))


def _states(contents: Contents) -> Iterable[tuple[Key, Any]]:
    for type_name, object_id, state in contents.objects:
        kind = _TYPES[type_name]
        value = json.loads(state)[_FIELDS[kind]]
        yield Key(kind, object_id), tuple(value) if kind == "ledger" else value


def _flat(operation: Operation, result: Any) -> Any:
    """A result as the models have it."""
    if operation.name in ("append", "peek"):
        length, before = result
        return length, *before
    return tuple(result) if isinstance(result, list) else result


def judge(history: History, calm: tuple[float, float] = (0.0, 0.0)) -> Counter[str]:
    """Check all histories; return how much that was.

    Args:
        history: The history.
        calm: A time in which no call may time out.

    Raises:
        AssertionError: One isn't linearizable; or a name is twice in a list, or an alarm that was
            set hasn't gone off.
    """
    found: Counter[str] = Counter(history.errors)
    for operation, end, text in history.timeouts:
        assert not calm[0] <= operation.start <= end <= calm[1], (operation, end, calm, text)
    for key, names in history.stored.items():
        assert key.type_name != "ledger" or len(set(names)) == len(names), key
    _check_alarms(history)
    for key, operations in history.operations.items():
        stored = history.stored.get(key, _NEVER[key.type_name])
        last = max(each.end if each.end < math.inf else each.start for each in operations)
        if history.failover is not None:
            last = max(last, history.failover.end)
        final = Operation(key, "read", (), last + 1, end=last + 2, known="ok", result=stored)
        found.update(_figures(operations))
        try:
            if history.failover is None:
                present = _without_the_undone([*operations, final], stored)
                check_linearizable(_MODELS[key.type_name](present), present)
            else:
                present = _with_failover([*operations, final], stored, history)
                # A name may have had another place in what is lost, so they tell the model nothing.
                check_linearizable(_MODELS[key.type_name](), present)
        except TooHard:
            found["too hard"] += 1
        except AssertionError as error:
            error.add_note(str(key))
            raise
        if history.failover is not None and key.type_name == "ledger":
            found["lost"] += _lost(operations, stored)
    found["histories"] += len(history.operations)
    return found


def _check_alarms(history: History) -> None:
    """All that were set have gone off, but for those that a failover has lost."""
    failover = history.failover
    for name, operation in history.armed.items():
        if (
            failover is None
            or operation.start > failover.dead
            or name in failover.kept.alarms
            or name in history.kept.get(operation.key, ())
        ):
            assert name in history.stored.get(operation.key, ()), (operation.key, name)


def _without_the_undone(operations: list[Operation], stored: Any) -> list[Operation]:
    """Without what isn't known and isn't in the stored list: it was never done."""
    if not isinstance(stored, tuple):
        return operations
    there = set(stored)
    return [
        each
        for each in operations
        if each.known == "ok" or each.name != "append" or each.args[0] in there
    ]


def _with_failover(operations: list[Operation], stored: Any, history: History) -> list[Operation]:
    """With the failover, and with the alarms that went off on both servers.

    What isn't stored may have been done on the primary.
    """
    failover = history.failover
    assert failover is not None
    key = operations[0].key
    kept = history.kept.get(key, _NEVER[key.type_name])
    rewind = Operation(
        key, "rewind", (kept,), failover.start, end=failover.end, known="ok", result=True
    )
    before = [each for each in operations if each.start < failover.dead]
    after = [each for each in operations if each.start >= failover.dead]
    again = [
        attrs.evolve(each, start=failover.start)
        for each in before
        if each.name == "append" and each.known != "ok" and each.args[0] in failover.kept.alarms
    ]
    return [*before, rewind, *again, *_without_the_undone(after, stored)]


def _lost(operations: Iterable[Operation], stored: tuple[str, ...]) -> int:
    """How many acknowledged changes of a list are gone."""
    there = set(stored)
    return sum(
        each.known == "ok" and each.name == "append" and each.args[0] not in there
        for each in operations
    )


def _figures(operations: Iterable[Operation]) -> Iterable[str]:
    for each in operations:
        if each.known != "ok":
            yield "unknown"
        else:
            yield "changes" if each.name in _CHANGES else "reads"
