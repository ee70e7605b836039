"""The guide: pages that are read from the first to the last, each in a few minutes."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from cli.support import ROOT

MOST_WORDS = 900

PAGES = sorted((ROOT / "docs" / "guide").glob("*.md"))


def words(text: str) -> int:
    """Everything that a reader sees: prose, tables and programs."""
    return len(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short(page: Path) -> None:
    assert words(page.read_text(encoding="utf-8")) <= MOST_WORDS


def test_each_page_names_the_next() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    order = re.findall(r"^guide/([\w-]+)$", index, re.MULTILINE)
    assert sorted(order) == [page.stem for page in PAGES]
    for name, following in pairwise(order):
        text = (ROOT / "docs" / "guide" / f"{name}.md").read_text(encoding="utf-8")
        assert re.findall(r"^Next: \[[^]]+\]\((.*)\)$", text, re.MULTILINE) == [f"{following}.md"]


def test_hidden_blocks_do_not_count() -> None:
    assert words("Two words\n<!-- invisible-code-block: python\nassert True\n-->\n") == 2
