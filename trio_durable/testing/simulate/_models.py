"""Model checking: compares stored objects with plain Python classes that take the same calls.

Concurrent calls may have run in any order. A call that got no reply has run, or hasn't, or has run
up to one of its commits. So an object has a set of possible models, which nearly always holds a
single one. Each step tries every order and outcome that agrees with the replies, and keeps the
models that agree with the stored object.

Prior art: the linearizability check of Wing and Gong, 1993, with Lowe's cache of configurations
already tried, 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from inspect import isgenerator
from typing import Any

import attrs

from ..._api.durable_object import DurableObject, ObjectDefinition, definition_of
from ..._errors import DefinitionError
from ..._keys import ObjectKey
from ._operations import Operation

_MAX_STEPS = 10_000

ModelClasses = Mapping[type[DurableObject], Callable[[], object]]


class Models:
    """The possible models of each object.

    Args:
        classes: A class or function per type that makes the model of an object never called.
    """

    def __init__(self, classes: ModelClasses) -> None:
        self._classes = {definition_of(cls).name: make for cls, make in classes.items()}
        self._possible: dict[ObjectKey, list[object]] = {}

    def check(self, key: ObjectKey, operations: Sequence[Operation], stored: DurableObject) -> None:
        """Apply the operations of one step to an object's models, and compare.

        Args:
            key: The object.
            operations: The operations on it in the step.
            stored: The object as it is stored; with its defaults if it isn't stored.

        Raises:
            AssertionError: No model agrees with the stored object.
        """
        before = self._possible.get(key) or [self._new(key)]
        attempts: list[object] = []
        after: list[object] = []
        for model in before:
            steps = [step for step in operations if hasattr(model, step.name)]
            if hasattr(model, "after_load"):
                steps.append(Operation(key, "after_load"))
            for outcome in _outcomes(model, steps):
                attempts.append(outcome)
                if _differences(outcome, stored) == [] and not _is_among(outcome, after):
                    after.append(outcome)
        if not after:
            raise AssertionError(_explanation(key, operations, stored, before, attempts))
        self._possible[key] = after

    def forget(self, key: ObjectKey) -> None:
        """Begin again with the model of an object that was never called."""
        self._possible.pop(key, None)

    def copy(self) -> Models:
        """These models as they are now. A model never changes; each call makes another one."""
        new = Models({})
        new._classes, new._possible = self._classes, dict(self._possible)
        return new

    def _new(self, key: ObjectKey) -> object:
        model = self._classes[key.type_name]()
        model.object_id = key.object_id  # type: ignore[attr-defined]  # as `Context` has it
        return model


def _outcomes(model: object, operations: Sequence[Operation]) -> Iterator[object]:
    """The possible models after ``operations``, in every order in which they may have run.

    Raises:
        AssertionError: There are too many orders to try.
    """
    tried: dict[frozenset[int], list[object]] = {}
    to_try = [(model, frozenset(range(len(operations))))]
    steps = 0
    while to_try:
        before, left = to_try.pop()
        known = tried.setdefault(left, [])
        if _is_among(before, known):
            continue
        known.append(before)
        if not left:
            yield before
            continue
        steps += 1
        if steps > _MAX_STEPS:
            raise AssertionError(
                f"{len(operations)} operations on {operations[0].key} may have run in too many "
                "orders to check; make fewer calls in one step"
            )
        first_end = min(operations[n].ended for n in left)
        for n in left:
            if operations[n].began < first_end:
                to_try += [(after, left - {n}) for after in _applied(before, operations[n])]


def _applied(model: object, operation: Operation) -> Iterator[object]:
    """The possible models after one operation; none if its outcome contradicts the model's."""
    done = deepcopy(model)
    commits: list[object] = []
    result: object = None
    error: Exception | None = None
    arguments: tuple[Any, dict[str, Any]] = deepcopy((operation.args, operation.kwargs))
    args, kwargs = arguments
    try:
        result = getattr(done, operation.name)(*args, **kwargs)
        if isgenerator(result):
            result = _run_through(result, lambda: commits.append(deepcopy(done)))
    except Exception as raised:  # noqa: BLE001  # models may raise anything
        error = raised
        done = commits[-1] if commits else model
    if operation.claim is not None:
        # The handler's last commit acknowledges the alarm, or an earlier one if that replaces it.
        yield from (*commits, done) if operation.is_known else (model, *commits)
    elif not operation.is_known:
        yield from (model, *commits, done)
    elif operation.error is not None or error is not None:
        if type(operation.error) is type(error):
            yield done
    elif result == operation.result:
        yield done


def _run_through(steps: Any, at_yield: Callable[[], object]) -> object:
    """Run a generator to its end. Returns its return value."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
        at_yield()


def _is_among(model: object, others: Sequence[object]) -> bool:
    return any(vars(model) == vars(other) for other in others)


def _shared(model: object, cls: type[DurableObject]) -> list[str]:
    return [field.name for field in attrs.fields(cls) if hasattr(model, field.name)]


def _differences(model: object, stored: DurableObject) -> list[str]:
    """The names of the shared fields whose values differ."""
    names = _shared(model, type(stored))
    return [name for name in names if getattr(model, name) != getattr(stored, name)]


def _explanation(
    key: ObjectKey,
    operations: Sequence[Operation],
    stored: DurableObject,
    before: Sequence[object],
    attempts: Sequence[object],
) -> str:
    lines = [f"{key} differs from its model. After"]
    lines += [f"    {operation}" for operation in operations] or ["    no operation on it"]
    lines += ["it is stored as", f"    {stored!r}", "The model before was"]
    lines += [f"    {_shared_fields(model, stored)}" for model in before]
    if attempts:
        lines += ["and after"]
        lines += [f"    {_shared_fields(model, stored)}" for model in attempts]
    else:
        lines += ["and has another result"]
    return "\n".join(lines)


def _shared_fields(model: object, stored: DurableObject) -> str:
    names = _shared(model, type(stored))
    return ", ".join(f"{name}={getattr(model, name)!r}" for name in names)


def check_models(owner: str, models: ModelClasses, objects: Sequence[type[DurableObject]]) -> None:
    """Check that each model fits its class.

    Raises:
        DefinitionError: One doesn't.
    """
    for cls, make in models.items():
        if cls not in objects:
            name = getattr(cls, "__qualname__", repr(cls))
            raise DefinitionError(owner, "models", f"{name} is not in objects")
        _check_model(owner, cls, make)


def _check_model(owner: str, cls: type[DurableObject], make: Callable[[], object]) -> None:
    definition = definition_of(cls)
    model = make()
    name = type(model).__qualname__
    if not hasattr(model, "__dict__"):
        raise DefinitionError(owner, "models", f"{name} has __slots__; use a class without")
    missing = [n for n in _names_to_model(definition) if not callable(getattr(model, n, None))]
    if missing:
        raise DefinitionError(
            owner, "models", f"{name} lacks {', '.join(missing)}, which {cls.__qualname__} has"
        )
    if not _shared(model, cls):
        fields = ", ".join(definition.fields) or "none"
        raise DefinitionError(
            owner,
            "models",
            f"{name} has none of the fields of {cls.__qualname__} ({fields}), so the model has "
            "nothing to compare",
        )


def _names_to_model(definition: ObjectDefinition) -> Iterator[str]:
    """The names of the handlers that can change an object. Read-only handlers need no model."""
    for handler in definition.handlers.values():
        if not handler.readonly:
            yield handler.name
    yield from definition.alarms
    if definition.handle_alarm is not None:
        yield "handle_alarm"
