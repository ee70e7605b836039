"""The fragments in ``changes/`` make a changelog."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
TYPES = [each["directory"] for each in SETTINGS["type"]]
CHANGES = ROOT / SETTINGS["directory"]
FRAGMENTS = sorted(path for path in CHANGES.iterdir() if path.name != "README.md")


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_says_what_it_is(fragment: Path) -> None:
    # towncrier passes over what it doesn't know, and nobody would read it.
    name = re.compile(rf"\+[a-z0-9][a-z0-9-]*\.({'|'.join(TYPES)})\.md")
    assert name.fullmatch(fragment.name), (
        f"changes/{fragment.name}: call it +<slug>.<type>.md, where the slug has small letters, "
        f"digits and -, and the type is one of {', '.join(TYPES)}"
    )
    assert fragment.read_text(encoding="utf-8").strip(), f"changes/{fragment.name} is empty"


def test_every_fragment_is_in_the_changelog() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version=next"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    shown = " ".join(run.stdout.split())
    for fragment in FRAGMENTS:
        assert " ".join(fragment.read_text(encoding="utf-8").split()) in shown, fragment.name


def test_the_changelog_goes_on_below_its_mark() -> None:
    changelog = (ROOT / SETTINGS["filename"]).read_text(encoding="utf-8")
    assert changelog.count(SETTINGS["start_string"]) == 1
