"""Strict JSON parsing: a value is stored exactly as it is written, or rejected.

Parsers are more lenient than a storage may be: they accept NaN, round integers beyond 64 bits and
numbers beyond the range of floats, and drop one of two members with the same name.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import orjson

_INTS = range(-(2**63), 2**64)


def parse(text: str) -> Any:
    """Parse ``text``. `orjson.dumps` accepts the result.

    Raises:
        ValueError: It is not JSON, or can't be stored as it is written; the message says why.
    """
    try:
        value = json.loads(
            text,
            parse_constant=_reject_constant,
            parse_int=_parse_int,
            parse_float=_parse_float,
            object_pairs_hook=_build_object,
        )
        orjson.dumps(value)
    except json.JSONDecodeError as error:
        raise ValueError(_describe(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from None
    return value


def _describe(error: json.JSONDecodeError) -> str:
    """The position of a syntax error. Python's own message, such as a missing comma, misleads."""
    text = error.doc.rstrip()
    if not text:
        return "not JSON: it is empty"
    rest = text[error.pos :]
    if not rest:
        return "not JSON: it ends too early"
    line = f"line {error.lineno} " if "\n" in text else ""
    return f"not JSON from {line}column {error.colno} on: {rest.splitlines()[0]!r:.40}"


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}; use null or a finite number")


def _parse_int(digits: str) -> int:
    # Python refuses to convert thousands of digits; these are out of range anyway.
    if len(digits) > 20 or (value := int(digits)) not in _INTS:
        raise ValueError(f"{digits:.40} doesn't fit into 64 bits; use a string")
    return value


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text:.40} is too large for a float; use a string")
    return value


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{duplicate!r:.80} is there twice; keep one of them")
    return members
