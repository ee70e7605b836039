"""The wheel and the sdist: their files, and a program that runs on the wheel alone.

``make package`` runs all tests over an installed wheel, with no source of the library near. It says
in ``TRIO_DURABLE_DIST`` where that wheel and its sdist are, and the tests here look at those.
"""

from __future__ import annotations

import email.message
import email.parser
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import attrs
import pathspec
import pytest

import trio_durable

ROOT = Path(__file__).parents[2]
PACKAGE = Path(trio_durable.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUILT = os.environ.get("TRIO_DURABLE_DIST")
DIST_INFO = f"trio_durable-{PROJECT['version']}.dist-info"


@attrs.frozen
class Archives:
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """The sdist, and the wheel that was built from what is in it."""
    if BUILT:
        folder = Path(BUILT)
    else:
        folder = tmp_path_factory.mktemp("dist")
        # Without a network: hatchling is installed with the tests.
        python("-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Archives(wheel, sdist)


@pytest.fixture(scope="module")
def installed(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    python("-m", "pip", "install", *options, "--target", str(folder), str(archives.wheel))
    return folder


def python(*args: str, cwd: Path | None = None, path: Path | None = None) -> str:
    """Run an interpreter; with ``path``, what is installed there goes before all else."""
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env=kept | ({"PYTHONPATH": str(path)} if path else {}),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def text_in(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"{DIST_INFO}/{name}").decode()


def metadata(wheel: Path) -> email.message.Message:
    return email.parser.Parser().parsestr(text_in(wheel, "METADATA"))


IGNORED = pathspec.GitIgnoreSpec.from_lines((ROOT / ".gitignore").read_text().splitlines())


def files(folder: Path) -> set[str]:
    """Those of a folder that are somebody's work, not a program's."""
    names = (
        path.relative_to(folder.parent).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    return set(IGNORED.match_files(names, negate=True))


def test_the_wheel_holds_the_library_and_nothing_else(archives: Archives) -> None:
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert names_in(archives.wheel) == files(PACKAGE) | {f"{DIST_INFO}/{name}" for name in about}
    assert "trio_durable/py.typed" in names_in(archives.wheel)


def test_the_wheel_is_for_every_machine(archives: Archives) -> None:
    assert archives.wheel.name == f"trio_durable-{PROJECT['version']}-py3-none-any.whl"


def test_the_sdist_holds_what_the_tests_need(archives: Archives) -> None:
    with tarfile.open(archives.sdist) as archive:
        found = {member.name.partition("/")[2] for member in archive if member.isfile()}
    folders = [ROOT / name for name in ("tests", "benchmarks", "changes", "docs", "examples")]
    needed = set[str]().union(files(PACKAGE), *map(files, folders))
    needed |= {path.name for path in ROOT.glob("*.md")}
    needed |= {".gitignore", "LICENSE", "Makefile", "constraints.txt", "hatch_build.py"}
    needed |= {"pyproject.toml"}
    assert found - {"PKG-INFO"} == needed


def test_the_metadata_is_that_of_the_project(archives: Archives) -> None:
    found = metadata(archives.wheel)
    assert (found["Name"], found["Version"]) == ("trio-durable", PROJECT["version"])
    assert found["License-Expression"] == "MIT"
    assert found["Requires-Python"] == ">=3.11"
    assert found.get_all("Provides-Extra") == [
        "cli",
        "inspector",
        "oban",
        "opentelemetry",
        "postgres",
        "testing",
    ]
    page = str(found.get_payload())
    assert page.startswith("# trio_durable\n")
    # A package page has no files of the repository beside it.
    links = re.findall(r"\]\(([^)]*)\)|(?:src|srcset|href)=\"([^\"]*)\"", page)
    assert all(each.startswith("https://") for pair in links for each in pair if each)
    assert "guarantees and their limits" in page
    assert found["Description-Content-Type"] == "text/markdown"
    versions = {"3.11", "3.12", "3.13"}
    known = set(found.get_all("Classifier", ()))
    assert {each for each in known if re.search(r":: 3\.\d+$", each)} == {
        f"Programming Language :: Python :: {version}" for version in versions
    }
    assert {"Framework :: Trio", "Framework :: AnyIO", "Typing :: Typed"} <= known


def test_the_library_needs_only_what_it_says(archives: Archives) -> None:
    needed = metadata(archives.wheel).get_all("Requires-Dist", ())
    without_extras = {re.split(r"[^\w-]", each)[0] for each in needed if "extra ==" not in each}
    assert without_extras == {
        "anyio",
        "attrs",
        "cattrs",
        "cronsim",
        "outcome",
        "sqlite-utils",
        "trio",
    }


def test_the_command_and_the_plugin_are_entry_points(archives: Archives) -> None:
    assert text_in(archives.wheel, "entry_points.txt").split("\n\n") == [
        "[console_scripts]\ntrio-durable = trio_durable.cli:main",
        "[pytest11]\ntrio_durable.testing.plugin = trio_durable.testing.plugin\n",
    ]


IMPORTS = """
import importlib, pkgutil, sys, trio_durable
assert trio_durable.__file__.startswith(sys.argv[1]), trio_durable.__file__
for module in pkgutil.walk_packages(trio_durable.__path__, "trio_durable."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for name, module in sys.modules.items():
    if name.partition(".")[0] == "trio_durable":
        assert module.__file__.startswith(sys.argv[1]), module.__file__
        print(name)
"""


def test_all_modules_can_be_imported_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    # A module may be imported before those that it is usually imported after.
    found = python("-W", "error", "-c", IMPORTS, str(installed), cwd=tmp_path, path=installed)
    assert len(found.split()) == len(list(PACKAGE.rglob("*.py"))) - 1  # __main__


def test_the_command_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    said = python("-m", "trio_durable", "--help", cwd=tmp_path, path=installed)
    assert said.startswith("Usage: ")


CALL_SEATS = """
import anyio, seats
from trio_durable import DurableRuntime
async def main():
    async with seats.lifespan(seats.app):
        print(await seats.hold("1A", "ada"), await seats.hold("1A", "bob"))
anyio.run(main)
"""


def test_the_example_of_the_readme_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "seats.py").write_text(first, encoding="utf-8")
    # The second time it continues where it was.
    for _ in range(2):
        printed = python("-W", "error", "-c", CALL_SEATS, cwd=tmp_path, path=installed)
        assert printed == "True False\n"


@pytest.mark.skipif(not BUILT, reason="only `make package` runs the tests over a wheel")
def test_what_is_tested_is_the_wheel(archives: Archives) -> None:
    assert "site-packages" in PACKAGE.parts
    assert not (ROOT / "trio_durable").exists()
    assert files(PACKAGE) == {name for name in names_in(archives.wheel) if DIST_INFO not in name}
