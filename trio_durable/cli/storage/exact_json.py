"""JSON as people write it, with nothing lost on the way to how states are stored.

Parsers are lenient where storing must not be: they take NaN, round integers beyond 64 bits and
numbers beyond all floats, and keep one of two members of the same name.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import orjson

_INTS = range(-(2**63), 2**64)


def parse(text: str) -> Any:
    """What ``text`` says; `orjson.dumps` takes it.

    Raises:
        ValueError: It is no JSON, or can't be stored as it is; the text says why.
    """
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_int=_int,
            parse_float=_float,
            object_pairs_hook=_object,
        )
        orjson.dumps(value)
    except json.JSONDecodeError as error:
        raise ValueError(_not_json(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from None
    return value


def _not_json(error: json.JSONDecodeError) -> str:
    """Where it stops being JSON. What a parser expected there is rarely what was meant."""
    text = error.doc.rstrip()
    if not text:
        return "not JSON: it is empty"
    rest = text[error.pos :]
    if not rest:
        return "not JSON: it ends too early"
    line = f"line {error.lineno} " if "\n" in text else ""
    return f"not JSON from {line}column {error.colno} on: {rest.splitlines()[0]!r:.40}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}; use null or a finite number")


def _int(digits: str) -> int:
    # So many digits that Python would refuse to count them are too many anyway.
    if len(digits) > 20 or (value := int(digits)) not in _INTS:
        raise ValueError(f"{digits:.40} doesn't fit into 64 bits; use a string")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text:.40} is beyond all floats; use a string")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r:.80} is there twice; keep one of them")
    return members
