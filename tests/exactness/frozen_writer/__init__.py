"""The codec of release 0.1.0, frozen: it writes rows as that release did, and reads them.

The modules are those of ``trio_durable/_json`` in that release, and must not be changed. They
import nothing of the library, so the rows stay what they were whatever becomes of its own codec.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from .errors import Unfit, UnsupportedType
from .hooks import hooks_for

__all__ = ["Unfit", "UnsupportedType", "decode", "encode"]


def encode(types_: Mapping[str, Any], values: Mapping[str, Any]) -> bytes:
    """The row of an object with ``values`` in the fields ``types_``.

    Raises:
        Unfit: A value was refused.
        UnsupportedType: A type was refused.
    """
    return orjson.dumps({name: hooks_for(tp)[0](values[name]) for name, tp in types_.items()})


def decode(types_: Mapping[str, Any], row: bytes) -> dict[str, Any]:
    """The values that the release read from a row, of the fields that stand in it.

    Raises:
        Unfit: A value was refused.
        UnsupportedType: A type was refused.
    """
    stored: dict[str, Any] = orjson.loads(row)
    return {name: hooks_for(tp)[1](stored[name]) for name, tp in types_.items() if name in stored}
