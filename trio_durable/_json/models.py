"""Models of pydantic, which are read and built through their storage.

pydantic is no dependency: a model exists only where pydantic is imported. An instance keeps its
fields in ``__dict__``, and extra values, private attributes and the names of the fields that were
set in slots of their own. All of these come back as they were, and nothing else does: computed
fields aren't stored.

Neither ``model_dump`` nor ``model_validate`` is used for state. The first writes a ``SecretStr`` as
asterisks, the second converts. So validators and ``model_post_init`` don't run when state is
written or read; each value is checked against the type of its field. ``model_validate`` is for
plain JSON of unknown origin, see `ModelForm.validated`.

A model is written as an object: its fields by name, then its private attributes, whose names begin
with an underscore, and two members if they are needed:

- ``"$extra"``: the extra values of a model with ``extra="allow"``, which have a name each.
- ``"$set"``: the names of the fields that were set, if they aren't all fields.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from inspect import get_annotations
from itertools import starmap
from typing import Annotated, Any

import attrs

from .annotations import bindings_of, evaluated, substituted
from .defaults import Default
from .errors import Unfit, UnsupportedType, as_unfit, expected
from .forms import NOTHING, FieldsForm, Form, Places, Taken
from .layout import Field, Layout, field_of_pydantic, layout_of, not_set
from .names import StoredName, stored_name
from .namespaces import Namespace, UnresolvedName, annotation_text
from .records import member_names
from .scalars import STR
from .sets import SetForm

EXTRA, MODEL_SET = "$extra", "$set"
"""The members of a model's JSON that are no fields."""
_SLOT_OF_EXTRA = "__pydantic_extra__"
_SLOT_OF_PRIVATE = "__pydantic_private__"
_SLOT_OF_SET = "__pydantic_fields_set__"
_SLOTS = frozenset({_SLOT_OF_EXTRA, _SLOT_OF_PRIVATE, _SLOT_OF_SET})
_NAMES = SetForm(set, STR)


def is_model(cls: object) -> bool:
    """True for a subclass of ``pydantic.BaseModel``."""
    pydantic: Any = sys.modules.get("pydantic")
    # A module that is being imported has no classes yet.
    base = getattr(pydantic, "BaseModel", None)
    return base is not None and isinstance(cls, type) and issubclass(cls, base)


def model_name(cls: Any) -> StoredName:
    """The stored name of a model: of a generic one that of the class, without its arguments."""
    return stored_name(cls.__pydantic_generic_metadata__["origin"] or cls)


def model_hints(cls: Any, namespace: Namespace) -> dict[str, Any]:
    """The types of the fields and the private attributes of a model.

    Args:
        cls: The model.
        namespace: The names where its statement ran, for local classes.

    Raises:
        UnresolvedName: A name isn't defined, perhaps not yet.
        UnsupportedType: An annotation is no type, or a private attribute has none.
    """
    if not cls.__pydantic_complete__:
        _complete(cls, namespace)
    bindings = bindings_of(cls)
    hints: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        # pydantic takes the notes around a type apart.
        tp = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        hints[name] = substituted(tp, bindings, cls)
    own = _own_hints(cls, namespace)
    for name in cls.__private_attributes__:
        if name not in own:
            error = UnsupportedType("it has no annotation, so its type isn't known")
            raise error.within(cls.__qualname__, name)
        hints[name] = substituted(own[name], bindings, cls)
    if EXTRA in own:
        hints[EXTRA] = substituted(own[EXTRA], bindings, cls)
    return hints


def _complete(cls: Any, namespace: Namespace) -> None:
    """Let pydantic resolve the annotations of a model, as it does when the model is first used.

    Raises:
        UnresolvedName: A name isn't defined, perhaps not yet.
        UnsupportedType: pydantic has no schema for a type.
    """
    names = namespace.names if namespace.shows(cls) else {}
    try:
        cls.model_rebuild(_types_namespace={**names, cls.__name__: cls})
    except NameError as error:
        member, annotation = next(
            (
                (name, annotation_text(field.annotation))
                for name, field in cls.model_fields.items()
                if error.name and error.name in annotation_text(field.annotation)
            ),
            ("", ""),
        )
        raise UnresolvedName.of(error, member, annotation) from error
    except Exception as error:  # schemas of users' types may raise anything
        raise UnsupportedType(f"{cls.__qualname__} isn't complete: {error}") from error


def _own_hints(cls: Any, namespace: Namespace) -> dict[str, Any]:
    """The types of private attributes and extra values, in terms of the class's type variables."""
    hints: dict[str, Any] = {}
    owners: dict[str, type] = {}
    for base in reversed(cls.__mro__):
        generic = vars(base).get("__pydantic_generic_metadata__") or {}
        origin = generic.get("origin")
        if origin is not None:  # Page[int], which is a class of its own behind Page
            variables = origin.__pydantic_generic_metadata__["parameters"]
            bindings = dict(zip(variables, generic["args"], strict=False))
            for name, owner in owners.items():
                if owner in origin.__mro__:
                    hints[name] = substituted(hints[name], bindings)
            continue
        if not is_model(base) or base is sys.modules["pydantic"].BaseModel:
            continue
        for name, annotation in get_annotations(base).items():
            key = EXTRA if name == _SLOT_OF_EXTRA else name
            if key == EXTRA or key in cls.__private_attributes__:
                hints[key] = evaluated(annotation, base, namespace, name)
                owners[key] = base
    return hints


class ModelForm(FieldsForm):
    """The form of a model.

    Args:
        cls: The class.
        name: The name by which unions and declarations know it.
        former: Names that it had before.

    Raises:
        UnsupportedType: The class's storage isn't its fields.
    """

    __slots__ = (
        "_declared",
        "_defaults",
        "_fields",
        "_has_dict_of_extra",
        "_is_root",
        "_private",
        "cls",
        "layout",
    )

    def __init__(self, cls: Any, name: str, former: tuple[str, ...] = ()) -> None:
        self.cls = cls
        self.name = name
        self.former = former
        self.types = frozenset({cls})
        self.exact = NOTHING
        declared = tuple(starmap(field_of_pydantic, cls.model_fields.items()))
        private = tuple(starmap(_private_field, cls.__private_attributes__.items()))
        for field in declared:
            if field.name.startswith("$"):
                raise UnsupportedType(f"{cls.__qualname__} has the field {field.name!r}; rename it")
        self.layout: Layout = layout_of(cls, _SLOTS, declared)
        self._declared = {field.name: field for field in declared}
        self._private = {field.name: field for field in private}
        self._fields = {**self._declared, **self._private}
        self._defaults: dict[str, Default] = {}
        self._is_root = bool(cls.__pydantic_root_model__)
        if self._is_root and private:
            raise UnsupportedType(
                f"{cls.__qualname__} is a RootModel, which has no storage for private attributes"
            )
        self._has_dict_of_extra = cls.model_config.get("extra") == "allow"
        self.fields = {}  # until `define`, since the class may contain itself
        self.keys = {**member_names((*declared, *private)), EXTRA: EXTRA, MODEL_SET: MODEL_SET}
        self.write, self.read = self._write, self._read

    def define(self, fields: Mapping[str, Form], extra: Form) -> None:
        """Set the forms of the fields and the private attributes.

        Args:
            fields: The forms, by name.
            extra: The form of the dict of extra values.
        """
        self._defaults = {name: Default(self._fields[name], form) for name, form in fields.items()}
        self.fields = {**fields, EXTRA: extra, MODEL_SET: _NAMES}

    def is_required(self, name: str) -> bool:
        """See `FieldsForm.is_required`."""
        return name in self._declared and self._declared[name].is_required

    def validated(self, data: Any) -> Any:
        """An instance from plain JSON of unknown origin, which pydantic checks and converts.

        Raises:
            Unfit: pydantic refuses it.
        """
        try:
            return self.cls.model_validate(data)
        except Exception as error:  # validators may raise anything
            raise as_unfit(error) from error

    # --- writing ---------------------------------------------------------------------------------

    def _write(self, value: Any, places: Places) -> dict[str, Any]:
        if type(value) is not self.cls:
            raise expected(self.name, value)
        places.append(id(value))
        layout = self.layout
        attributes = layout.attributes(value)
        # A RootModel hides these two slots.
        private: Any = None if self._is_root else _stored(value, _SLOT_OF_PRIVATE)
        extra: Any = None if self._is_root else _stored(value, _SLOT_OF_EXTRA)
        names = _stored(value, _SLOT_OF_SET)
        if len(attributes) != len(self._declared):
            layout.check_nothing_else(value)
        self._check_private(private)
        written: dict[str, Any] = {}
        for name in self._declared:
            if name not in attributes:
                raise not_set().within(f".{name}")
            self._write_member(name, attributes[name], places, written)
        for name, field in self._private.items():
            if name in private:
                self._write_member(name, private[name], places, written)
            elif not field.is_required:
                raise not_set().within(f".{name}")
        if (extra is not None) if not self._has_dict_of_extra else extra != {}:
            self._write_member(EXTRA, extra, places, written)
            self._check_extra(written[EXTRA])
        if names != self._declared.keys() | (extra or {}).keys():
            self._write_member(MODEL_SET, names, places, written)
        return written

    def _write_member(self, name: str, value: Any, places: Places, written: dict[str, Any]) -> None:
        try:
            written[self.keys[name]] = self.fields[name].write(value, places)
        except Exception as error:  # hooks may raise anything
            raise as_unfit(error).within(f".{name}") from error

    def _check_private(self, private: Any) -> None:
        if private is None and self._private:
            raise not_set().within(f".{next(iter(self._private))}")
        extra = (private or {}).keys() - self._private.keys()
        if extra or (private is not None and not self._private):
            raise Unfit("it is not a declared attribute, so it would be lost").within(
                f".{min(extra, default=_SLOT_OF_PRIVATE)}"
            )

    def _check_extra(self, extra: Mapping[str, Any]) -> None:
        for name in extra.keys() & self._declared.keys():
            raise Unfit(
                f"{name} is an extra value and a field; move it to the field in an @upgrade"
            ).within(f".{EXTRA}")

    # --- reading ---------------------------------------------------------------------------------

    def build(self, values: Mapping[str, Any], taken: Taken) -> Any:
        """See `FieldsForm.build`."""
        instance = self.layout.new()
        attributes = self.layout.attributes(instance)
        extra = values.get(EXTRA, {} if self._has_dict_of_extra else None)
        if extra:
            self._check_extra(extra)
        names = values.get(MODEL_SET)
        if names is None:
            names = {name for name in self._declared if name in values} | (extra or {}).keys()
        for name in self._declared:
            attributes[name] = self._value(name, values, instance, taken)
        private = {
            name: self._value(name, values, instance, taken)
            for name, field in self._private.items()
            if name in values or not field.is_required
        }
        if not self._is_root:
            object.__setattr__(instance, _SLOT_OF_EXTRA, extra)
            object.__setattr__(instance, _SLOT_OF_PRIVATE, private if self._private else None)
        object.__setattr__(instance, _SLOT_OF_SET, names)
        return instance

    def _value(self, name: str, values: Mapping[str, Any], instance: Any, taken: Taken) -> Any:
        return values[name] if name in values else self._defaults[name].make(instance, taken)


def _stored(value: Any, slot: str) -> Any:
    try:
        return object.__getattribute__(value, slot)
    except AttributeError:
        raise not_set().within(f".{slot}") from None


def _private_field(name: str, attribute: Any) -> Field:
    if attribute.default_factory is not None:
        return Field(name, attrs.NOTHING, attribute.default_factory)
    undefined = sys.modules["pydantic_core"].PydanticUndefined
    is_missing = attribute.default is undefined
    return Field(name, attrs.NOTHING if is_missing else attribute.default)
