"""Depth of nested values, which is bounded at write, well below the bound of any reader."""

from __future__ import annotations

from typing import Any

from .errors import Unfit

MAX_DEPTH = 200
"""Levels of lists and objects in one JSON value.

The reader takes up to three of Python's frames per level, of which there are 1,000 by default;
orjson writes 254 levels.
"""


def check_depth(data: Any, levels: int = MAX_DEPTH) -> None:
    """Check that JSON data isn't nested too deeply. It isn't recursive itself.

    Raises:
        Unfit: It has more levels.
    """
    level = [data] if type(data) in (dict, list) else []
    for _ in range(levels):
        below: list[Any] = []
        for part in level:
            kind = type(part)
            items = part.values() if kind is dict else part if kind is list else ()
            below.extend(item for item in items if type(item) in (dict, list))
        if not below:
            return
        level = below
    raise Unfit(f"it is nested more than {MAX_DEPTH} levels deep, or contains itself")
