"""Keywords of a class statement: the options of a durable object class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._durations import UNSET, interval_seconds, optional_seconds, positive_int
from .._errors import DefinitionError, PersistenceError

if TYPE_CHECKING:
    from cattrs import Converter

    from .._json.custom import StateConverter


CLASS_KEYWORDS = (
    "hibernate_after",
    "shutdown_after",
    "call_timeout",
    "mailbox_size",
    "remember",
    "turn_limit",
    "expected",
    "schema",
    "converter",
)


def checked_keywords(cls: type, given: dict[str, Any]) -> dict[str, Any]:
    """The class keywords that were given, durations in seconds.

    Raises:
        DefinitionError: A value is invalid.
    """
    keywords = {name: value for name, value in given.items() if value is not UNSET}
    try:
        for name, value in keywords.items():
            if name == "converter":
                keywords[name] = converter_argument(value)
            elif name == "expected":
                keywords[name] = expected_errors(value)
            elif name == "remember":
                keywords[name] = interval_seconds(value, name)
            elif name == "turn_limit":
                keywords[name] = checked_limit(value, name)
            elif name not in ("mailbox_size", "schema"):
                keywords[name] = optional_seconds(value, name)
            else:
                positive_int(value, name)
    except ValueError as error:
        raise DefinitionError(cls.__qualname__, "", str(error)) from None
    return keywords


def converter_argument(converter: Converter | None) -> StateConverter | None:
    """``converter``, if it is one of `make_converter`, or None.

    Raises:
        ValueError: It is anything else.
    """
    if converter is None:
        return None
    from .._json.custom import checked_converter  # cattrs takes long to import

    return checked_converter(converter)


def expected_errors(given: object) -> tuple[type[Exception], ...]:
    """``given``, a class of exceptions or a tuple of some, as a tuple.

    Raises:
        ValueError: It is anything else, or names a failure of the storage.
    """
    classes: list[type[Exception]] = []
    for cls in given if isinstance(given, tuple) else (given,):
        if not (isinstance(cls, type) and issubclass(cls, Exception)):
            raise ValueError(
                f"expected must be a class of exceptions or a tuple of these, not {given!r:.80}"
            )
        if issubclass(cls, PersistenceError):
            raise ValueError(f"{cls.__name__} is a failure of the storage and never expected")
        classes.append(cls)
    return tuple(classes)


def checked_limit(given: Any, name: str) -> float | None:
    """``given``, the limit of a turn's duration, in seconds; None without a limit.

    Raises:
        ValueError: It is no duration, or out of bounds. The message begins with ``name``.
    """
    return None if given is None else interval_seconds(given, name)


def merged_keywords(cls: type) -> dict[str, Any]:
    """The class keywords in force: each from the first class in resolution order with it."""
    merged: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        merged.update(vars(base).get("__durable_keywords__", {}))
    return merged


def converter_of(cls: type) -> StateConverter | None:
    """The converter in the class keywords of ``cls``; None without one."""
    converter: StateConverter | None = merged_keywords(cls).get("converter")
    return converter
