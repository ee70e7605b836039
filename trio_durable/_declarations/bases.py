"""Checks of the classes that a durable object class is made of: own storage, and code never run.

The state of an object is its fields in its ``__dict__``. A base that keeps values elsewhere would
lose them, and a member that sets up instances would never run for an object that was loaded.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from types import MemberDescriptorType
from typing import Any

import attrs

from .._errors import DefinitionError

_NEVER_RUN = (
    "__init__",
    "__new__",
    "__post_init__",
    "__attrs_pre_init__",
    "__attrs_post_init__",
    "__setattr__",
)
_TYPING = ("typing", "typing_extensions")
_POINTER = 8


def check_bases(cls: type, root: type) -> None:
    """Check the body of ``cls`` and its ordinary bases for storage and construction of their own.

    Args:
        cls: The class, before attrs has processed it.
        root: The base class of all durable objects. Bases that derive from it passed the check.

    Raises:
        DefinitionError: A class isn't allowed here. The error names it, its member and the remedy.
    """
    if _has_storage(cls):
        found = [base for base in cls.__mro__[1:-1] if _has_storage(base)]
        base = next((base for base in found if not _is_python(base)), found[-1])
        raise DefinitionError(
            cls.__qualname__,
            "",
            f"the base {base.__qualname__} keeps values outside the fields, which aren't stored; "
            "remove it, and keep such a value in a field",
        )
    for part in cls.__mro__[:-1]:
        if part is not cls and issubclass(part, root):
            continue
        of_base = "" if part is cls else f"of the base {part.__qualname__} "
        if "__dataclass_fields__" in vars(part):
            raise DefinitionError(
                cls.__qualname__,
                "",
                f"the base {part.__qualname__} is a dataclass, whose fields attrs doesn't know; "
                "make it an ordinary class, or write @attrs.define(slots=False)",
            )
        for name in _NEVER_RUN:
            if name in vars(part) and not _is_generated(part, name):
                raise DefinitionError(
                    cls.__qualname__,
                    name,
                    f"{of_base}never runs for an object that is loaded from its stored fields; use "
                    "after_load, or attrs.field with default=, factory=, validator= or on_setattr=",
                )
        slots = [name for name, value in vars(part).items() if _is_slot(value)]
        if slots and _is_python(part):
            raise DefinitionError(
                cls.__qualname__,
                slots[0],
                f"{of_base}is a slot, and slots aren't stored; remove __slots__ and annotate a "
                "field, or write @attrs.define(slots=False)",
            )


def check_places(cls: type, fields: tuple[attrs.Attribute[object], ...], root: type) -> None:
    """Check that no other member stands in the place of a field of ``cls``.

    Args:
        cls: The class.
        fields: Its fields, inherited ones included.
        root: The base class of all durable objects, whose members aren't to be replaced.

    Raises:
        DefinitionError: A member does. The error names it and the remedy.
    """
    for field in fields:
        is_declared = False
        for base in cls.__mro__[:-1]:
            is_declared |= field.name in inspect.get_annotations(base)
            if field.name not in vars(base):
                continue
            value = vars(base)[field.name]
            if inspect.isdatadescriptor(value) or not is_declared or base is root:
                kind = kind_of(value)
                remedy = "annotate it as its new default, or rename one"
                raise DefinitionError(
                    cls.__qualname__,
                    field.name,
                    f"the {kind} {base.__qualname__}.{field.name} is in the place of the field; "
                    + (remedy if kind == "attribute" else "rename one"),
                )


def check_decorators(cls: type, fields: tuple[attrs.Attribute[object], ...]) -> None:
    """Check that no decorator has made another kind of class of ``cls`` after its statement.

    Args:
        cls: The class.
        fields: The fields that it had at the end of its statement.

    Raises:
        DefinitionError: A decorator has.
    """
    found = None
    if "__dataclass_fields__" in vars(cls):
        found = "@dataclass"
    elif vars(cls)["__attrs_attrs__"] is not fields:
        found = "@attrs.define"
    if found:
        raise DefinitionError(
            cls.__qualname__,
            "",
            f"{found} makes fields of its own; remove it, since a durable object's annotations are "
            "its fields already",
        )


def kind_of(value: object) -> str:
    """The word for a member that can't be in the place of a field."""
    if isinstance(value, (property, staticmethod, classmethod, cached_property)):
        return type(value).__name__
    return "method" if inspect.isfunction(value) else "attribute"


def _is_generated(cls: type, name: str) -> bool:
    """True for a member that attrs or typing has added to a class."""
    member: Any = vars(cls)[name]
    if name == "__setattr__":
        return bool(vars(cls).get("__attrs_own_setattr__"))
    code = getattr(member, "__code__", None)
    return not _is_python(cls) or (
        getattr(member, "__module__", "") in _TYPING
        or getattr(code, "co_filename", "").startswith("<attrs generated ")
    )


def _is_python(cls: type) -> bool:
    """False for a class that is written in C, as all that has no ``__module__`` of its own."""
    return "__module__" in vars(cls)


def _is_slot(value: object) -> bool:
    return isinstance(value, MemberDescriptorType)


def _has_storage(cls: type) -> bool:
    """True if instances have room for more than ``__dict__``, weak references and slots."""
    known = sum(_is_slot(value) for base in cls.__mro__ for value in vars(base).values())
    # Negative offsets are those of what is in front of the instance.
    known += (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    return cls.__itemsize__ > 0 or cls.__basicsize__ > object.__basicsize__ + _POINTER * known
