"""Look-up of forms: from an annotation to the form of its type.

A type is known by its normal form: without the notes around it (``Annotated``, ``Final``), without
names for it (``NewType``, ``type``), and with the arguments of generic classes in place of their
type variables. Normal forms are compared by identity of their parts and in order, never with
``==``, for which ``A | B`` is ``B | A`` and ``Literal[1]`` is ``Literal[True]``.

A form that can't be made leaves nothing: what was made for it is dropped with it.
"""

from __future__ import annotations

import collections
import collections.abc
import sys
import types
import typing
from abc import ABCMeta
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import Enum
from threading import Lock
from typing import Any, Literal, NewType, Self, TypeVar, Union, get_args, get_origin

from .annotations import (
    alias_value,
    bindings_of,
    is_among,
    is_typed_dict,
    resolved_hints,
    substituted,
)
from .choices import EnumForm, LiteralForm
from .errors import UnknownType, UnsupportedType
from .forms import Form, Forward
from .keys import KeyForm
from .layout import has_fields, is_struct
from .mappings import MappingForm, TypedDictForm
from .models import EXTRA, ModelForm, is_model, model_hints, model_name
from .names import stored_name
from .namespaces import Namespace, annotation_text, is_type_alias
from .plain import ANY
from .pydantic_types import form_of_pydantic, type_of_pydantic
from .records import RecordForm
from .rows import NamedTupleForm
from .scalars import INT, OWN, TIMEDELTA
from .sequences import RowForm, SequenceForm
from .sets import SetForm
from .structs import StructForm
from .texts import BIG_INT, TEXTS, AsText
from .unions import UnionForm, union_of

_NOTES = ("Final", "Required", "NotRequired", "ReadOnly")
"""Notes around a type, of ``typing`` or of ``typing_extensions``."""
_SCALARS: Mapping[Any, Form] = {**OWN, **TEXTS, timedelta: TIMEDELTA}
_SEQUENCES: Mapping[Any, type] = {
    list: list,
    collections.abc.MutableSequence: list,
    collections.deque: collections.deque,
}
_SETS: Mapping[Any, type] = {
    set: set,
    frozenset: frozenset,
    collections.abc.MutableSet: set,
}
_DICTS: Mapping[Any, type] = {
    dict: dict,
    collections.abc.MutableMapping: dict,
    collections.OrderedDict: collections.OrderedDict,
    collections.defaultdict: collections.defaultdict,
}
_DEEPEST = 100
"""Nesting of types at which a generic class is taken for one that contains itself without end."""

_METACLASSES = (type, ABCMeta)
"""The metaclasses of the classes in the tables above."""

Custom = Callable[[Any], "Form | None"]
"""Makes the form of a type in place of ours, such as one that a converter has hooks for; None to
leave it to us."""


class Forms:
    """The forms of one declaration, by type.

    Args:
        namespace: The names where the declaration stands, for local classes.
        custom: Makes forms of types in place of ours, except those of JSON's own types.
    """

    def __init__(
        self, namespace: Namespace = Namespace.EMPTY, custom: tuple[Custom, ...] = ()
    ) -> None:
        self._namespace = namespace
        self._custom = custom
        self._forms: dict[Any, Form] = {}
        self._kept: list[Any] = []
        """Annotations that are known by their identity, which must not be given to others."""
        self._depth = 0

    def with_custom(self, custom: Custom) -> Forms:
        """The forms of the same declaration, of which ``custom`` makes some before all others."""
        return Forms(self._namespace, (custom, *self._custom))

    def of(self, tp: Any) -> Form:
        """The form of a type.

        Raises:
            UnsupportedType: Its values have no exact JSON.
            UnresolvedName: A name in an annotation of a class isn't defined, perhaps not yet.
        """
        tp = _without_notes(tp)
        return self._once(tp, self._key(tp), self._custom)

    def own(self, tp: Any) -> Form:
        """Our form of a type, of which only the parts may have custom ones.

        Raises:
            UnsupportedType: Its values have no exact JSON.
            UnresolvedName: A name in an annotation of a class isn't defined, perhaps not yet.
        """
        tp = _without_notes(tp)
        return self._once(tp, (self.own, self._key(tp)), ())

    def _once(self, tp: Any, key: Any, custom: tuple[Custom, ...]) -> Form:
        form = self._forms.get(key)
        if form is not None:
            return form
        before = len(self._forms)
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                raise UnsupportedType(
                    f"{annotation_text(tp)[:80]} contains itself with ever other arguments"
                )
            form = self._make(tp, key, custom)
        except BaseException:
            # Dicts keep their order, so these are the forms that were begun for this one.
            for begun in list(self._forms)[before:]:
                del self._forms[begun]
            raise
        finally:
            self._depth -= 1
        self._forms[key] = form
        return form

    def record(self, cls: type, hints: Mapping[str, Any], ignored: str = "") -> RecordForm:
        """The form of a class whose annotations are resolved already.

        Args:
            cls: The attrs class.
            hints: The type of each field.
            ignored: A name in ``__dict__`` that isn't state.

        Raises:
            UnsupportedType: Values of a field have no exact JSON.
            UnresolvedName: A name in an annotation of a class isn't defined, perhaps not yet.
        """
        name = stored_name(cls)
        form = RecordForm(cls, name.name, name.former, ignored)
        self._define_record(form, cls, hints)
        return form

    # --- normal forms ----------------------------------------------------------------------------

    def _key(self, tp: Any) -> Any:
        """A key for the normal form of a type."""
        tp = _without_notes(tp)
        origin, args = get_origin(tp), get_args(tp)
        if _is_big_int(tp):
            return BIG_INT
        if origin is None:
            return self._identity(tp)
        if origin is Literal:
            return (Literal, *((type(arg), self._identity(arg)) for arg in args))
        if is_among(origin, (Union, types.UnionType)):
            origin = Union
        else:
            origin = self._identity(origin)
        return (origin, *map(self._key, args)) if args else (origin, "()")

    def _identity(self, part: Any) -> Any:
        # Not the part itself: classes of one metaclass may all be equal to each other.
        if isinstance(part, (str, int, type(None), type(...))):
            return part
        self._kept.append(part)
        return id(part)

    # --- forms -----------------------------------------------------------------------------------

    def _make(self, tp: Any, key: Any, custom: tuple[Custom, ...]) -> Form:
        origin, args = get_origin(tp) or tp, get_args(tp)
        if _is_big_int(tp):
            return BIG_INT
        if tp is Any or tp is object:
            return ANY
        if not isinstance(tp, type) or tp not in OWN:
            for make in custom:
                form = make(tp)
                if form is not None:
                    return form
        if is_among(origin, (Union, types.UnionType)):
            return union_of([self.of(arg) for arg in args])
        if isinstance(origin, type):
            if type(origin) not in _METACLASSES:  # its classes may be equal to any other
                return self._of_other_class(tp, origin, key)
            scalar = _SCALARS.get(origin)
            return scalar or self._of_class(tp, origin, args, key)
        if origin is Literal:
            return union_of(list(_literals(tp)))
        if is_type_alias(origin):
            return self._alias(origin, tp, key)
        if isinstance(tp, TypeVar):
            raise UnsupportedType(
                f"the type variable {tp} has no type here; give its class the type in brackets, or "
                "the variable a default"
            )
        if tp is Self:
            raise UnsupportedType("Self means no class here; write the class's name")
        raise UnsupportedType(f"{annotation_text(tp)} is no type whose values have exact JSON")

    def _of_class(self, tp: Any, origin: type, args: tuple[Any, ...], key: Any) -> Form:
        if origin is tuple:
            return self._tuple(tp, args)
        if origin in _SEQUENCES:
            (item,) = _arguments(tp, args, Any)
            return SequenceForm(_SEQUENCES[origin], self.of(item))
        if origin in _SETS:
            (item,) = _arguments(tp, args, Any)
            return SetForm(_SETS[origin], self.of(item))
        if origin in _DICTS:
            return self._dict(_DICTS[origin], *_arguments(tp, args, str, Any))
        if origin is collections.Counter:
            (counted,) = _arguments(tp, args, str)
            return MappingForm(origin, KeyForm(self.of(counted)), INT)
        if origin in _ABSTRACT:
            return _ABSTRACT[origin](self, args)
        return self._of_other_class(tp, origin, key)

    def _of_other_class(self, tp: Any, origin: type, key: Any) -> Form:
        if is_typed_dict(origin):
            return self._typed_dict(tp, origin, key)
        if issubclass(origin, Enum):
            return EnumForm(origin)
        if issubclass(origin, tuple) and hasattr(origin, "_fields"):
            return self._named_tuple(tp, origin, key)
        if has_fields(origin) or is_struct(origin):
            return self._record(tp, origin, key)
        if is_model(origin):
            return self._model(origin, key)
        stands_for = type_of_pydantic(origin)
        if stands_for is not None:
            return self.of(stands_for)
        form = form_of_pydantic(origin)
        if form is not None:
            return form
        raise UnknownType(
            f"{origin.__qualname__} has no exact JSON form; use an attrs class, a dataclass or "
            "plain types, or give the runtime a converter with hooks for it"
        )

    def _alias(self, alias: Any, tp: Any, key: Any) -> Form:
        forward = Forward(alias.__name__)
        self._forms[key] = forward
        value = alias_value(alias, self._namespace)
        form = self.of(substituted(value, bindings_of(tp)))
        if form is forward:
            raise UnsupportedType(f"the type {alias.__name__} is defined as itself")
        forward.target = form
        return form

    def _tuple(self, tp: Any, args: tuple[Any, ...]) -> Form:
        if tp is tuple:
            args = (Any, ...)
        if len(args) == 2 and args[1] is ...:
            return SequenceForm(tuple, self.of(args[0]))
        return RowForm([self.of(arg) for arg in args])

    def _dict(self, kind: type, key: Any, value: Any) -> Form:
        factory = None
        if kind is collections.defaultdict:
            plain = _without_notes(value)
            factory = get_origin(plain) or plain
            if not isinstance(factory, type) or factory is types.UnionType:
                raise UnsupportedType(
                    f"the factory of a defaultdict is the type of its values, and "
                    f"{annotation_text(value)} is none; use a dict"
                )
        return MappingForm(kind, KeyForm(self.of(key)), self.of(value), factory)

    def _sequence(self, args: tuple[Any, ...]) -> Form:
        item = self.of(args[0] if args else Any)
        return UnionForm([SequenceForm(list, item)], [SequenceForm(tuple, item)])

    def _abstract_set(self, args: tuple[Any, ...]) -> Form:
        item = self.of(args[0] if args else Any)
        return UnionForm([SetForm(set, item)], [SetForm(frozenset, item)])

    def _mapping(self, args: tuple[Any, ...]) -> Form:
        key, value = args or (str, Any)
        ordered = self._dict(collections.OrderedDict, key, value)
        return UnionForm([self._dict(dict, key, value)], [ordered])

    # --- classes ---------------------------------------------------------------------------------

    def _typed_dict(self, tp: Any, cls: Any, key: Any) -> Form:
        stored = stored_name(cls)
        form = TypedDictForm(stored.name, stored.former)
        self._forms[key] = form
        hints = self._hints(tp, cls)
        required = set(cls.__required_keys__)
        for name, hint in hints.items():
            notes = _notes_of(hint)
            if "NotRequired" in notes:  # as text, which the class statement didn't evaluate
                required.discard(name)
            elif "Required" in notes:
                required.add(name)
        fields = {name: self._member(cls, name, hint) for name, hint in hints.items()}
        extra = getattr(cls, "__extra_items__", None)
        has_extra = extra is not None and not _is_missing(extra)
        extra_form = self._member(cls, "extra_items", extra) if has_extra else None
        form.define(fields, frozenset(required), extra_form)
        return form

    def _named_tuple(self, tp: Any, cls: Any, key: Any) -> Form:
        name = stored_name(cls)
        form = NamedTupleForm(cls, name.name, name.former)
        self._forms[key] = form
        hints = self._hints(tp, cls)
        form.define([self._member(cls, each, hints.get(each, Any)) for each in cls._fields])
        return form

    def _record(self, tp: Any, cls: type, key: Any) -> Form:
        name = stored_name(cls)
        make = StructForm if is_struct(cls) else RecordForm
        form = make(cls, name.name, name.former)
        self._forms[key] = form
        self._define_record(form, cls, self._hints(tp, cls))
        return form

    def _model(self, cls: Any, key: Any) -> Form:
        name = model_name(cls)
        hints = model_hints(cls, self._namespace)
        form = ModelForm(cls, name.name, name.former)
        self._forms[key] = form
        extra = self._member(cls, EXTRA, hints.pop(EXTRA, dict[str, Any]))
        form.define({each: self._member(cls, each, hint) for each, hint in hints.items()}, extra)
        return form

    def _define_record(self, form: RecordForm, cls: type, hints: Mapping[str, Any]) -> None:
        fields: dict[str, Form] = {}
        for field in form.layout.fields:
            hint = hints.get(field.name, getattr(field.attribute, "type", None))
            if hint is None:
                error = UnsupportedType("it has no annotation, so its type isn't known")
                raise error.within(cls.__qualname__, field.name)
            fields[field.name] = self._member(cls, field.name, hint)
        form.define(fields)

    def _hints(self, tp: Any, cls: type) -> Mapping[str, Any]:
        bindings = bindings_of(tp)
        return {
            name: substituted(hint, bindings, tp)
            for name, hint in resolved_hints(cls, self._namespace).items()
        }

    def _member(self, cls: type, name: str, hint: Any) -> Form:
        try:
            return self.of(hint)
        except UnsupportedType as error:
            raise error.within(cls.__qualname__, name) from None


_shared = Forms()
_lock = Lock()


def form_of(tp: Any) -> Form:
    """The form of a type outside of any declaration, such as that of a payload.

    Raises:
        UnsupportedType: Its values have no exact JSON.
        UnresolvedName: A name in an annotation of a class isn't defined.
    """
    with _lock:
        return _shared.of(tp)


_ABSTRACT: Mapping[Any, Callable[[Forms, tuple[Any, ...]], Form]] = {
    collections.abc.Sequence: Forms._sequence,
    collections.abc.Set: Forms._abstract_set,
    collections.abc.Mapping: Forms._mapping,
}


def _arguments(tp: Any, args: tuple[Any, ...], *defaults: Any) -> tuple[Any, ...]:
    """The arguments of a generic type.

    Raises:
        UnsupportedType: There are too many or too few.
    """
    if args and len(args) != len(defaults):
        raise UnsupportedType(
            f"{annotation_text(tp)} takes {len(defaults)} types in its brackets, not {len(args)}"
        )
    return args or defaults


def _without_notes(tp: Any) -> Any:
    """A type without the notes around it, and without its other names."""
    while True:
        if tp is None:
            return type(None)
        origin = get_origin(tp)
        if origin is typing.Annotated:
            if _is_big_int(tp):
                return tp
            tp = get_args(tp)[0]
        elif origin is not None and _note(origin):
            tp = get_args(tp)[0]
        elif isinstance(tp, NewType):
            tp = tp.__supertype__
        else:
            return tp


def _is_big_int(tp: Any) -> bool:
    metadata = getattr(tp, "__metadata__", ())
    return any(isinstance(each, AsText) for each in metadata) and tp.__origin__ is int


def _note(origin: Any) -> str | None:
    extensions = sys.modules.get("typing_extensions")
    for name in _NOTES:
        if origin is getattr(typing, name, ...) or origin is getattr(extensions, name, ...):
            return name
    return None


def _notes_of(tp: Any) -> set[str | None]:
    found = set()
    while (origin := get_origin(tp)) is not None:
        note = _note(origin)
        if note is None and origin is not typing.Annotated:
            break
        found.add(note)
        tp = get_args(tp)[0]
    return found


def _is_missing(extra: Any) -> bool:
    """True for the mark of a TypedDict without extra items."""
    modules = (typing, sys.modules.get("typing_extensions"))
    nothing = [getattr(module, "NoExtraItems", ...) for module in modules]
    return extra is typing.Never or any(extra is each for each in nothing)


def _literals(tp: Any) -> list[Form]:
    """The forms of a Literal: of its members of each enum, and of the others."""
    enums: dict[type[Enum], list[Enum]] = {}
    others: list[Any] = []
    for choice in get_args(tp):
        if isinstance(choice, Enum):
            enums.setdefault(type(choice), []).append(choice)
        elif type(choice) in OWN:
            others.append(choice)
        else:
            raise UnsupportedType(
                f"{choice!r} in a Literal has no JSON of its own; use str, int, bool or None"
            )
    forms: list[Form] = [EnumForm(cls, members) for cls, members in enums.items()]
    return [*forms, LiteralForm(others)] if others else forms
