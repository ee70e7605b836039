"""Short texts for error messages."""

from __future__ import annotations

import pytest

from trio_durable._text import error_summary, short_repr


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
def test_the_summary_is_the_type_and_the_text_if_there_is_one(error: Exception, line: str) -> None:
    assert error_summary(error) == line


def test_a_short_repr_has_at_most_sixty_characters() -> None:
    assert short_repr("x" * 58) == repr("x" * 58)
    assert short_repr("x" * 59) == repr("x" * 59)[:57] + "…"
