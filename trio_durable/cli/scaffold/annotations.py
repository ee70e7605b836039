"""Types of fields: what may be written, what a new object has in such a field, and an example.

What state may have is for the library to say, so an annotation that can be read here is evaluated
and given to the very function that makes its JSON. Only what that doesn't look at is checked here:
that there is nothing but types in it, that each says what it contains, and that what has to be
hashable is.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs

from ..._json.errors import UnsupportedType
from ..._json.hooks import hooks_for
from ..errors import CommandError


@attrs.frozen
class _Scalar:
    """A type, and Python expressions for two values of it."""

    tp: Any
    default: str
    example: str
    module: str = ""
    """Where it is imported from."""


SCALARS = {
    "int": _Scalar(int, "0", "7"),
    "float": _Scalar(float, "0.0", "1.5"),
    "str": _Scalar(str, '""', '"some text"'),
    "bool": _Scalar(bool, "False", "True"),
    "bytes": _Scalar(bytes, 'b""', 'b"data"'),
    "datetime": _Scalar(
        datetime, "datetime(1970, 1, 1, tzinfo=UTC)", "datetime(2030, 1, 1, tzinfo=UTC)", "datetime"
    ),
    "date": _Scalar(date, "date(1970, 1, 1)", "date(2030, 1, 1)", "datetime"),
    "time": _Scalar(time, "time(0, 0)", "time(12, 30)", "datetime"),
    "timedelta": _Scalar(timedelta, "timedelta()", "timedelta(minutes=5)", "datetime"),
    "Decimal": _Scalar(Decimal, "Decimal(0)", 'Decimal("1.50")', "decimal"),
    "UUID": _Scalar(UUID, "UUID(int=0)", "UUID(int=7)", "uuid"),
    "Any": _Scalar(Any, "None", '"any JSON"', "typing"),
}

MAX_LENGTH = 80
"""Characters; what is longer fits on no line, and may be nested deeper than Python can parse."""

CONTAINERS = {"list": list, "dict": dict, "set": set, "frozenset": frozenset, "tuple": tuple}

KNOWN = ", ".join([*SCALARS, *(f"{name}[…]" for name in CONTAINERS), "… | None"])

_NAMES = {name: scalar.tp for name, scalar in SCALARS.items()} | CONTAINERS

MODULES = {
    **{name: scalar.module for name, scalar in SCALARS.items() if scalar.module},
    "DurableObject": "trio_durable",
    "UTC": "datetime",
    "alarm": "trio_durable",
    "attrs": "",
    "handler": "trio_durable",
}
"""Where the names come from that an object's module may use; "" for modules themselves."""


@attrs.frozen
class Annotation:
    """The type of a field, with two values of it.

    A default that would be shared by all objects, if it were written down as it is, is mutable.
    """

    text: str
    default: str
    """What an object has that was never stored, as an expression."""
    example: str
    """Another value, as an expression."""
    is_mutable: bool
    """Whether the default is."""

    @classmethod
    def parse(cls, field: str, written: str) -> Annotation:
        """Read what stands behind a field's colon.

        Args:
            field: The name of the field, for messages.
            written: An annotation such as ``dict[str, int] | None``.

        Raises:
            Refusal: State can't have a field of this type.
        """
        written = written.strip()
        try:
            if len(written) > MAX_LENGTH:
                raise _Unfit(f"is longer than {MAX_LENGTH} characters")
            with warnings.catch_warnings(action="ignore"):  # of a parser that expects a program
                tree = ast.parse(written, mode="eval").body
            _check(tree)
            hooks_for(eval(compile(ast.Expression(tree), "<field>", "eval"), dict(_NAMES)))
        except (SyntaxError, UnsupportedType, TypeError, ValueError) as error:
            problem = str(error) if isinstance(error, (_Unfit, UnsupportedType)) else "is no type"
            raise CommandError(
                f"field {field}: {written!r} {problem}; a field may be of {KNOWN}"
            ) from None
        default = _default(tree)
        return cls(ast.unparse(tree), default, _example(tree), _is_mutable(default))


class _Unfit(TypeError):
    """Says what about an annotation doesn't fit."""


def _check(tree: ast.expr) -> None:
    """Check that there is nothing but known types in it, each with what it contains."""
    match tree:
        case ast.Name(name) if name in SCALARS:
            pass
        case ast.Name(name) if name in CONTAINERS:
            raise _Unfit(f"doesn't say what is in its {name}")
        case ast.Name(name):
            raise _Unfit(f"has an unknown type, {name}, in it")
        case ast.Subscript(ast.Name(name)) as subscript if name in CONTAINERS:
            items = _items(subscript)
            if name == "tuple" and len(items) == 2 and _is_constant(items[1], ...):
                items = items[:1]
            count = {"dict": 2, "tuple": len(items)}.get(name, 1)
            if len(items) != count or not items:
                raise _Unfit(f"says of {len(items)} types that they are in its {name}")
            for item in items:
                _check(item)
            if name in ("set", "frozenset", "dict") and not _is_hashable(items[0]):
                raise _Unfit(f"has {ast.unparse(items[0])} in its {name}, which can't be hashed")
        case ast.BinOp(left, ast.BitOr(), right):
            members = [ast.unparse(member) for member in _members(tree)]
            if len(set(members)) < len(members):
                raise _Unfit("has something twice in its union")
            if {"int", "float"} <= set(members):
                raise _Unfit("has int beside float, which takes integers as well")
            for side in (left, right):
                if not _is_constant(side, None):
                    _check(side)
        case _:
            raise _Unfit("is no type")


def _is_hashable(tree: ast.expr) -> bool:
    return not any(
        isinstance(node, ast.Name) and node.id in ("list", "dict", "set", "Any")
        for node in ast.walk(tree)
    )


def _is_constant(tree: ast.expr, value: object) -> bool:
    return isinstance(tree, ast.Constant) and tree.value is value


def _members(tree: ast.expr) -> list[ast.expr]:
    """The members of a union, or the one type that it is."""
    match tree:
        case ast.BinOp(left, _, right):
            return [*_members(left), *_members(right)]
    return [tree]


def _items(tree: ast.Subscript) -> list[ast.expr]:
    return tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]


def _default(tree: ast.expr) -> str:
    members = _members(tree)
    if any(_is_constant(member, None) for member in members):
        return "None"
    match members[0]:
        case ast.Name(name):
            return SCALARS[name].default
        case ast.Subscript(ast.Name("tuple")) as subscript:
            items = _items(subscript)
            return "()" if _is_constant(items[-1], ...) else _tuple(map(_default, items))
        case ast.Subscript(ast.Name(name)):
            return {"list": "[]", "dict": "{}"}.get(name, f"{name}()")
    raise AssertionError(ast.dump(tree))


def _is_mutable(expression: str) -> bool:
    return any(
        isinstance(node, (ast.List, ast.Dict)) or (isinstance(node, ast.Name) and node.id == "set")
        for node in ast.walk(ast.parse(expression))
    )


def _example(tree: ast.expr) -> str:
    member = next(each for each in _members(tree) if not _is_constant(each, None))
    if isinstance(member, ast.Name):
        return SCALARS[member.id].example
    assert isinstance(member, ast.Subscript)
    assert isinstance(member.value, ast.Name)
    examples = [_example(item) for item in _items(member) if not _is_constant(item, ...)]
    match member.value.id:
        case "list":
            return f"[{examples[0]}]"
        case "dict":
            return f"{{{examples[0]}: {examples[1]}}}"
        case "set":
            return f"{{{examples[0]}}}"
        case "frozenset":
            return f"frozenset({{{examples[0]}}})"
    return _tuple(examples)


def _tuple(items: Iterable[str]) -> str:
    listed = list(items)
    return f"({listed[0]},)" if len(listed) == 1 else f"({', '.join(listed)})"
