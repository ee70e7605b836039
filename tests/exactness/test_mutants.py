"""Mutants are made as they say, in a copy of the package that the checks import."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import mutants
from .mutants import FOUND, SURVIVED, Mutant, mutated, result_of, run


def mutant(old: str, new: str) -> Mutant:
    return Mutant("one", "", "one", "_json/state.py", old, new)


def test_a_text_must_be_there_exactly_once(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="0 times"):
        mutated(mutant("no such text", ""), tmp_path)


def test_a_check_imports_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        mutants.CHECKS, "one", ("tests.exactness.property", "--only", "defaults", "--examples", "1")
    )
    first = "from __future__ import annotations"
    package = mutated(mutant(first, f"{first}\n"), tmp_path)
    assert run("one", package) in (SURVIVED, FOUND)
    assert result_of(mutant(first, f"{first}\nraise ValueError")) not in ("found", "SURVIVED")
