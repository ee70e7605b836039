"""Encoded fields of an object, as they are kept in memory between turns."""

from __future__ import annotations

from typing import TypeAlias

import attrs


@attrs.frozen(eq=False)
class Loaded:
    """The state of a row, before an instance was made of it."""

    state: bytes


@attrs.frozen(eq=False)
class Unsaved:
    """Encoded fields with a default that isn't stored and can't be made again, such as a uuid4.

    They differ from any bytes, so the first turn saves them: callers may see such a default.
    """

    fields: bytes


Encoded: TypeAlias = "bytes | Unsaved | Loaded | None"
