"""Fields and defaults of classes, and instances that are built without running their code."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, NotRequired, Required, get_args, get_origin

import attrs
import typing_extensions


def is_record(kind: Any) -> bool:
    """True for attrs classes, dataclasses, ``NamedTuple`` and ``TypedDict``."""
    return isinstance(kind, type) and (
        attrs.has(kind)
        or dataclasses.is_dataclass(kind)
        or hasattr(kind, "_fields")
        or typing_extensions.is_typeddict(kind)
    )


def fields_of(annotation: Any) -> dict[str, Any]:
    """The types of a record's fields, with the arguments of a generic one."""
    kind = get_origin(annotation) or annotation
    hints = typing_extensions.get_type_hints(kind, include_extras=True)
    if attrs.has(kind):
        names: tuple[str, ...] = tuple(field.name for field in attrs.fields(kind))
    elif dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind))
    else:
        names = getattr(kind, "_fields", tuple(hints))
    parameters = getattr(kind, "__parameters__", ())
    given = dict(zip(parameters, get_args(annotation), strict=False))
    return {name: _substituted(hints[name], given) for name in names}


def _substituted(annotation: Any, given: dict[Any, Any]) -> Any:
    if isinstance(annotation, typing.TypeVar):
        return given.get(annotation, Any)
    parameters = getattr(annotation, "__parameters__", ())
    if parameters and given:
        return annotation[tuple(given.get(each, Any) for each in parameters)]
    return annotation


def required_of(annotation: Any) -> set[str]:
    """The names of the fields that have no default, and of keys that must be there."""
    kind = get_origin(annotation) or annotation
    if attrs.has(kind):
        attributes: tuple[Any, ...] = attrs.fields(kind)
        return {each.name for each in attributes if each.default is attrs.NOTHING}
    if dataclasses.is_dataclass(kind):
        return {
            each.name
            for each in dataclasses.fields(kind)
            if each.default is each.default_factory is dataclasses.MISSING
        }
    if hasattr(kind, "_fields"):
        fields: tuple[str, ...] = kind._fields
        defaults: dict[str, Any] = kind._field_defaults
        return set(fields) - set(defaults)
    hints = typing_extensions.get_type_hints(kind, include_extras=True)
    qualifiers: dict[str, Any] = {name: get_origin(hint) for name, hint in hints.items()}
    needed: frozenset[str] = kind.__required_keys__
    return {
        name
        for name, qualifier in qualifiers.items()
        if qualifier is Required or (name in needed and qualifier is not NotRequired)
    }


def default_of(kind: Any, name: str) -> Any:
    """The default of a field, through its converter."""
    if attrs.has(kind):
        field = getattr(attrs.fields(kind), name)
        default = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory()
        return field.converter(default) if field.converter else default
    if dataclasses.is_dataclass(kind):
        [found] = [each for each in dataclasses.fields(kind) if each.name == name]
        if found.default_factory is not dataclasses.MISSING:
            return found.default_factory()
        return found.default
    return kind._field_defaults[name]


def build(annotation: Any, values: Any) -> Any:
    """An instance with these values in its storage.

    Args:
        annotation: The class, or a generic one with its arguments.
        values: The values by name; of a ``NamedTuple`` also in order.
    """
    kind = get_origin(annotation) or annotation
    if kind is dict or typing_extensions.is_typeddict(kind):
        return dict(values)
    if issubclass(kind, tuple):
        if isinstance(values, dict):
            values = [values.get(name, kind._field_defaults.get(name)) for name in kind._fields]
        return tuple.__new__(kind, values)
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made
