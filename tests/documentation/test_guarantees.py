"""The page on guarantees names tests that there are."""

from __future__ import annotations

import re

from cli.support import ROOT

PAGE = (ROOT / "docs" / "explanation" / "guarantees.md").read_text(encoding="utf-8")


def test_each_guarantee_says_what_shows_it() -> None:
    numbers = re.findall(r"^## (\d+)\. ", PAGE, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 15)]
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        for mark in ("*By*", "*It ends*", "*Shown by*"):
            assert mark in part, part.partition("\n")[0]


def test_the_tests_that_it_names_are_there() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 20
    assert named <= defined
