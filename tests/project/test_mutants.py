"""Each mutant can be made; `python -m exactness.mutants` and its like say whether it is found."""

from __future__ import annotations

from types import ModuleType

import cluster.mutants
import control.mutants
import exactness.mutants
import guarantees.alarms.mutants
import hold.mutants
import inspector.mutants
import outbox.mutants
import pytest
import storage.mutants
import watching.mutants
import web.mutants
from exactness.mutants import ROOT, Mutant

MODULES = (
    exactness.mutants,
    hold.mutants,
    cluster.mutants,
    outbox.mutants,
    storage.mutants,
    guarantees.alarms.mutants,
    watching.mutants,
    web.mutants,
    inspector.mutants,
    control.mutants,
)
EACH = [
    pytest.param(each, id=f"{module.__name__}-{each.name}")
    for module in MODULES
    for each in module.MUTANTS
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_each_mutant_has_a_name_and_a_check(module: ModuleType) -> None:
    names = [each.name for each in module.MUTANTS]
    assert len(set(names)) == len(names)
    assert {each.check for each in module.MUTANTS} == module.CHECKS.keys()


@pytest.mark.parametrize("each", EACH)
def test_each_mutant_can_be_made(each: Mutant) -> None:
    source = (ROOT / "trio_durable" / each.module).read_text(encoding="utf-8")
    assert source.count(each.old) == 1
    compile(source.replace(each.old, each.new), each.module, "exec")
