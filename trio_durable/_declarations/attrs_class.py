"""attrs fields of a durable object class, made from its annotations and those of its bases."""

from __future__ import annotations

import inspect
import keyword
from typing import Any

import attrs

from .._errors import DefinitionError
from .._text import error_summary
from .class_body import unannotated_fields


def make_attrs(cls: type, root: type) -> None:
    """Turn annotated names into attrs fields, in place.

    Args:
        cls: The class.
        root: The base class of all durable objects, which has no fields.

    Raises:
        DefinitionError: A field is invalid.
    """

    def transform(
        cls: type[object], fields: list[attrs.Attribute[Any]]
    ) -> list[attrs.Attribute[Any]]:
        found = _fields_in_resolution_order(cls, fields, root)
        found = [field.evolve(alias=_alias(field, cls, root)) for field in found]
        _check_names(cls, found)
        return found

    try:
        attrs.define(
            cls,
            slots=False,  # in place, and open for mixins
            kw_only=True,
            auto_attribs=True,
            field_transformer=transform,
        )
    except DefinitionError:
        raise
    except attrs.exceptions.UnannotatedAttributeError as error:
        raise DefinitionError(
            cls.__qualname__,
            ", ".join(unannotated_fields(cls)),
            "annotate the field: `name: type = attrs.field(…)`",
        ) from error
    except Exception as error:
        raise DefinitionError(
            cls.__qualname__, "", f"attrs can't make a class of it: {error_summary(error)}"
        ) from error


def _fields_in_resolution_order(
    cls: type, fields: list[attrs.Attribute[Any]], root: type
) -> list[attrs.Attribute[Any]]:
    """The fields of ``cls``, including the annotated names of ordinary bases.

    attrs finds its own fields and those of bases that are attrs classes. Of two bases with a field
    of one name, the first in the method resolution order counts, as for all members.
    """
    by_name = {field.name: field for field in fields}
    place = {field.name: 0 for field in fields if not _is_inherited(field)}
    for index, base in enumerate(cls.__mro__[1:], start=1):
        if base is root:
            continue
        if "__attrs_attrs__" in vars(base):
            for field in vars(base)["__attrs_attrs__"]:
                if not _is_inherited(field):
                    place.setdefault(field.name, index)
            continue
        for field in _fields_of_plain_base(base):
            if index < place.get(field.name, len(cls.__mro__)):
                by_name[field.name] = field
                place[field.name] = index
    return list(by_name.values())


def _fields_of_plain_base(base: type) -> list[attrs.Attribute[Any]]:
    annotations = inspect.get_annotations(base)
    if not annotations or base.__module__ in ("typing", "typing_extensions", "abc", "builtins"):
        return []
    body = {name: value for name, value in vars(base).items() if name in annotations}
    found: list[attrs.Attribute[Any]] = []

    def keep(_: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
        # Here, since attrs replaces an alias that wasn't given when it is done.
        found.extend(field.evolve(inherited=True, alias=_own_alias(field)) for field in fields)
        return fields

    attrs.define(
        type(base.__name__, (), {**body, "__annotations__": dict(annotations)}),
        slots=False,
        kw_only=True,
        auto_attribs=True,
        init=False,  # its parameters would be checked before their names are
        field_transformer=keep,
    )
    return found


def _alias(field: attrs.Attribute[Any], cls: type, root: type) -> str:
    """The field's parameter: its alias if one was given, else its name, underscores included."""
    if _is_inherited(field):
        for base in cls.__mro__[1:]:
            if base is not root and issubclass(base, root):
                inherited: Any = getattr(vars(base)["__attrs_attrs__"], field.name, None)
                if inherited is not None:  # settled in the statement of the base
                    return str(inherited.alias)
    return _own_alias(field)


def _is_inherited(field: attrs.Attribute[Any]) -> bool:
    return bool(getattr(field, "inherited", False))  # which the types of attrs leave out


def _own_alias(field: attrs.Attribute[Any]) -> str:
    if not field.alias:
        return field.name
    without_underscores = field.name.lstrip("_")
    # attrs 26.1 tells whether the alias was given. For an inherited field, older ones don't.
    is_default = getattr(field, "alias_is_default", field.alias == without_underscores)
    return field.name if is_default else field.alias


def _check_names(cls: type, fields: list[attrs.Attribute[Any]]) -> None:
    """Check the names that are parameters of the constructor, before attrs writes its code.

    Raises:
        DefinitionError: A name can't be a parameter, or two fields have the same one.
    """
    taken: dict[str, str] = {}
    for field in fields:
        problem = None
        alias = field.alias
        other = taken.setdefault(alias, field.name) if isinstance(alias, str) else field.name
        if not isinstance(alias, str) or not _is_name(alias) or alias == "self":
            problem = f"{alias!r} can't be the name of a parameter; " + (
                "rename the field" if alias == field.name else "choose another alias"
            )
        elif other != field.name:
            problem = f"the parameter {alias!r} is that of the field {other}; choose another alias"
        if problem:
            raise DefinitionError(cls.__qualname__, str(field.name), problem)


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)
