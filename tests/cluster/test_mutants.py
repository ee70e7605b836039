"""Each mutant can be made; `python -m cluster.mutants` says whether it is found."""

from __future__ import annotations

import pytest
from exactness.mutants import ROOT, Mutant

from .mutants import CHECKS, MUTANTS


def test_each_mutant_has_a_name_and_a_check() -> None:
    names = [each.name for each in MUTANTS]
    assert len(set(names)) == len(names)
    assert {each.check for each in MUTANTS} == CHECKS.keys()


@pytest.mark.parametrize("each", MUTANTS, ids=lambda each: each.name)
def test_each_mutant_can_be_made(each: Mutant) -> None:
    source = (ROOT / "trio_durable" / each.module).read_text(encoding="utf-8")
    assert source.count(each.old) == 1
    compile(source.replace(each.old, each.new), each.module, "exec")
