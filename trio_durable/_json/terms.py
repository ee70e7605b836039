"""Terms of a recorded declaration: their check, and questions that `resolution` asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .forms import PLAIN

OLD: Final = ""
"""The term of data without a recorded declaration."""

ITEMS = frozenset({"list", "deque", "set", "frozenset", "tuple"})
"""The kinds of terms whose data is a list."""


def are_terms(recorded: Mapping[str, Any], classes: Mapping[str, Any]) -> bool:
    """True if all members of a declaration are terms, over a table of classes."""
    rest = [term for name, term in recorded.items() if name != "$"]
    for entry in classes.values():
        match entry:
            case {}:
                rest += entry.values()
            case ["TypedDict", {} as fields, *extra] if len(extra) < 2:
                rest += [*fields.values(), *extra]
            case ["NamedTuple", *fields] if all(
                type(field) is list and len(field) == 2 and type(field[0]) is str
                for field in fields
            ):
                rest += [term for _, term in fields]
            case ["=", term]:
                rest.append(term)
            case _:
                return False
    while rest:
        match rest.pop():
            case str():
                pass
            case ["class", str() as name] if name in classes:
                pass
            case ["enum" | "hook", str()]:
                pass
            case ["|", list() as bare, *tagged]:
                rest += [*bare, *tagged]
            case [("list" | "deque" | "set" | "frozenset" | "Counter" | "?"), term]:
                rest.append(term)
            case [("dict" | "OrderedDict" | "defaultdict"), key, value]:
                rest += [key, value]
            case ["tuple", *terms]:
                rest += terms
            case _:
                return False
    return True


def kind_of(term: Any) -> Any:
    """The kind of a term: its first item, or itself."""
    return term[0] if type(term) is list else term


def type_of_data(term: Any) -> type:
    """The type of a bare member's data in a union, list or dict."""
    return list if kind_of(term) in ITEMS else dict


def is_plain_term(term: Any) -> bool:
    """True if a term is that of plain JSON. A union records also its plain members' kinds."""
    match term:
        case ["list" | "?", item]:
            return is_plain_term(item)
        case ["dict", key, value]:
            return is_plain_term(key) and is_plain_term(value)
    return bool(term == PLAIN)


def name_of(term: Any) -> str:
    """The name of the type that a term records."""
    if kind_of(term) in ("class", "enum", "hook"):
        return str(term[1]).partition("#")[0]
    return str(kind_of(term))


def noun_of(term: Any) -> str:
    """A noun for the values of a term in errors."""
    return "plain JSON" if term in (PLAIN, OLD) else name_of(term)
