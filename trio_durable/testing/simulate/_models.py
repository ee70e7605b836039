"""Whether what objects did is what plain Python classes would have done.

Prior art: the check for linearizability by Wing and Gong, 1993, and Lowe's memory of what was tried
already, 2017. Calls that were under way together may have been done in any order. A call whose
caller heard nothing was done, or was not, or was done up to one of its commits. So there is not
one model of an object but all that it may be by what is known, which is nearly always one: each
step goes through all orders and outcomes that agree with what callers were told, and keeps those
models that agree with what is stored.
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

_MOST_STEPS = 10_000

ModelClasses = Mapping[type[DurableObject], Callable[[], object]]


class Models:
    """What every object may be by now.

    Args:
        classes: What makes the model of an object that was never called, by type.
    """

    def __init__(self, classes: ModelClasses) -> None:
        self._classes = {definition_of(cls).name: make for cls, make in classes.items()}
        self._possible: dict[ObjectKey, list[object]] = {}

    def check(self, key: ObjectKey, operations: Sequence[Operation], stored: DurableObject) -> None:
        """Go on by one step of an object.

        Args:
            key: The object.
            operations: What was done to it in the step.
            stored: What is stored of it, or if nothing is, its defaults.

        Raises:
            AssertionError: No model could have done that.
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

    def _new(self, key: ObjectKey) -> object:
        model = self._classes[key.type_name]()
        model.object_id = key.object_id  # type: ignore[attr-defined]  # as ctx has it
        return model


def _outcomes(model: object, operations: Sequence[Operation]) -> Iterator[object]:
    """What ``model`` may be after ``operations``, in any order that they may have been done in.

    Raises:
        AssertionError: That is too much to go through.
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
        if steps > _MOST_STEPS:
            raise AssertionError(
                f"there are too many ways in which {len(operations)} operations on "
                f"{operations[0].key} may have been done; let less happen in a step"
            )
        first_end = min(operations[n].ended for n in left)
        for n in left:
            if operations[n].began < first_end:
                to_try += [(after, left - {n}) for after in _done(before, operations[n])]


def _done(model: object, operation: Operation) -> Iterator[object]:
    """What ``model`` may be after one operation; nothing, if it would have come out otherwise."""
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
        # Its last commit acknowledges the alarm; or one before, if it puts another in its place.
        yield from (*commits, done) if operation.is_known else (model, *commits)
    elif not operation.is_known:
        yield from (model, *commits, done)
    elif operation.error is not None or error is not None:
        if type(operation.error) is type(error):
            yield done
    elif result == operation.result:
        yield done


def _run_through(steps: Any, at_yield: Callable[[], object]) -> object:
    """Run a generator to its end and return what it does."""
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
    """The names of what they have in common and differ in."""
    names = _shared(model, type(stored))
    return [name for name in names if getattr(model, name) != getattr(stored, name)]


def _explanation(
    key: ObjectKey,
    operations: Sequence[Operation],
    stored: DurableObject,
    before: Sequence[object],
    attempts: Sequence[object],
) -> str:
    lines = [f"{key} is not what its model says. After"]
    lines += [f"    {operation}" for operation in operations] or ["    nothing was done to it"]
    lines += ["it is stored as", f"    {stored!r}", "and before, the model was"]
    lines += [f"    {_shown(model, stored)}" for model in before]
    if attempts:
        lines += ["which makes it"]
        lines += [f"    {_shown(model, stored)}" for model in attempts]
    else:
        lines += ["for which the model has another result"]
    return "\n".join(lines)


def _shown(model: object, stored: DurableObject) -> str:
    names = _shared(model, type(stored))
    return ", ".join(f"{name}={getattr(model, name)!r}" for name in names)


def check_models(owner: str, models: ModelClasses, objects: Sequence[type[DurableObject]]) -> None:
    """Refuse what can't be a model of one of ``objects``.

    Raises:
        DefinitionError: It lacks something.
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
            f"{name} has none of the fields of {cls.__qualname__} ({fields}), so there is nothing "
            "to compare",
        )


def _names_to_model(definition: ObjectDefinition) -> Iterator[str]:
    """What may change an object. Reading handlers need no model."""
    for handler in definition.handlers.values():
        if not handler.readonly:
            yield handler.name
    yield from definition.alarms
    if definition.handle_alarm is not None:
        yield "handle_alarm"
