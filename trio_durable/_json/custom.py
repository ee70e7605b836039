"""Hooks of users, for types that have no form of ours and for other JSON than ours.

They are registered on a converter of cattrs, which `make_converter` returns. Its own hooks for all
types are our forms, so a strategy or a generated hook writes the parts of its class as state does.
A hook of any other kind is a user's, and counts wherever its type stands.

This module imports cattrs, so only users' code imports it, by `make_converter`.
"""

from __future__ import annotations

import types
from pathlib import Path
from threading import RLock
from typing import Any, Union, get_origin
from weakref import WeakKeyDictionary

from cattrs import Converter

from .._text import error_summary, short_repr
from .errors import UnsupportedType
from .forms import Form
from .hooks import HookForm
from .lookup import Forms
from .namespaces import annotation_text
from .records import RecordForm

_BY_CLASS: tuple[type, ...] = (str, bytes, int, float, Path)
"""Types that cattrs dispatches by class, before any factory, along with their subclasses."""


class StateConverter(Converter):
    """A converter of cattrs whose own hooks are the forms of state."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.records: WeakKeyDictionary[type, RecordForm] = WeakKeyDictionary()
        """The forms of durable classes that were made with this converter."""
        self._forms = Forms(custom=(self.form,))
        self._lock = RLock()  # a factory of the user may ask again
        # The first ones are the last resort. They take the converter as an argument, since
        # Converter.copy() gives them to another one.
        self.register_unstructure_hook_factory(_any, _writer_of)
        self.register_structure_hook_factory(_any, _reader_of)
        for cls in _BY_CLASS:
            self.register_unstructure_hook(cls, _OwnWriter(self))
            self.register_structure_hook(cls, _OwnReader(self))

    def register_structure_hook(self, cl: Any, func: Any = None) -> Any:
        """See `Converter.register_structure_hook`.

        The one of cattrs keeps hooks of unions behind its factories, where ours hide them.
        """
        if get_origin(cl) in (Union, types.UnionType) and func is not None:
            return self.register_structure_hook_func(lambda tp: bool(tp == cl), func)
        hook: Any = super().register_structure_hook  # its overloads need a function
        return hook(cl, func)

    def form(self, tp: Any) -> Form | None:
        """The form of a type with hooks of the user; None for any other.

        Raises:
            UnsupportedType: One of the two hooks is missing, or can't be made.
        """
        try:
            write = self.get_unstructure_hook(tp, cache_result=False)
            read = self.get_structure_hook(tp, cache_result=False)
        except Exception as error:  # factories may raise anything
            raise UnsupportedType(
                f"the converter can't make hooks for {annotation_text(tp)}: {error_summary(error)}"
            ) from error
        has_writer, has_reader = not isinstance(write, _OwnWriter), not isinstance(read, _OwnReader)
        if not has_writer and not has_reader:
            return None
        if not has_writer or not has_reader:
            one, other = "an unstructure", "a structure"
            if not has_writer:
                one, other = other, one
            raise UnsupportedType(
                f"the converter has {one} hook for {annotation_text(tp)}, and needs {other} hook"
            )
        return HookForm(tp, write, read)

    def own_form(self, tp: Any) -> Form:
        """Our form of a type, whose parts may have hooks of the user."""
        with self._lock:
            return self._forms.own(tp)


def make_converter() -> Converter:
    """A converter for types that have no exact JSON by themselves, such as ``Fraction``.

    Give it to a `DurableRuntime`, or to one class by its keyword ``converter``. Register both hooks
    of a type before its first use::

        converter = make_converter()
        converter.register_unstructure_hook(Fraction, str)
        converter.register_structure_hook(Fraction, lambda text, _: Fraction(text))

    Factories and strategies of cattrs may be applied to it as well. Its hooks for all other types
    write them as state does, and read the same.

    The hooks write plain JSON, and not null. Each value is read back when it is written, and
    compared by type and storage with the one that was written; a difference is a
    `StateEncodeError`.
    """
    # With detailed validation, errors are groups of errors.
    return StateConverter(detailed_validation=False)


def checked_converter(converter: object) -> StateConverter:
    """``converter``, which is one of `make_converter`.

    Raises:
        ValueError: It is anything else.
    """
    if not isinstance(converter, StateConverter):
        raise ValueError(
            f"converter must be one that make_converter() returned, not {short_repr(converter)}: "
            "another one has hooks of its own for all types, which don't write them exactly"
        )
    return converter


class _OwnWriter:
    """An unstructure hook of ours: the form of a type, or of the class of the value."""

    def __init__(self, converter: StateConverter, tp: Any = None) -> None:
        self._converter = converter
        self._tp = tp

    def __call__(self, value: Any) -> Any:
        tp = type(value) if self._tp is None else self._tp
        return self._converter.own_form(tp).write(value, [])


class _OwnReader:
    """A structure hook of ours: the form of a type, or of the one that it is called with."""

    def __init__(self, converter: StateConverter, tp: Any = None) -> None:
        self._converter = converter
        self._tp = tp

    def __call__(self, data: Any, tp: Any) -> Any:
        return self._converter.own_form(tp if self._tp is None else self._tp).read(data, [])


def _any(_: Any) -> bool:
    return True


def _writer_of(tp: Any, converter: Any) -> _OwnWriter:
    return _OwnWriter(converter, tp)


def _reader_of(tp: Any, converter: Any) -> _OwnReader:
    return _OwnReader(converter, tp)
