"""Types of fields, with a default value and an example of each.

The library decides which types state may have: an annotation that consists of known names is
evaluated and passed to the function that builds its JSON hooks. This module checks only the errors
that this function doesn't see: unknown names, containers without item types, items that can't be
hashed, and members that a union has twice.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs

from ..._json.errors import UnsupportedType
from ..._json.lookup import Forms
from ..errors import CommandError
from ..output import quantity

NAMED_TYPES: dict[str, tuple[Any, str, str]] = {
    "int": (int, "0", "7"),
    "float": (float, "0.0", "1.5"),
    "str": (str, '""', '"some text"'),
    "bool": (bool, "False", "True"),
    "bytes": (bytes, 'b""', 'b"data"'),
    "datetime": (datetime, "datetime(1970, 1, 1, tzinfo=UTC)", "datetime(2030, 1, 1, tzinfo=UTC)"),
    "date": (date, "date(1970, 1, 1)", "date(2030, 1, 1)"),
    "time": (time, "time(0, 0)", "time(12, 30)"),
    "timedelta": (timedelta, "timedelta()", "timedelta(minutes=5)"),
    "Decimal": (Decimal, "Decimal(0)", 'Decimal("1.50")'),
    "UUID": (UUID, "UUID(int=0)", "UUID(int=7)"),
    "Any": (Any, "None", '"any JSON"'),
}
"""Types by name, with Python expressions for the default value and an example.

A type is offered here only if it is in this table.
"""
CONTAINERS: dict[str, type] = {
    "list": list,
    "dict": dict,
    "set": set,
    "frozenset": frozenset,
    "tuple": tuple,
}
OFFERED_TYPES = ", ".join(
    [*NAMED_TYPES, *(f"{name}[{'…, …' if name == 'dict' else '…'}]" for name in CONTAINERS)]
)
"""All types above, for help and messages. Unions of them are offered, too."""

MODULES: dict[str, str] = {
    **{
        name: tp.__module__
        for name, (tp, _, _) in NAMED_TYPES.items()
        if tp.__module__ != "builtins"
    },
    "DurableObject": "trio_durable",
    "UTC": "datetime",
    "alarm": "trio_durable",
    "attrs": "",
    "handler": "trio_durable",
}
"""The module of each name that an object's module may import; empty for a module itself.

The names are reserved: no class, field or alarm can have one of them.
"""

_MAX_LENGTH = 80
"""In characters. A longer annotation fits on no line, and may be too deep for Python's parser."""
_NAMES = {name: tp for name, (tp, _, _) in NAMED_TYPES.items()} | CONTAINERS


class _UnusableType(TypeError):
    """The problem with an annotation, as the end of a sentence about it."""


@attrs.frozen
class Annotation:
    """The type of a field, with expressions for two values."""

    text: str
    default: str
    """The value in an object that was never stored."""
    example: str
    """Another value."""
    name: str = ""
    """The name of the type, such as ``int`` or ``list``; empty for a union."""
    items: tuple[Annotation, ...] = ()
    """The items of a list or set; the keys and values of a dict."""

    @classmethod
    def parse(cls, field: str, written: str) -> Annotation:
        """Read the annotation of a field.

        Args:
            field: The name of the field, for messages.
            written: An annotation such as ``dict[str, int] | None``.

        Raises:
            CommandError: State can't have a field of this type.
        """
        written = written.strip()
        try:
            if len(written) > _MAX_LENGTH:
                raise _UnusableType(f"is longer than {_MAX_LENGTH} characters")
            with warnings.catch_warnings(action="ignore"):  # such as SyntaxWarning for "\d"
                tree = ast.parse(written, mode="eval").body
            annotation = cls._of(tree)
            expression = compile(ast.Expression(tree), "<field>", "eval")
            Forms().of(eval(expression, dict(_NAMES)))  # noqa: S307  # known names, [] and | only
        except (SyntaxError, UnsupportedType, TypeError, ValueError) as error:
            is_ours = isinstance(error, (_UnusableType, UnsupportedType))
            problem = str(error) if is_ours else "is not a type"
            raise CommandError(
                f"field {field}: {written!r} {problem}; a field may be of {OFFERED_TYPES}, … | None"
            ) from None
        return annotation

    @classmethod
    def _of(cls, tree: ast.expr) -> Annotation:
        name, items = "", []
        match tree:
            case ast.Name(name):
                pass
            case ast.Subscript(ast.Name(name), inner) if name in ("list", "set", "dict"):
                items = inner.elts if isinstance(inner, ast.Tuple) and name == "dict" else [inner]
        default, example = _values_of(tree)
        return cls(ast.unparse(tree), default, example, name, tuple(map(cls._of, items)))

    @property
    def is_mutable(self) -> bool:
        """True if the default is mutable, so that each object needs its own."""
        return re.search(r"[\[{]|\bset\(", self.default) is not None


def _values_of(tree: ast.expr) -> tuple[str, str]:
    """The default and the example of a type."""
    match tree:
        case ast.Name(name) if name in NAMED_TYPES:
            return NAMED_TYPES[name][1:]
        case ast.Name(name) if name in CONTAINERS:
            raise _UnusableType(f"doesn't say what its {name} contains")
        case ast.Name(name):
            raise _UnusableType(f"has an unknown type in it, {name}")
        case ast.Subscript(ast.Name(name), inner) if name in CONTAINERS:
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _values_of_container(name, items)
        case ast.BinOp(_, ast.BitOr(), _):
            members = _members_of(tree)
            texts = [ast.unparse(member) for member in members]
            if len(set(texts)) < len(texts):
                raise _UnusableType("has the same member twice in its union")
            if {"int", "float"} <= set(texts):
                raise _UnusableType("has int next to float, which accepts integers, too")
            values = [_values_of(each) for each in members if not _is_constant(each, None)]
            default, example = values[0]
            return default if len(values) == len(members) else "None", example
    raise _UnusableType("is not a type")


def _values_of_container(name: str, items: Sequence[ast.expr]) -> tuple[str, str]:
    has_any_length = name == "tuple" and len(items) == 2 and _is_constant(items[1], ...)
    if has_any_length:
        items = items[:1]
    if not items or len(items) != {"dict": 2, "tuple": len(items)}.get(name, 1):
        raise _UnusableType(f"has {quantity(len(items), 'type')} in its {name}")
    defaults, examples = zip(*map(_values_of, items), strict=True)
    if name in ("set", "frozenset", "dict") and not _is_hashable(items[0]):
        raise _UnusableType(f"has {ast.unparse(items[0])} in its {name}, which can't be hashed")
    match name:
        case "list":
            return "[]", f"[{examples[0]}]"
        case "dict":
            return "{}", f"{{{': '.join(examples)}}}"
        case "set":
            return "set()", f"{{{examples[0]}}}"
        case "frozenset":
            return "frozenset()", f"frozenset({{{examples[0]}}})"
    return "()" if has_any_length else _tuple_of(defaults), _tuple_of(examples)


def _members_of(tree: ast.expr) -> list[ast.expr]:
    match tree:
        case ast.BinOp(left, ast.BitOr(), right):
            return [*_members_of(left), *_members_of(right)]
    return [tree]


def _is_hashable(tree: ast.expr) -> bool:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names.isdisjoint({"list", "dict", "set", "Any"})


def _is_constant(tree: ast.expr, value: object) -> bool:
    return isinstance(tree, ast.Constant) and tree.value is value


def _tuple_of(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
