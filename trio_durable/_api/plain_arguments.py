"""Plain JSON as the arguments of calls by name.

A program that receives JSON, such as a web server, calls handlers by name with what it has parsed.
Where a parameter is declared as a model, which is an attrs class, a dataclass, a NamedTuple or the
like, the handler gets the model, checked, and not a dict.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from .._activations.object_type import ObjectType
from .._declarations.parameter_types import parameter_types
from .._declarations.records import HandlerDefinition
from .._errors import ArgumentError
from .._json.errors import Unfit, UnsupportedType, as_unfit
from .._json.forms import FieldsForm, Form, reachable
from .._json.mappings import TypedDictForm
from .._json.namespaces import UnresolvedName
from .._json.plain import write_json
from .._json.resolution import Resolution
from .._json.rows import NamedTupleForm
from .._json.terms import OLD
from .._keys import ObjectKey

Converter = Callable[[Any], Any]
"""Makes an argument from plain JSON."""

_by_type: WeakKeyDictionary[ObjectType, dict[str, Mapping[str, Converter]]] = WeakKeyDictionary()


def with_models(
    object_type: ObjectType,
    handler: HandlerDefinition,
    key: Callable[[], ObjectKey],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The arguments of a call, with models in place of the plain JSON that was given for them.

    Args:
        object_type: The type of the object.
        handler: The handler.
        key: Returns the object's key, for errors.
        args: The positional arguments.
        kwargs: The keyword arguments.

    Raises:
        ArgumentError: The JSON doesn't fit the model.
    """
    if not any(type(value) in (dict, list) for value in (*args, *kwargs.values())):
        return args, kwargs
    converters = _converters(object_type, handler)
    if not converters:
        return args, kwargs
    names = _positional(handler.signature)
    try:
        made = tuple(
            _converted(converters, name, value) for name, value in zip(names, args, strict=False)
        )
        others = {name: _converted(converters, name, value) for name, value in kwargs.items()}
    except Unfit as unfit:
        problem = f"the argument {unfit.path}: {unfit.problem}"
        raise ArgumentError(key(), handler.name, problem) from unfit
    return (*made, *args[len(names) :]), others


def _converted(converters: Mapping[str, Converter], name: str, value: object) -> object:
    convert = converters.get(name)
    if convert is None:
        return value
    try:
        return convert(value)
    except Unfit as unfit:
        raise unfit.within(name) from unfit


def _positional(signature: inspect.Signature) -> list[str]:
    return [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def _converters(object_type: ObjectType, handler: HandlerDefinition) -> Mapping[str, Converter]:
    """The converters of a handler's parameters, by parameter. Most handlers have none."""
    by_handler = _by_type.setdefault(object_type, {})
    found = by_handler.get(handler.name)
    if found is None:
        found = by_handler[handler.name] = dict(_made_converters(object_type, handler))
    return found


def _made_converters(
    object_type: ObjectType, handler: HandlerDefinition
) -> Iterator[tuple[str, Converter]]:
    for name, tp in parameter_types(object_type.cls, handler.name, handler.function).items():
        try:
            form = object_type.forms.of(tp)
        except (UnsupportedType, UnresolvedName):
            continue  # a type of values that are passed in this process only
        if _has_model(form):
            yield name, _converter(form)


def _has_model(form: Form) -> bool:
    return any(
        isinstance(each, (FieldsForm, NamedTupleForm)) and not isinstance(each, TypedDictForm)
        for each in reachable(form)
    )


def _converter(form: Form) -> Converter:
    read = Resolution({}, is_entering=True).reader(OLD, form)

    def convert(value: Any) -> Any:
        if type(value) not in (dict, list):
            return value
        try:
            data = write_json(value, [])
        except Unfit:
            return value  # it has models in it already
        if _fits(form, value):
            return value
        try:
            return read(data, [])
        except Exception as error:  # validators may raise anything
            raise as_unfit(error) from error

    return convert


def _fits(form: Form, value: Any) -> bool:
    try:
        form.write(value, [])
    except Exception:  # noqa: BLE001  # validators may raise anything
        return False
    return True
