"""The reference has every public name, once."""

from __future__ import annotations

import re
from collections import Counter
from importlib import import_module
from pkgutil import resolve_name

import pytest
from cli.support import ROOT

MODULES = [
    "trio_durable",
    "trio_durable.inspector",
    "trio_durable.scheduler",
    "trio_durable.storage",
    "trio_durable.telemetry",
    "trio_durable.testing",
    "trio_durable.testing.conformance",
    "trio_durable.testing.scheduler_conformance",
    "trio_durable.testing.simulate",
    "trio_durable.web",
    "trio_durable.web.quart",
    "trio_durable.web.starlette",
]

DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|py:type):: (\S+)$", re.MULTILINE)
DOCUMENTED = [
    name
    for page in sorted((ROOT / "docs" / "reference").glob("*.md"))
    for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))
]

PUBLIC = sorted({(module, name) for module in MODULES for name in import_module(module).__all__})


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=str)
def test_every_public_name_is_there(module: str, name: str) -> None:
    places = [place for place in DOCUMENTED if place.rpartition(".")[2] == name]
    public = getattr(import_module(module), name)
    assert any(resolve_name(place) is public for place in places), places


def test_nothing_is_there_twice() -> None:
    assert [name for name, times in Counter(DOCUMENTED).items() if times > 1] == []
