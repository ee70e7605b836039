"""The escape of NUL, for which another one stands in the database."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from trio_durable.storage.postgres._arrays import swap_nul

PIECES = (rb"\u0000", rb"\ue000", rb"\\", rb"\"", rb"\n", b"u0000", b"ue000", b"x", "é".encode())


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_exchanging_twice_returns_the_same_bytes(pieces: list[bytes]) -> None:
    text = b'"' + b"".join(pieces) + b'"'
    assert swap_nul(swap_nul(text)) == text
    assert len(swap_nul(text)) == len(text)
    nul, stand_in = json.loads(text), json.loads(swap_nul(text))
    assert nul.translate({0: 0xE000, 0xE000: 0}) == stand_in


@given(st.text())
def test_what_the_library_writes_holds_no_escape_of_nul(text: str) -> None:
    written = json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert "\0" not in json.loads(swap_nul(written))


def test_text_that_only_looks_like_an_escape_stays() -> None:
    for text in (rb'"\\u0000"', rb'"\\ue000"', rb'"\\\\u0000"'):
        assert swap_nul(text) == text
    assert swap_nul(rb'"\\\u0000"') == rb'"\\\ue000"'
