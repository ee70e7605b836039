"""Defaults of fields, for an object that was never stored and for data that lacks a field.

- A value that is immutable all the way down is shared. Any other is read from its encoding each
  time, so that no two objects share it.
- A *pure* factory makes an equal value each time: ``list``, a class by its fields. The value of
  any other, such as ``uuid4``, is noted as taken, so that the object is saved with its first turn:
  a value that a caller has seen must not be another after a restart.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from enum import Enum
from typing import Any

import attrs
import orjson

from .errors import Unfit, UnsupportedType, as_unfit
from .forms import Form, Taken
from .layout import Field, has_fields, layout_of, stores_plainly
from .texts import SCALAR_TYPES

_PURE: frozenset[Any] = frozenset(
    {list, dict, set, frozenset, tuple, deque, Counter, OrderedDict, int, float, bool, str, bytes}
)


NOT_SHARED = object()
"""Stands for a default that each instance has another one of."""


class Default:
    """The default of one field.

    Args:
        field: The field.
        form: The form of its type.
    """

    __slots__ = ("_encoded", "_field", "_form", "_is_noted")

    def __init__(self, field: Field, form: Form) -> None:
        self._field = field
        self._form = form
        self._encoded: bytes | None = None
        """The encoding of a value that isn't shared."""
        self._is_noted = not _is_pure_default(field)

    @property
    def shared(self) -> Any:
        """The value that all instances have; `NOT_SHARED` if code of the user may make another."""
        field = self._field
        is_value = field.factory is None and field.default is not attrs.NOTHING
        if is_value and field.converter is None and is_immutable(field.default):
            return field.default
        return NOT_SHARED

    def make(self, instance: Any, taken: Taken) -> Any:
        """The value for one instance, through the field's converter.

        Raises:
            Unfit: The field has no default, its default doesn't fit its type, or the factory or
                the converter raised. The path of the error is the field.
        """
        try:
            return self._made(instance, taken)
        except Exception as error:
            raise as_unfit(error).within(f".{self._field.name}") from error

    def _made(self, instance: Any, taken: Taken) -> Any:
        field = self._field
        if field.factory is not None:
            value = field.factory(instance) if field.takes_self else field.factory()
        elif field.default is attrs.NOTHING:
            raise Unfit("it is missing, and the field has no default")
        elif field.converter is None and not is_immutable(field.default):
            if self._encoded is None:
                self._encoded = self._written(field.default)
            return self._form.read(orjson.loads(self._encoded), taken)
        else:
            value = field.default
        if field.converter is not None:
            value = field.converter(value, instance, field.attribute)
        if not self._is_noted:
            return value
        taken.append(field.name)
        if not is_immutable(value):
            # A function may return one object each time, or its argument.
            return self._form.read(orjson.loads(self._written(value)), taken)
        return value

    def _written(self, value: Any) -> bytes:
        return orjson.dumps(self._form.write(value, []))


def is_immutable(value: Any) -> bool:
    """True if the value is immutable all the way down."""
    kind = type(value)
    if kind is frozenset:
        return all(map(is_immutable, value))
    if issubclass(kind, tuple) and not getattr(value, "__dict__", None):
        return all(map(is_immutable, tuple.__iter__(value)))
    return kind in SCALAR_TYPES or isinstance(value, Enum)


def is_pure(factory: Any) -> bool:
    """True if each value that the factory makes equals every other."""
    try:
        if factory in _PURE:
            return True
    except TypeError:  # unhashable
        return False
    if not isinstance(factory, type):
        return False
    if not stores_plainly(factory) and not (has_fields(factory) and _is_generated(factory)):
        return False
    try:
        fields = layout_of(factory).fields
    except UnsupportedType:
        return False
    return all(field.is_required or _is_pure_default(field) for field in fields)


def _is_pure_default(field: Field) -> bool:
    """True if the field's default is a value, or that of a pure factory, as it is."""
    if field.converter is not None:  # a function of the user
        return False
    return field.factory is None or (not field.takes_self and is_pure(field.factory))


def _is_generated(cls: Any) -> bool:
    """True if an instance without arguments has its fields' defaults, and nothing else happens."""
    init = getattr(cls.__init__, "__code__", None)
    return (
        type(cls).__call__ is type.__call__
        and cls.__new__ is object.__new__
        and not any(
            hasattr(cls, name)
            for name in ("__post_init__", "__attrs_post_init__", "__attrs_pre_init__")
        )
        and init is not None
        and (init.co_filename.startswith("<attrs generated") or init.co_filename == "<string>")
    )
