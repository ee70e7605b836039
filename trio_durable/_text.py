"""What went wrong, as one line has it."""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """The type of ``error`` and its text; the type alone if it has none.

    It is a stranger's, and may raise anything when asked for its text.
    """
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        return name
    return f"{name}: {text}" if text else name
