"""Checks of a durable object's class body, its fields and its overrides.

Each check rejects a declaration that Python and attrs accept silently, but that doesn't do what it
seems to: state that isn't stored, or a handler that can't be called.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import InitVar
from types import FunctionType
from typing import Annotated, ClassVar, Final, TypeAlias, get_args, get_origin

import attrs

from .._alarms.recurrence import MAX_NAME_BYTES
from .._alarms.retry import Retry
from .._durations import Unset
from .._errors import DefinitionError
from .._json.annotations import free_variables, parameters_of
from .alarm import AlarmOptions, Misplaced, is_marked, options_of
from .bases import kind_of
from .handler import Handler, SomeHandler
from .keywords import checked_limit, expected_errors
from .upgrade import Upgrade

_HOOKS = {"after_load": "(self)", "handle_alarm": "(self, alarm)"}
RESERVED = frozenset({"ctx", *_HOOKS})


def check_body(cls: type) -> None:
    """Check the members in the body of ``cls`` itself, before attrs processes them.

    Raises:
        DefinitionError: A member isn't allowed. The error names it and the remedy.
    """
    annotations = inspect.get_annotations(cls)
    for name in annotations:
        if name == "ctx":
            raise _reserved(cls, name)
        if isinstance(vars(cls).get(name), Handler):
            raise DefinitionError(
                cls.__qualname__, name, "is both a field and a handler; rename one"
            )
        if is_alarm(vars(cls).get(name)) and not _is_classvar(annotations[name]):
            raise DefinitionError(
                cls.__qualname__, name, "is both a field and an alarm; rename one"
            )
        if isinstance(vars(cls).get(name), Upgrade) and not _is_classvar(annotations[name]):
            raise DefinitionError(
                cls.__qualname__, name, "is both a field and an upgrade; rename one"
            )
        kind = kind_of(vars(cls).get(name))
        if kind != "attribute" and not _is_classvar(annotations[name]):
            raise DefinitionError(
                cls.__qualname__, name, f"is both a field and a {kind}; rename one"
            )
    for name, value in vars(cls).items():
        if name == "ctx":
            raise _reserved(cls, name)
        if name in _HOOKS:
            _check_hook(cls, name, value)
        inner = getattr(value, "__func__", None) or getattr(value, "fget", None)
        if is_alarm(inner) or isinstance(inner, Handler):
            mark = "alarm" if is_alarm(inner) else "handler"
            raise DefinitionError(
                cls.__qualname__,
                name,
                f"@{mark} goes on a plain method, as its outermost decorator",
            )
        if isinstance(inner, Upgrade):
            raise DefinitionError(
                cls.__qualname__,
                name,
                "@upgrade is the outermost decorator, directly above @staticmethod",
            )
        if is_alarm(value):
            check_alarm(cls, name, value)
        elif isinstance(value, Handler):
            check_handler(cls, name, value)
        elif name not in annotations and _looks_like_state(cls, name, value):
            raise DefinitionError(
                cls.__qualname__,
                name,
                f"has no annotation; write `{name}: {type(value).__name__} = …` for state, "
                f"`{name}: ClassVar[…]` or an UPPER_CASE name for a constant",
            )


def check_handler(cls: type, name: str, handler: SomeHandler) -> None:
    """Check a method marked with ``@handler`` in the body of ``cls``.

    Raises:
        DefinitionError: It can't be a handler.
    """
    function: object = handler.function
    problem = None
    if is_alarm(function):
        check_alarm(cls, name, Misplaced(handler))
    if name in RESERVED or name.startswith("_"):
        problem = "the name is reserved; give the handler a public name"
    elif isinstance(function, Handler):
        problem = "it is marked with @handler twice; once is enough"
    elif not isinstance(function, FunctionType):
        problem = (
            "@handler goes on a method written with def or async def, as its outermost decorator"
        )
    elif inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        problem = "a handler can't yield; return a list, or return it page by page"
    elif not _takes_self(function):
        problem = "a handler takes self first; add it"
    else:
        try:
            expected_errors(handler.expected)
        except ValueError as error:
            problem = str(error)
        problem = problem or _limit_problem(function, handler.limit)
        if not isinstance(handler.retry, Retry):
            problem = f"retry must be a Retry, not {handler.retry!r:.80}"
    if problem:
        raise DefinitionError(cls.__qualname__, name, problem)


def _limit_problem(function: FunctionType, limit: object) -> str | None:
    if limit is None or isinstance(limit, Unset):
        return None
    if not inspect.iscoroutinefunction(function):
        return "a turn of a def can't be interrupted; drop limit, or write it with async def"
    try:
        checked_limit(limit, "limit")
    except ValueError as error:
        return str(error)
    return None


def is_alarm(value: object) -> bool:
    """True for a member of a class body that was marked with ``@alarm``."""
    return isinstance(value, Misplaced) or is_marked(value)


def check_alarm(cls: type, name: str, value: object) -> None:
    """Check a method marked with ``@alarm`` in the body of ``cls``.

    Raises:
        DefinitionError: It can't handle an alarm.
    """
    problem = None
    thing = value.thing if isinstance(value, Misplaced) else value
    if isinstance(thing, Handler):
        problem = "it is both an alarm and a handler; write one of each that call a plain method"
    elif not isinstance(thing, FunctionType):
        problem = (
            "@alarm goes on a method written with def or async def, as its outermost decorator"
        )
    elif name in RESERVED or name.startswith("_"):
        problem = "the name is reserved; give the alarm a public name"
    elif inspect.isasyncgenfunction(thing) or inspect.isgeneratorfunction(thing):
        problem = "an alarm's method can't yield; set another alarm to continue later"
    elif not _takes_self(thing):
        problem = "an alarm's method takes self; add it"
    elif not _takes_only_self(thing):
        problem = (
            "an alarm's method takes nothing but self; the alarm's payload is "
            "self.ctx.alarm.payload"
        )
    elif not isinstance(options_of(thing).retry, Retry):
        problem = f"retry must be a Retry, not {options_of(thing).retry!r}"
    else:
        options = options_of(thing)
        problem = _limit_problem(thing, options.limit) or _recurrence_problem(name, options)
    if problem:
        raise DefinitionError(cls.__qualname__, name, problem)


def _recurrence_problem(name: str, options: AlarmOptions) -> str | None:
    try:
        if options.recurrence() is None:
            return None
    except ValueError as error:
        return str(error)
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"the name of a recurring alarm has up to {MAX_NAME_BYTES} bytes; shorten it"
    return None


def check_fields(cls: type, fields: tuple[attrs.Attribute[object], ...]) -> None:
    """Check the fields that attrs found for ``cls``, inherited ones included.

    Raises:
        DefinitionError: A field isn't allowed. The error names it and the remedy.
    """
    for field in fields:
        problem = None
        if field.name in RESERVED:
            problem = "the name is reserved; rename the field"
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
            problem = "init=False would keep the field from being loaded; remove it"
        if problem:
            raise DefinitionError(cls.__qualname__, field.name, problem)


def check_field_types(
    cls: type, fields: tuple[attrs.Attribute[object], ...], types: Mapping[str, object]
) -> None:
    """Check that the annotations of the fields are types of values.

    Args:
        cls: The class.
        fields: Its fields, inherited ones included.
        types: The resolved annotations.

    Raises:
        DefinitionError: An annotation is none. The error names the field and the remedy.
    """
    for field in fields:
        tp = types.get(field.name)
        inner = get_args(tp)[0] if get_origin(tp) is Annotated else tp
        form = get_origin(inner) or inner
        problem = None
        if field.name not in types:
            problem = (
                "an attrs field of a base has no annotation; write `name: type = attrs.field(…)`"
            )
        elif inner is Final:
            problem = "Final has no type, and none is known of a factory; write `Final[type]`"
        elif form is ClassVar:
            problem = (
                "a ClassVar isn't stored, but this is a field of a base, or ClassVar has another "
                "name here; rename the member, or write `ClassVar`"
            )
        elif inner is TypeAlias:
            problem = "a TypeAlias would be a field; leave out its annotation, or move it out"
        elif form is InitVar or isinstance(form, InitVar):
            problem = "an InitVar isn't stored; make it a field of its type, or remove it"
        elif unknown := [each for each in free_variables(tp) if each not in parameters_of(cls)]:
            variables = ", ".join(each.__name__ for each in unknown)
            problem = (
                f"the type variable {variables} has no type here; give the base its arguments, as "
                "in `class Numbers(Repository[int])`, or the variable a default"
            )
        if problem:
            raise DefinitionError(cls.__qualname__, field.name, problem)


def check_overrides(cls: type, fields: tuple[attrs.Attribute[object], ...]) -> None:
    """Check that handlers, alarms and upgrades are overridden by the same kind; check the hooks.

    Raises:
        DefinitionError: A member isn't allowed. The error names it and the remedy.
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
                    f"a field and {article} {kind} have the same name, so the one would replace "
                    "the other; rename one",
                )
            if not is_one:
                raise DefinitionError(
                    cls.__qualname__,
                    name,
                    f"it replaces an inherited {kind}; mark it with @{kind}, or rename it",
                )


def unannotated_fields(cls: type) -> list[str]:
    """The names of the `attrs.field` members without an annotation in the body of ``cls``."""
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
            # check_overrides has a better message for these.
            or _kind(vars(base).get(name))
            for base in cls.__mro__[1:]
        )
    )


def _kind(value: object) -> str | None:
    """The kind of a marked member of a class body; None if it isn't marked."""
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
