"""What a durable object's class body must not look like.

Each check refuses something that Python or attrs would take without a word, and that would not do
what it looks like: state that isn't stored, a handler that can't be called.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import ClassVar, get_origin

import attrs

from .._alarms.retry import Retry
from .._errors import DefinitionError
from .alarm import Misplaced, is_marked, retry_of
from .handler import Handler
from .upgrade import Upgrade

_HOOKS = {"after_load": "(self)", "handle_alarm": "(self, alarm)"}
RESERVED = frozenset({"ctx", *_HOOKS})


def check_body(cls: type) -> None:
    """Check what stands in the body of ``cls`` itself, before attrs gets it.

    Raises:
        DefinitionError: Names the member and the mend.
    """
    annotations = inspect.get_annotations(cls)
    for name in annotations:
        if name == "ctx":
            raise _reserved(cls, name)
        if isinstance(vars(cls).get(name), Handler):
            raise DefinitionError(cls.__qualname__, name, "is both a field and a handler")
        if is_alarm(vars(cls).get(name)) and not _is_classvar(annotations[name]):
            raise DefinitionError(cls.__qualname__, name, "is both a field and an alarm")
        if isinstance(vars(cls).get(name), Upgrade) and not _is_classvar(annotations[name]):
            raise DefinitionError(cls.__qualname__, name, "is both a field and an upgrade")
    for name, value in vars(cls).items():
        if name == "ctx":
            raise _reserved(cls, name)
        if name in ("__init__", "__new__", "__setattr__"):
            raise DefinitionError(
                cls.__qualname__,
                name,
                "objects are made from stored fields; set things up in after_load instead",
            )
        if name in _HOOKS:
            _check_hook(cls, name, value)
        inner = getattr(value, "__func__", None) or getattr(value, "fget", None)
        if is_alarm(inner) or isinstance(inner, Handler):
            mark = "alarm" if is_alarm(inner) else "handler"
            raise DefinitionError(
                cls.__qualname__, name, f"@{mark} goes on a plain method, and comes last"
            )
        if isinstance(inner, Upgrade):
            raise DefinitionError(
                cls.__qualname__, name, "@upgrade comes first, with @staticmethod below it"
            )
        if is_alarm(value):
            check_alarm(cls, name, value)
        elif isinstance(value, Handler):
            check_handler(cls, name, value)
        elif name not in annotations and _looks_like_state(cls, name, value):
            raise DefinitionError(
                cls.__qualname__,
                name,
                f"has no annotation: write `{name}: {type(value).__name__} = …` for state, "
                f"`{name}: ClassVar[…]` or an UPPER_CASE name for a constant",
            )


def check_handler(cls: type, name: str, handler: Handler[..., object]) -> None:
    """Check a method marked with ``@handler`` in the body of ``cls``.

    Raises:
        DefinitionError: It can't be one.
    """
    function: object = handler.function
    problem = None
    if is_alarm(function):
        check_alarm(cls, name, Misplaced(handler))
    if name in RESERVED or name.startswith("_"):
        problem = "the name is reserved; a handler needs a public name of its own"
    elif isinstance(function, Handler):
        problem = "it is marked twice; once is enough"
    elif not isinstance(function, FunctionType):
        problem = "@handler goes on a method written with def or async def, and comes last"
    elif inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        problem = "a handler can't yield; return a list, or hand out pages"
    elif not _takes_self(function):
        problem = "a handler takes self first"
    if problem:
        raise DefinitionError(cls.__qualname__, name, problem)


def is_alarm(value: object) -> bool:
    """Whether a member of a class body was marked with ``@alarm``."""
    return isinstance(value, Misplaced) or is_marked(value)


def check_alarm(cls: type, name: str, value: object) -> None:
    """Check a method marked with ``@alarm`` in the body of ``cls``.

    Raises:
        DefinitionError: It can't be one.
    """
    problem = None
    thing = value.thing if isinstance(value, Misplaced) else value
    if isinstance(thing, Handler):
        problem = "it is both an alarm and a handler; let each call a plain method"
    elif not isinstance(thing, FunctionType):
        problem = "@alarm goes on a method written with def or async def, and comes last"
    elif name in RESERVED or name.startswith("_"):
        problem = "the name is reserved; an alarm needs a public name of its own"
    elif inspect.isasyncgenfunction(thing) or inspect.isgeneratorfunction(thing):
        problem = "an alarm's method can't yield"
    elif not _takes_self(thing):
        problem = "an alarm's method takes self"
    elif not _takes_only_self(thing):
        problem = (
            "an alarm's method takes nothing but self; what the alarm was set with is "
            "self.ctx.alarm.payload"
        )
    elif not isinstance(retry_of(thing), Retry):
        problem = f"retry must be a Retry, not {retry_of(thing)!r}"
    if problem:
        raise DefinitionError(cls.__qualname__, name, problem)


def check_fields(cls: type, fields: tuple[attrs.Attribute[object], ...]) -> None:
    """Check the fields that attrs found for ``cls``, inherited ones included.

    Raises:
        DefinitionError: Names the field and the mend.
    """
    for field in fields:
        problem = None
        if field.name in RESERVED:
            problem = "the name is reserved; call the field something else"
        elif field.default is attrs.NOTHING:
            problem = (
                "the field needs a default, because an object that was never stored starts from it"
            )
        elif not _is_factory(field.default) and type(field.default).__hash__ is None:
            problem = (
                f"the default {field.default!r} is mutable and would be shared by all objects; "
                f"write attrs.field(factory={type(field.default).__name__})"
            )
        elif not field.init:
            problem = "init=False would keep it from being loaded; drop it"
        if problem:
            raise DefinitionError(cls.__qualname__, field.name, problem)


def check_overrides(cls: type, fields: tuple[attrs.Attribute[object], ...]) -> None:
    """Check that nothing else hides a base's handler, alarm or upgrade, and check the hooks.

    Raises:
        DefinitionError: Names the member and the mend.
    """
    field_names = {field.name for field in fields}
    for base in cls.__mro__[:-1]:
        for name, value in vars(base).items():
            if name in _HOOKS:
                _check_hook(cls, name, value)
            kind = _kind(value)
            if kind is None:
                continue
            is_one = _kind(inspect.getattr_static(cls, name)) == kind
            article = "a" if kind == "handler" else "an"
            if name in field_names:
                raise DefinitionError(
                    cls.__qualname__,
                    name,
                    f"a field and {article} {kind} have the same name; the one would replace "
                    "the other",
                )
            if not is_one:
                raise DefinitionError(
                    cls.__qualname__,
                    name,
                    f"it replaces an inherited {kind}; mark it with @{kind}, or rename it",
                )


def unannotated_fields(cls: type) -> list[str]:
    """The names in the body of ``cls`` that are an `attrs.field` without an annotation."""
    annotations = inspect.get_annotations(cls)
    return [
        name
        for name, value in vars(cls).items()
        if _is_attrs_field(value) and name not in annotations
    ]


def _reserved(cls: type, name: str) -> DefinitionError:
    return DefinitionError(
        cls.__qualname__, name, "ctx is reserved for the context; choose another name"
    )


def _looks_like_state(cls: type, name: str, value: object) -> bool:
    return not (
        (name.startswith("__") and name.endswith("__"))
        or name.isupper()
        or name.startswith("_abc")
        or hasattr(type(value), "__get__")
        or isinstance(value, (type, staticmethod, classmethod))
        or _is_attrs_field(value)
        or any(
            _is_classvar(inspect.get_annotations(base).get(name))
            # Of these check_overrides speaks.
            or _kind(vars(base).get(name))
            for base in cls.__mro__[1:]
        )
    )


def _kind(value: object) -> str | None:
    """What a member of a class body was marked as."""
    if isinstance(value, Handler):
        return "handler"
    if is_alarm(value):
        return "alarm"
    return "upgrade" if isinstance(value, Upgrade) else None


def _is_attrs_field(value: object) -> bool:
    return type(value) is type(attrs.field())


def _is_factory(default: object) -> bool:
    return type(default) is type(attrs.Factory(list))


def _is_classvar(annotation: object) -> bool:
    if isinstance(annotation, str):
        return annotation.startswith(("ClassVar", "typing.ClassVar", "t.ClassVar"))
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _takes_self(function: FunctionType) -> bool:
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return first is not None and first.kind in (
        first.POSITIONAL_ONLY,
        first.POSITIONAL_OR_KEYWORD,
        first.VAR_POSITIONAL,
    )


def _check_hook(cls: type, name: str, value: object) -> None:
    if not _can_hook(name, value):
        raise DefinitionError(
            cls.__qualname__,
            name,
            f"must be a plain method without yield, `def {name}{_HOOKS[name]}` or `async def`",
        )


def _can_hook(name: str, value: object) -> bool:
    if not isinstance(value, FunctionType) or is_alarm(value):
        return False
    if inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value):
        return False
    try:
        inspect.signature(value).bind(*_HOOKS[name].split(","))
    except TypeError:
        return False
    return True


def _takes_only_self(function: FunctionType) -> bool:
    _, *others = inspect.signature(function).parameters.values()
    return all(
        parameter.default is not parameter.empty
        or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in others
    )
