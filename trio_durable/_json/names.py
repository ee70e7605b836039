"""Stored names of classes, by which unions and declarations know them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs

from .._text import short_repr

C = TypeVar("C", bound=type)

_ATTRIBUTE = "__trio_durable_name__"
_SEPARATOR = "#"


@attrs.frozen
class StoredName:
    """The name of a class in stored state, and the names that it had before."""

    name: str
    former: tuple[str, ...] = ()


def stored_as(name: str, *, former: tuple[str, ...] = ()) -> Callable[[C], C]:
    """Class decorator that gives a class its name in stored state, instead of its ``__name__``.

    In a union it distinguishes the values of the class. A class that was renamed keeps its values
    readable with its old name here, or among the ``former`` ones::

        @stored_as("Mail", former=("Email",))
        @attrs.define
        class Mail:
            to: str = ""

    Args:
        name: The name that is written.
        former: Names that are read as well.

    Raises:
        ValueError: A name is empty, or contains ``#``.
    """
    for each in (name, *former):
        if not isinstance(each, str) or not each or _SEPARATOR in each:
            raise ValueError(f"a stored name is a text without '#', not {short_repr(each)}")

    def decorate(cls: C) -> C:
        setattr(cls, _ATTRIBUTE, StoredName(name, tuple(former)))
        return cls

    return decorate


def stored_name(cls: type) -> StoredName:
    """The stored name of a class. It isn't inherited."""
    declared = vars(cls).get(_ATTRIBUTE)
    return declared if isinstance(declared, StoredName) else StoredName(cls.__name__)
