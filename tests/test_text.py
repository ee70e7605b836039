"""Summaries of errors: one line, whatever was raised."""

from __future__ import annotations

import pytest

from trio_durable._text import reason


class Mute(Exception):
    def __str__(self) -> str:
        raise LookupError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no such place"), "ValueError: no such place"),
        (ValueError(), "ValueError"),
        (Mute(), "Mute"),
    ],
)
def test_the_reason_is_the_type_and_the_text_if_there_is_one(error: Exception, line: str) -> None:
    assert reason(error) == line
