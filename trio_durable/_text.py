"""Short texts for error messages: an error's summary, and a value's repr."""

from __future__ import annotations

_MAX_REPR = 60


def error_summary(error: BaseException) -> str:
    """The type of ``error`` and its text; the type alone if it has none.

    ``error`` may come from any code, so its ``__str__`` may raise.
    """
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # __str__ may raise anything
        return name
    return f"{name}: {text}" if text else name


def short_repr(value: object) -> str:
    """The repr of ``value``, cut to 60 characters.

    ``value`` may be of any class, so its ``__repr__`` may raise.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # __repr__ may raise anything
        text = object.__repr__(value)
    return text if len(text) <= _MAX_REPR else text[: _MAX_REPR - 3] + "…"
