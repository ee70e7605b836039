"""Programs of pages are those in examples/."""

from __future__ import annotations

import pytest
from cli.support import ROOT


@pytest.mark.parametrize(
    ("page", "program"),
    [
        ("README.md", "seats.py"),
        ("docs/quickstart.md", "seats.py"),
        ("docs/howto/agent.md", "agent.py"),
    ],
)
def test_a_program_is_shown_as_it_is(page: str, program: str) -> None:
    source = (ROOT / "examples" / program).read_text(encoding="utf-8")
    text = (ROOT / page).read_text(encoding="utf-8")
    assert f"```python\n# {program}\n{source}```\n" in text
