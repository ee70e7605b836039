"""Generic durable object classes with arguments: ``Repository[int]`` is a class of its own.

A subclass that is made once for each list of arguments, since its objects are of a type of their
own: fields, codec, handles and stored name are those of ``int``. With a type variable among the
arguments it is `typing`'s alias, as for other classes, and so it is with an argument that is text:
``class Node(Tree["Node"])``.
"""

from __future__ import annotations

import enum
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from .._errors import DefinitionError
from .._json.annotations import generic_alias, has_text, parameters_of
from .._json.namespaces import annotation_text

_SUBSCRIPT = "__class_getitem__"
_CACHE = "__durable_parametrised__"
_ALIAS = "__durable_alias__"


def accept_arguments(cls: type) -> None:
    """Let ``cls``, if it is generic, be subscripted as described above."""
    if parameters_of(cls) and _SUBSCRIPT not in vars(cls):
        setattr(cls, _SUBSCRIPT, classmethod(_subscript))


def parametrised(alias: Any) -> type:
    """The class that a generic durable object class is with the arguments of ``alias``.

    Raises:
        DefinitionError: An argument isn't a type yet, or a field can't be of the type it has now.
    """
    origin: Any = get_origin(alias)
    problem = _obstacle(alias)
    if problem:
        raise DefinitionError(origin.__qualname__, "", f"{annotation_text(alias)}: {problem}")
    cache: dict[Any, type] | None = vars(origin).get(_CACHE)
    if cache is None:
        cache = {}
        setattr(origin, _CACHE, cache)
    found = cache.get(alias)
    if found is None:
        found = cache[alias] = _made(origin, alias)
    return found


def alias_of(cls: type) -> Any:
    """The alias of a class that `parametrised` made; None for any other."""
    return vars(cls).get(_ALIAS)


def _subscript(cls: type, args: Any) -> Any:
    alias = generic_alias(cls, args)
    return alias if _obstacle(alias) else parametrised(alias)


def _obstacle(alias: Any) -> str | None:
    """The reason why there can be no class for ``alias``, with the remedy; None without one."""
    variables = ", ".join(variable.__name__ for variable in alias.__parameters__)
    if variables:
        return f"the type variable {variables} has no type; replace it by one"
    if has_text(alias):
        return "an argument is text; write the class itself"
    try:
        hash(alias)
    except TypeError as error:
        return f"the arguments can't be hashed ({error}); make a subclass of it"
    return None


def _made(origin: Any, alias: Any) -> type:
    args = get_args(alias)

    def fill(body: dict[str, Any]) -> None:
        body["__module__"] = origin.__module__
        # With modules, so that two classes of one name are two arguments.
        body["__qualname__"] = f"{origin.__qualname__}[{_text(args, with_modules=True)}]"
        body["__doc__"] = origin.__doc__
        body[_ALIAS] = alias

    stored = f"{origin.__durable_definition__.name}[{_text(args)}]"
    # Without arguments in __name__, since code is generated with it, as in cattrs and handles.
    return types.new_class(origin.__name__, (alias,), {"name": stored}, fill)


def _text(args: tuple[Any, ...], *, with_modules: bool = False) -> str:
    """The arguments, the same for all that are equal: ``A | B`` may be an earlier ``B | A``."""
    return ", ".join(_text_of(arg, with_modules) for arg in args)


def _text_of(tp: Any, with_modules: bool) -> str:
    origin, args = get_origin(tp), get_args(tp)
    if tp is None or tp is type(None):
        return "None"
    if tp is Ellipsis:
        return "..."
    if isinstance(tp, (list, tuple)):  # the parameters of a Callable, or of a ParamSpec
        return f"[{_text(tuple(tp), with_modules=with_modules)}]"
    if origin in (Union, types.UnionType):
        return " | ".join(sorted(_text_of(arg, with_modules) for arg in args))
    if origin is Annotated:
        return _text_of(args[0], with_modules)
    if origin is Literal:
        return f"Literal[{', '.join(sorted(map(_literal_text, args)))}]"
    if origin is not None:
        return f"{_text_of(origin, with_modules)}[{_text(args, with_modules=with_modules)}]"
    name = getattr(tp, "__qualname__", None) or getattr(tp, "__name__", None) or repr(tp)
    module = getattr(tp, "__module__", "builtins")
    return f"{module}.{name}" if with_modules and module not in ("builtins", "typing") else name


def _literal_text(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    return repr(value)
