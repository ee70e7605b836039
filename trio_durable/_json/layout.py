"""Layouts: where the instances of a class keep their fields' values.

Instances are read and built through their storage, ``__dict__`` and slots, as `copy` and `pickle`
do, and never by code of the class. An ``__init__``, a ``__getattribute__``, a property or a
metaclass can't change a state so; whether an ``__init__`` "was generated" can't be known reliably.

A class whose storage isn't its fields is refused: a base written in C has storage of its own, a
slot that is no field would be lost, and a property in a field's place hides it.
"""

from __future__ import annotations

import dataclasses
import keyword
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import attrs

from .errors import Unfit, UnsupportedType

_new_object = object.__new__
_get_attribute = object.__getattribute__
_set_attribute = object.__setattr__
HASH_OF_ATTRS = "_attrs_cached_hash"
"""The name under which attrs keeps the hash of an instance, and expects None at first."""
CACHED_HASHES = frozenset({HASH_OF_ATTRS, "__msgspec_cached_hash__"})
"""Names under which attrs and msgspec keep hashes, which aren't state."""
_CACHES = CACHED_HASHES | {"__orig_class__"}  # which typing sets
HEAP_TYPE = 1 << 9
"""Flag of classes that a class statement made: ``Py_TPFLAGS_HEAPTYPE``."""
_SLOT = types.MemberDescriptorType


@attrs.frozen
class Field:
    """A field of a class, whichever tool declared it."""

    name: str
    """The attribute's name, mangled if it begins with two underscores."""
    default: Any = attrs.NOTHING
    """The default value, if it is a value."""
    factory: Callable[..., Any] | None = None
    """The function that makes the default value."""
    takes_self: bool = False
    """True if the factory is called with the instance."""
    converter: Callable[..., Any] | None = None
    """An attrs converter, as a function of the value, the instance and the field."""
    validator: Callable[[Any, Any, Any], object] | None = None
    attribute: Any = None
    """attrs' own record of the field, with which its validator is called."""

    @property
    def is_required(self) -> bool:
        """True if the field has no default."""
        return self.default is attrs.NOTHING and self.factory is None


@attrs.frozen
class Layout:
    """The layout of a class's instances."""

    cls: type
    fields: tuple[Field, ...]
    slots: Mapping[str, Any]
    """The member descriptors of the fields that are slots."""
    in_dict: tuple[str, ...]
    """The fields whose values are in ``__dict__``."""
    has_dict: bool
    caches: frozenset[str]
    """Names in ``__dict__`` that aren't state."""
    reads_plainly: bool
    """True if ``value.__dict__`` and ``value.slot`` run no code of the class."""
    writes_plainly: bool
    """True if ``value.name = …`` runs no code of the class."""
    is_frozen: bool
    """True if the class refuses changes of its instances' fields."""
    caches_hash: bool
    """True if attrs keeps the hash of an instance in it, and needs a place for that."""

    def new(self) -> Any:
        """An instance without any field."""
        instance: Any = _new_object(self.cls)
        if self.caches_hash:
            _set_attribute(instance, HASH_OF_ATTRS, None)
        return instance

    def attributes(self, instance: Any) -> dict[str, Any]:
        """The ``__dict__`` of an instance that has one."""
        attributes: dict[str, Any] = _get_attribute(instance, "__dict__")
        return attributes

    def get(self, instance: Any, name: str) -> Any:
        """The value of a field.

        Raises:
            Unfit: It isn't set.
        """
        slot = self.slots.get(name)
        try:
            if slot is not None:
                return slot.__get__(instance)
            return self.attributes(instance)[name]
        except (AttributeError, KeyError):
            raise not_set() from None

    def set(self, instance: Any, name: str, value: Any) -> None:
        """Set a field, as it is in storage."""
        _set_attribute(instance, name, value)

    def check_nothing_else(self, instance: Any) -> None:
        """Check that the instance has no attribute besides its fields.

        Raises:
            Unfit: It has one, which would be lost.
        """
        attributes = self.attributes(instance)
        extra = attributes.keys() - set(self.in_dict) - self.caches
        if extra:
            raise undeclared(attributes, min(extra, key=str))


def undeclared(attributes: Mapping[str, Any], name: str) -> Unfit:
    """The error of an attribute that is no field."""
    kind = type(attributes[name]).__name__
    return Unfit(
        f"it is not declared, so it would be lost; declare it, as in `{name}: {kind} = …`"
    ).within(f".{name}")


def is_attribute_name(name: str) -> bool:
    """True if ``value.name`` is Python. Classes that a function made may have other fields."""
    return name.isidentifier() and not keyword.iskeyword(name)


def not_set() -> Unfit:
    """The error of a field without a value."""
    return Unfit("it isn't set, so it can't be stored; set it, or give it a default")


def layout_of(
    cls: type,
    also_caches: frozenset[str] = frozenset(),
    declared: tuple[Field, ...] | None = None,
) -> Layout:
    """The layout of an attrs class, a dataclass or a Struct.

    Args:
        cls: The class.
        also_caches: Names in ``__dict__``, and of slots, that aren't fields.
        declared: The fields of a class of another tool.

    Raises:
        UnsupportedType: Its storage isn't its fields.
    """
    fields = tuple(_fields(cls)) if declared is None else declared
    names = {field.name for field in fields}
    caches = _CACHES | also_caches | cached_properties(cls)
    slots = _slots(cls, names, caches)
    base = base_in_c(cls)
    if base is not None:
        raise UnsupportedType(
            f"{cls.__qualname__} has the base {base.__qualname__}, whose instances keep more than "
            "fields, which would be lost; use a field of that type instead"
        )
    has_dict = cls.__dictoffset__ != 0
    in_dict = tuple(field.name for field in fields if field.name not in slots)
    for name in in_dict:
        static = _static(cls, name)
        if not has_dict or hasattr(type(static), "__set__") or hasattr(type(static), "__delete__"):
            raise UnsupportedType(
                f"the field {name} of {cls.__qualname__} isn't kept in its instances: a property, "
                "a descriptor or a slot of another class is in its place; rename one of them"
            )
    return Layout(
        cls=cls,
        fields=fields,
        slots=slots,
        in_dict=in_dict,
        has_dict=has_dict,
        caches=caches,
        reads_plainly=(
            _static(cls, "__getattribute__") is object.__getattribute__
            and _static(cls, "__getattr__") is None
            and isinstance(_static(cls, "__dict__"), (types.GetSetDescriptorType, type(None)))
        ),
        writes_plainly=_static(cls, "__setattr__") is object.__setattr__,
        is_frozen=_is_frozen(cls),
        caches_hash=_caches_hash(cls),
    )


def _caches_hash(cls: type) -> bool:
    code = getattr(_static(cls, "__hash__"), "__code__", None)
    return code is not None and HASH_OF_ATTRS in code.co_names


def _is_frozen(cls: Any) -> bool:
    setter = _static(cls, "__setattr__")
    if is_struct(cls):
        return bool(cls.__struct_config__.frozen)
    parameters = _static(cls, "__dataclass_params__")
    if parameters is not None:
        return bool(parameters.frozen)
    # Of attrs, before and after 24.
    return getattr(setter, "__module__", "").startswith("attr.") and "frozen" in setter.__name__


def has_fields(cls: type) -> bool:
    """True for attrs classes and dataclasses."""
    return attrs.has(cls) or dataclasses.is_dataclass(cls)


def _fields(cls: type) -> Iterator[Field]:
    if attrs.has(cls) and dataclasses.is_dataclass(cls):
        raise UnsupportedType(
            f"{cls.__qualname__} is an attrs class and a dataclass at once; use one of them"
        )
    if attrs.has(cls):
        for attribute in attrs.fields(cls):
            default: Any = attribute.default
            is_factory = isinstance(default, _FACTORY)
            yield Field(
                attribute.name,
                attrs.NOTHING if is_factory else default,
                default.factory if is_factory else None,
                is_factory and default.takes_self,
                _converter(attribute.converter),
                attribute.validator,
                attribute,
            )
    elif is_struct(cls):
        yield from _fields_of_struct(cls)
    else:
        data_class: Any = cls
        for field in dataclasses.fields(data_class):
            if type(field.default).__module__ == "pydantic.fields":
                yield field_of_pydantic(field.name, field.default)
                continue
            yield Field(
                field.name,
                attrs.NOTHING if field.default is dataclasses.MISSING else field.default,
                None if field.default_factory is dataclasses.MISSING else field.default_factory,
            )


def is_struct(cls: object) -> bool:
    """True for a Struct of msgspec.

    msgspec is no dependency: where it isn't imported there is no Struct.
    """
    msgspec: Any = sys.modules.get("msgspec")
    return msgspec is not None and isinstance(cls, type(msgspec.Struct))


def stores_plainly(cls: Any) -> bool:
    """True for a Struct whose constructor stores its arguments, and does nothing else."""
    msgspec: Any = sys.modules.get("msgspec")
    is_plain = msgspec is not None and type(cls) is type(msgspec.Struct)
    return is_plain and not hasattr(cls, "__post_init__")


def _fields_of_struct(cls: Any) -> Iterator[Field]:
    # msgspec.structs.fields resolves annotations as well, and doesn't find names of functions.
    msgspec: Any = sys.modules["msgspec"]
    names, defaults = cls.__struct_fields__, cls.__struct_defaults__
    # The type of the factories among the defaults has no public name.
    probe = msgspec.defstruct("Probe", [("value", list, msgspec.field(default_factory=list))])
    is_factory = type(probe.__struct_defaults__[0])
    missing = (msgspec.NODEFAULT,) * (len(names) - len(defaults))
    for name, default in zip(names, (*missing, *defaults), strict=True):
        if isinstance(default, is_factory):
            yield Field(name, attrs.NOTHING, default.factory)
        else:
            yield Field(name, attrs.NOTHING if default is msgspec.NODEFAULT else default)


def field_of_pydantic(name: str, info: Any) -> Field:
    """The field that a ``FieldInfo`` of pydantic describes.

    Its default isn't validated, whatever ``validate_default`` says.
    """
    if info.is_required():
        return Field(name, attrs.NOTHING)
    factory = info.default_factory
    if factory is None:
        return Field(name, info.default)
    if not getattr(info, "default_factory_takes_validated_data", False):  # from 2.10
        return Field(name, attrs.NOTHING, factory)

    def over_fields(instance: Any) -> Any:
        return factory(dict(_get_attribute(instance, "__dict__")))  # the fields before it

    return Field(name, attrs.NOTHING, over_fields, takes_self=True)


_FACTORY: Any = type(attrs.Factory(list))  # attrs types Factory as a function


def _converter(converter: Any) -> Callable[..., Any] | None:
    if converter is None:
        return None
    kind: Any = attrs.Converter
    if isinstance(converter, kind):
        takes_self, takes_field = converter.takes_self, converter.takes_field
        function = converter.converter

        def convert(value: Any, instance: Any, field: Any) -> Any:
            more = (instance,) * takes_self + (field,) * takes_field
            return function(value, *more)

        return convert
    return lambda value, instance, field: converter(value)


def _slots(cls: type, names: set[str], caches: frozenset[str]) -> dict[str, Any]:
    slots: dict[str, Any] = {}
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if not isinstance(member, _SLOT) or member.__objclass__ is not base:
                continue
            if name in names:
                if _static(cls, name) is member:
                    slots[name] = member
            elif name not in caches:
                raise UnsupportedType(
                    f"{cls.__qualname__} has the slot {name}, which is no field, so it would be "
                    "lost; declare it as a field"
                )
    return slots


def base_in_c(cls: type) -> type | None:
    """A base that is written in C and has storage of its own; None without one."""
    members = sum(
        isinstance(member, _SLOT) for base in cls.__mro__ for member in vars(base).values()
    )
    own = object.__basicsize__ + 8 * members
    own += 8 * (cls.__dictoffset__ != 0) + 8 * (cls.__weakrefoffset__ != 0)
    if not cls.__itemsize__ and cls.__basicsize__ <= own:
        return None
    in_c = (base for base in cls.__mro__ if not base.__flags__ & HEAP_TYPE)
    return next((base for base in in_c if base is not object), cls)


def cached_properties(cls: type) -> frozenset[str]:
    """The names of the cached properties of a class, whose values aren't state."""
    found: set[str] = set()
    for base in cls.__mro__:
        namespace = vars(base)
        found.update(
            name for name, member in namespace.items() if isinstance(member, cached_property)
        )
        # attrs makes slots of the cached properties of a class with slots, which its __getattr__
        # fills. It keeps their names in an argument's default only.
        getter = namespace.get("__getattr__")
        if isinstance(getter, types.FunctionType):
            names = getter.__code__.co_varnames[2 : getter.__code__.co_argcount]
            defaults = dict(zip(names, getter.__defaults__ or (), strict=False))
            found.update(defaults.get("cached_properties", ()))
    return frozenset(found)


def _static(cls: type, name: str) -> Any:
    """The attribute of the class itself, without descriptors and metaclasses; None without one."""
    for base in type.__dict__["__mro__"].__get__(cls):
        if name in base.__dict__:
            return base.__dict__[name]
    return None
