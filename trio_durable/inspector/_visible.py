"""Visible text: characters that can't be seen, or that change the order of others, made visible.

An id with a right-to-left override reads as another id, and one with a zero-width space as the id
without it. So each such character is replaced by its code point wherever stored text is displayed.
"""

from __future__ import annotations

import unicodedata
from typing import Any

_LAYOUT = {"\n", "\t"}


def is_visible(character: str) -> bool:
    """True if a character has a shape of its own, or is a space."""
    # Controls, formats (bidi among them), lone surrogates, private use, unassigned; separators.
    return unicodedata.category(character)[0] != "C" and (
        character == " " or unicodedata.category(character)[0] != "Z"
    )


def visible(value: Any) -> Any:
    """A value for a page: text with its invisible characters as ``⟨U+202E⟩``.

    Markup and other values stay as they are; None is empty.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _replaced(value, frozenset())


def visible_lines(text: str) -> str:
    """As `visible`, with the lines and tabs of a text of several lines."""
    return _replaced(text, _LAYOUT)


def escaped_json(text: str) -> str:
    """JSON with escapes in place of its invisible characters, so that it is the same JSON."""
    if text.isascii():
        return text
    return "".join(
        each if is_visible(each) or each in _LAYOUT else _json_escape(each) for each in text
    )


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _replaced(text: str, kept: frozenset[str] | set[str]) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each if each in kept or is_visible(each) else f"⟨U+{ord(each):04X}⟩" for each in text
    )
