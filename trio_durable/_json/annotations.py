"""Resolution of annotations: from the text and the type variables in a class body to types.

`resolved_hints` does for state what `typing.get_type_hints` does in general, with three differences
that matter here:

- A name is looked up where Python and type checkers look, see `namespaces`.
- Annotations of generic bases are in terms of the class's own type variables: a base's ``list[T]``
  is ``list[int]`` in ``class Numbers(Repo[int])``.
- Errors name the member. A name that may be defined later and an annotation that can never be a
  type raise different ones.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Generic,
    Literal,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    Union,
    get_args,
    get_origin,
)

from .._text import error_summary
from .namespaces import (
    InvalidAnnotation,
    Namespace,
    Scopes,
    UnresolvedName,
    annotation_text,
    evaluate,
    is_type_alias,
    module_names,
)

Bindings: TypeAlias = Mapping[Any, Any]
"""Types by the type variable that they replace."""

_BASES = ""
"""The member in errors about the arguments of a base, which are no member's annotation."""


# --- annotations ---------------------------------------------------------------------------------


def resolved_hints(cls: type, namespace: Namespace = Namespace.EMPTY) -> dict[str, Any]:
    """The annotations of a class and its bases as types, by member, bases first.

    ``Annotated``, ``Required``, ``ClassVar`` and the like stay. The only type variables left are
    the class's own, and stand-ins for those of a base without arguments that have neither a default
    nor a bound. ``Self`` stays, see `substituted`.

    Args:
        cls: The class: attrs, dataclass, NamedTuple, TypedDict or any other.
        namespace: The names where its statement ran, for local classes.

    Raises:
        UnresolvedName: A name isn't defined, perhaps not yet.
        UnsupportedType: An annotation is no type.
    """
    if is_typed_dict(cls):
        return _typed_dict_hints(cls, namespace)
    bindings = bindings_of_bases(cls, namespace)
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, hint in own_hints(base, namespace).items():
            hints[name] = substituted(hint, bindings.get(base, {}))
    return hints


def own_hints(cls: type, namespace: Namespace = Namespace.EMPTY) -> dict[str, Any]:
    """The annotations in the body of ``cls`` itself as types, by member.

    Raises:
        UnresolvedName: A name isn't defined, perhaps not yet.
        UnsupportedType: An annotation is no type.
    """
    annotations = inspect.get_annotations(cls)
    if not any(map(has_text, annotations.values())):
        return {name: _evaluated_none(tp) for name, tp in annotations.items()}
    scopes = Scopes(cls, namespace)
    return {name: scopes.evaluate(tp, name) for name, tp in annotations.items()}


def evaluated(annotation: Any, cls: type, namespace: Namespace, member: str) -> Any:
    """``annotation``, found in the body of ``cls``, with all text in it evaluated.

    Raises:
        UnresolvedName: A name isn't defined, perhaps not yet.
        UnsupportedType: It is no type.
    """
    if not has_text(annotation):
        return _evaluated_none(annotation)
    return Scopes(cls, namespace).evaluate(annotation, member)


def alias_value(alias: Any, namespace: Namespace = Namespace.EMPTY) -> Any:
    """The type that a type alias stands for, in terms of the alias's own type variables.

    Args:
        alias: A ``type`` statement's alias, or a ``TypeAliasType``, without arguments.
        namespace: The names where the alias was defined, for local ones.

    Raises:
        UnresolvedName: A name isn't defined, perhaps not yet.
        UnsupportedType: The alias stands for no type.
    """
    name = alias.__name__
    try:
        value = alias.__value__  # a type statement evaluates it here
    except NameError as error:
        raise UnresolvedName.of(error, name, name) from error
    except Exception as error:
        raise InvalidAnnotation(name, name, error_summary(error)) from error
    if not has_text(value):
        return _evaluated_none(value)
    # Aliases have no qualified name. Names of the module come first, as most aliases are there.
    global_names = {
        **namespace.names,
        **module_names(alias.__module__, namespace),
    }
    parameters = {parameter.__name__: parameter for parameter in alias.__type_params__}
    return evaluate(value, name, global_names, {name: alias, **parameters})


def is_among(tp: object, others: Iterable[object]) -> bool:
    """True if a type is one of ``others``; a metaclass may say that of any by ``==``."""
    return any(tp is other for other in others)


def is_typed_dict(tp: object) -> bool:
    """True for a TypedDict, of ``typing`` or of ``typing_extensions``."""
    return isinstance(tp, type) and issubclass(tp, dict) and hasattr(tp, "__required_keys__")


def _typed_dict_hints(cls: type, namespace: Namespace) -> dict[str, Any]:
    """Hints of a TypedDict, whose class has the keys of its bases but not the bases."""
    hints: dict[str, Any] = {}
    inherited: dict[str, Any] = {}
    for base in _original_bases(cls):
        origin = get_origin(base) or base
        if is_typed_dict(origin):
            bindings = bindings_of(evaluated(base, cls, namespace, _BASES))
            for name, hint in _typed_dict_hints(origin, namespace).items():
                hints[name] = substituted(hint, bindings)
            inherited |= inspect.get_annotations(origin)
    scopes = Scopes(cls, namespace)
    for name, annotation in inspect.get_annotations(cls).items():
        if name not in hints or inherited[name] is not annotation:
            hints[name] = scopes.evaluate(annotation, name)
    return hints


def has_text(annotation: Any) -> bool:
    """True if a part of an annotation is text, which has to be evaluated."""
    if isinstance(annotation, (str, ForwardRef)):
        return True
    origin = get_origin(annotation)
    if origin is None or origin is Literal:
        return False
    args = get_args(annotation)
    return any(map(has_text, args[:1] if origin is Annotated else args))


def _evaluated_none(tp: Any) -> Any:
    return type(None) if tp is None else tp


# --- type variables ------------------------------------------------------------------------------


def bindings_of(tp: Any) -> Bindings:
    """The types that stand for the type variables of a generic class, by variable.

    Of ``Page[int]`` they are its arguments. A variable without one, as all of a bare ``Page``, has
    its default, else its bound. A variable with neither isn't among the bindings.

    Type variables of its bases aren't either: `resolved_hints` has already replaced them.
    """
    parameters = parameters_of(get_origin(tp) or tp)
    bindings = _aligned(parameters, get_args(tp))
    for parameter in parameters:
        if parameter not in bindings:
            fallback = _fallback(parameter)
            if fallback is not None:
                # A default may be in terms of the variables before it.
                bindings[parameter] = substituted(fallback, bindings)
    return MappingProxyType(bindings)


def parameters_of(tp: Any) -> tuple[Any, ...]:
    """The type variables of a generic class or alias, in the order of its arguments."""
    if is_type_alias(tp):
        return tuple(tp.__type_params__)
    if not isinstance(tp, type) or "__parameters__" in vars(tp):
        return tuple(getattr(tp, "__parameters__", ()))
    # Generic sets them after the __init_subclass__ of the bases behind it has run.
    bases = vars(tp).get("__orig_bases__", ())
    for base in bases:
        if is_among(get_origin(base), (Generic, Protocol)):
            return get_args(base)
    return tuple(dict.fromkeys(each for base in bases for each in free_variables(base)))


def free_variables(tp: Any) -> tuple[Any, ...]:
    """The type variables in a type; none of a generic class without arguments."""
    if isinstance(tp, TypeVar):
        return (tp,)
    return tuple(getattr(tp, "__parameters__", ())) if get_origin(tp) is not None else ()


def substituted(tp: Any, bindings: Bindings, self_type: Any = None) -> Any:
    """``tp`` with its type variables replaced; ``tp`` itself if it has none of them.

    Args:
        tp: A type, as `resolved_hints` returns it.
        bindings: Types by type variable. Other variables stay.
        self_type: The replacement of ``Self``; None to leave it.
    """
    if isinstance(tp, TypeVar):
        return bindings.get(tp, tp)
    if tp is Self:
        return tp if self_type is None else self_type
    origin, args = get_origin(tp), get_args(tp)
    if is_among(origin, (None, Literal, collections.abc.Callable)):
        return tp
    if origin is Annotated:
        inner = substituted(args[0], bindings, self_type)
        return tp if inner is args[0] else Annotated[(inner, *args[1:])]
    new: list[Any] = []
    for arg in args:
        variadic = next(iter(get_args(arg)), None)
        if isinstance(variadic, TypeVarTuple) and variadic in bindings:  # arg is Unpack[variadic]
            new += bindings[variadic]
        else:
            new.append(substituted(arg, bindings, self_type))
    if len(new) == len(args) and all(a is b for a, b in zip(new, args, strict=True)):
        return tp
    if origin is types.UnionType:
        origin = Union
    # A special form, such as Final, takes no tuple.
    inside = new[0] if len(new) == 1 else tuple(new)
    is_class = Generic in getattr(origin, "__mro__", ())
    return generic_alias(origin, inside) if is_class else origin[inside]


def generic_alias(cls: Any, args: Any) -> Any:
    """``cls[args]`` as `typing.Generic` makes it, also for a class that overrides this."""
    return vars(Generic)["__class_getitem__"].__get__(None, cls)(args)


def bindings_of_bases(cls: type, namespace: Namespace) -> dict[type, Bindings]:
    """The bindings of each generic class that ``cls`` inherits from.

    For each class separately, since a base and its subclass may use one type variable for two
    things: ``class Lists(Repo[list[T]], Generic[T])``.
    """
    found: dict[type, Bindings] = {}
    explicit: dict[type, Any] = {}

    def visit(cls: type, own: Bindings) -> None:
        for base in _original_bases(cls):
            origin = get_origin(base) or base
            if not isinstance(origin, type) or is_among(origin, (Generic, Protocol, object)):
                continue
            alias = substituted(evaluated(base, cls, namespace, _BASES), own)
            if get_args(alias) and explicit.setdefault(origin, alias) != alias:
                one, other = annotation_text(explicit[origin]), annotation_text(alias)
                raise InvalidAnnotation(_BASES, one, f"another base inherits from {other}")
            if origin not in found:
                bindings = {**_unbound(origin), **bindings_of(alias)}
                found[origin] = bindings
                visit(origin, bindings)

    visit(cls, {})
    return found


def _unbound(cls: Any) -> dict[Any, Any]:
    """Stand-ins for the type variables of a base without arguments.

    Without them a subclass with the same variable would give the base its own argument.
    """
    return {
        parameter: TypeVar(parameter.__name__)  # pyright: ignore[reportGeneralTypeIssues]
        for parameter in parameters_of(cls)
        if isinstance(parameter, TypeVar)
    }


def _aligned(parameters: tuple[Any, ...], args: tuple[Any, ...]) -> dict[Any, Any]:
    """The argument of each parameter. A TypeVarTuple gets a tuple of all arguments in its place."""
    for index, parameter in enumerate(parameters):
        if isinstance(parameter, TypeVarTuple) and args:
            after = len(parameters) - index - 1
            end = len(args) - after
            return {
                **dict(zip(parameters[:index], args[:index], strict=True)),
                parameter: args[index:end],
                **dict(zip(parameters[index + 1 :], args[end:], strict=True)),
            }
    return dict(zip(parameters, args, strict=False))


def has_default(parameter: Any) -> bool:
    """True for a type variable with a default, of Python 3.13 or typing_extensions."""
    method = getattr(parameter, "has_default", None)
    return method is not None and method()


def _fallback(parameter: Any) -> Any:
    """The default of a type variable, else its bound, else None."""
    name = parameter.__name__
    try:
        if has_default(parameter):
            fallback = _evaluated_none(parameter.__default__)
        else:
            fallback = getattr(parameter, "__bound__", None)
    except NameError as error:  # of PEP 695, evaluated here
        raise UnresolvedName.of(error, name, name) from error
    if not has_text(fallback):
        return fallback
    return evaluate(fallback, name, module_names(parameter.__module__), {})


def _original_bases(cls: type) -> Iterable[Any]:
    """The bases of ``cls`` with their arguments, as in its statement."""
    bases: Iterable[Any] = vars(cls).get("__orig_bases__", cls.__bases__)
    return bases
