"""Prose of documents, docstrings, help and error texts: awkward sentences may only get fewer.

`support.prose` says which sentences are counted, and prints them:
``PYTHONPATH=tests python -m support.prose FILE -v``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.prose import DOCSTRINGS, DOCUMENTS, MESSAGES, Tally, everything, sentences, texts

BOUNDS = {DOCUMENTS: 6.5, DOCSTRINGS: 4.5, MESSAGES: 9.0}
"""Hits per 10,000 words. Lower a bound when a text has improved; never raise one."""

SLACK = 2.0
"""The distance from a bound at which it must be lowered."""


@pytest.fixture(scope="module")
def found() -> dict[str, Tally]:
    return everything()


@pytest.mark.parametrize("kind", BOUNDS)
def test_awkward_sentences_get_fewer(kind: str, found: dict[str, Tally]) -> None:
    rate, bound = found[kind].rate, BOUNDS[kind]
    shown = "\n".join(f"{hit.file}: {hit.rule}: {hit.sentence}" for hit in found[kind].hits)
    assert rate <= bound, f"{rate:.1f} hits per 10,000 words of {kind}:\n{shown}"
    assert rate >= bound - SLACK, f"lower the bound of {kind} to {rate:.1f}"


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("What was sent waits.", 1),
        ("Messages wait.", 0),
        ("What is this?", 0),
        ("It begins with what was stored, and nobody is told.", 3),
        ("Read [those that](page.md) wait, and `nobody` else.", 1),
        ("```\nNobody is told.\n```\nThe rest of the page.", 0),
    ],
)
def test_hits_of_a_sentence(text: str, hits: int) -> None:
    tally = Tally()
    tally.add(Path("page.md"), text)
    assert len(tally.hits) == hits


def test_the_kind_of_each_text_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "commands").mkdir()
    command = tmp_path / "commands" / "ls.py"
    command.write_text('def ls():\n    """List the objects."""\n')
    module = tmp_path / "module.py"
    module.write_text(
        '"""One module."""\noption("-n", help="How many.")\nraise ValueError(f"no {kind} here")\n'
    )
    assert list(texts(command)) == [(MESSAGES, "List the objects.")]
    assert sorted(texts(module)) == [
        (DOCSTRINGS, "One module."),
        (MESSAGES, "How many."),
        (MESSAGES, "no X here"),
    ]


def test_a_block_of_code_is_no_sentence() -> None:
    assert list(sentences("It prints::\n\n    what was sent\n")) == ["It prints::"]
