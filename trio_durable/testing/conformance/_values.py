"""Difficult values: times, error texts, ids and states that a storage may corrupt."""

from __future__ import annotations

import json
from datetime import UTC, datetime

NOW = 1_767_225_600_000_000
SECOND = 1_000_000
LATEST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * SECOND + 999_999
EARLIEST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * SECOND
FOREVER = 2**63 - 1
ANY_TIME = 2**62
"""As the time of a claim: later than any alarm is due, and so no time of a clock."""
TIMES = [EARLIEST, -(2**53) - 1, -(2**53), -1, 0, 1, NOW, 2**53, 2**53 + 1, LATEST - 1, LATEST]

ERRORS = ["", 'it\'s "quoted"\n\ttwice', "é 👾 \u2028", "null", "0", "x" * 10_000]

ODD_IDS = [
    " ",
    "'",
    '"',
    "\\",
    "%_*?[",
    "'; DROP TABLE durable_objects; --",
    '"]}, {"x": ["',
    "$[0]",
    "null",
    "0",
    "00",
    "1e3",
    "line\nbreak\r\ttab",
    "\x01\x1f\x7f",
    "\u00e9",
    "e\u0301",
    "\u2028\u2029",
    "\ufeffmark",
    "\uffff",
    "\U0001d54f",
    "👩‍👩‍👧",
    "x" * 512,
    "é" * 256,
    "👾" * 128,
]

STATES = {
    "empty object": b"{}",
    "empty text": b'""',
    "null": b"null",
    "scalar": b"0",
    "float": b"1.7976931348623157e308",
    "integer of 64 bits": b"-9223372036854775808",
    "spaces kept": b' { "a" : [ 1 ,\t2 ] }\n',
    "order and duplicates kept": b'{"b":1,"a":2,"b":3}',
    "quotes": b'{"\'":"\\"\'\'\\""}',
    "backslashes": b'"\\\\\\\\u0041\\/"',
    "escapes": b'"\\b\\f\\n\\r\\t"',
    "NUL escape": b'{"nul":"a\\u0000b"}',
    "NUL escape alone": b'"\\u0000"',
    "lone surrogate escape": b'"\\ud800"',
    "controls escaped": b'"\\u0001\\u001f"',
    "delete character": b'"\x7f"',
    "unicode": '{"é":"漢字 👾 \u2028 \uffff \U0010ffff"}'.encode(),
    "placeholders": b'"? ?1 :name @name $name"',
    "64 KiB": b'"' + b"x" * (64 * 1024 - 2) + b'"',
    "64 KiB and 1": b'"' + b"x" * (64 * 1024 - 1) + b'"',
    "64 KiB in characters of 3 bytes": ('"' + "漢" * 30_000 + '"').encode(),
    "1 MiB of quotes": json.dumps('"\\' * (1024 * 256)).encode(),
    "1 MiB": b'"' + b"x" * (1024 * 1024 - 2) + b'"',
    "16 MiB": ('"' + "é\\n" * (16 * 1024 * 1024 // 4 - 1) + '"').encode(),
}

TENANTS = ["", "a-b", "acme"]
"""In order. The first one is the nameless tenant, which always exists."""
