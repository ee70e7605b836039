"""The history of a round of chaos, put together from the files of its processes, and judged.

Each object's history is judged by the checker of the simulation. A call whose caller got an error
of unknown outcome, or was killed, may have had its effect at any time from its beginning on, or
never: a turn may run after its caller has learned that its owner is silent. Alarms have such
effects, too; at the end all of them have gone off. The contents of the storage are one more read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from simulation.checker import TooHard, check_linearizable
from simulation.history import Key, Operation
from simulation.models import CounterModel, LedgerModel, ObjectModel, RegisterModel, Step

from .chaos_storage import Contents

_TYPES = {"ChaosLedger": "ledger", "ChaosRegister": "register", "ChaosCounter": "counter"}
_FIELDS = {"ledger": "names", "register": "value", "counter": "total"}
_CHANGES = frozenset({"append", "write", "put", "add"})
_NEVER: Any = {"ledger": (), "register": "", "counter": 0}


class _LedgerModel(LedgerModel):
    """With the exception of a handler that changes the list and raises."""

    steps: ClassVar[Mapping[str, Step]] = {
        **LedgerModel.steps,
        "peek": lambda names: (names, (len(names), *names[-1:])),
    }

    def only_reads(self, operation: Operation) -> bool:
        return operation.name == "peek" or super().only_reads(operation)


class _RegisterModel(RegisterModel):
    """With a state that is put there from outside."""

    steps: ClassVar[Mapping[str, Step]] = {
        **RegisterModel.steps,
        "put": lambda _, new: (new, None),
    }


_MODELS: Mapping[str, type[ObjectModel]] = {
    "ledger": _LedgerModel,
    "register": _RegisterModel,
    "counter": CounterModel,
}


class History:
    """The operations of a round, by object."""

    def __init__(self) -> None:
        self.operations: dict[Key, list[Operation]] = {}
        self.armed: dict[str, Key] = {}
        """The alarms that are set for sure, by the name that each appends."""
        self.stored: dict[Key, Any] = {}
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
            self.armed[str(operation.args[0])] = operation.key
        if known == "unknown" and isinstance(result, str):
            self.errors[result.partition(":")[0]] += 1
            if result.startswith("CallTimeout"):
                self.timeouts.append((operation, end, result))
        operation.known = known
        if known == "ok":
            operation.end = end
            operation.result = _flat(operation, result)

    def read(self, contents: Contents) -> None:
        """Take what is stored. All processes have ended."""
        for type_name, object_id, state in contents.objects:
            kind = _TYPES[type_name]
            value = json.loads(state)[_FIELDS[kind]]
            self.stored[Key(kind, object_id)] = tuple(value) if kind == "ledger" else value


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
    for name, key in history.armed.items():
        assert name in history.stored.get(key, ()), (key, name)
    for key, names in history.stored.items():
        assert key.type_name != "ledger" or len(set(names)) == len(names), key
    for key, operations in history.operations.items():
        stored = history.stored.get(key, _NEVER[key.type_name])
        last = max(each.end if each.end < math.inf else each.start for each in operations)
        final = Operation(key, "read", (), last + 1, end=last + 2, known="ok", result=stored)
        found.update(_figures(operations))
        present = _without_the_undone([*operations, final], stored)
        try:
            check_linearizable(_MODELS[key.type_name](present), present)
        except TooHard:
            found["too hard"] += 1
        except AssertionError as error:
            error.add_note(str(key))
            raise
    found["histories"] += len(history.operations)
    return found


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


def _figures(operations: Iterable[Operation]) -> Iterable[str]:
    for each in operations:
        if each.known != "ok":
            yield "unknown"
        else:
            yield "changes" if each.name in _CHANGES else "reads"
