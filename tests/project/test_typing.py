"""Verdicts of mypy and pyright on the public API, without a plugin.

``typing/accepted`` holds code that both must pass without a word. In ``typing/refused`` each line
that ends in ``# refused`` must get an error from both, and no other line may get one: so a
checker that lost the types of a handler, and takes it for ``Any``, is found here. Where a line is
marked ``# refused by mypy`` or ``# refused by pyright``, docs/reference/calls.md says why only that
one does so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trio_durable

TESTS = Path(__file__).parents[1]
SNIPPETS = TESTS / "typing"
PROJECT = TESTS.parent
MARK = re.compile(r"# refused(?: by (?P<checker>\w+)(?:: .*)?)?$")

Messages = dict[tuple[str, int], list[str]]
"""What a checker said, by file, relative to where it ran, and line."""


def configure_pyright(folder: Path, mode: str) -> None:
    settings = {
        "typeCheckingMode": mode,
        # For a result that was compared but never awaited; mypy's --strict has it too.
        "reportUnnecessaryComparison": "error",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the snippets outside the project, whose settings are not those of its users."""
    workspace = tmp_path_factory.mktemp("typing")
    shutil.copytree(SNIPPETS, workspace, dirs_exist_ok=True)
    configure_pyright(workspace, "standard")
    return workspace


def place_of(file: str, line: int, cwd: Path) -> tuple[str, int]:
    return os.path.relpath(Path(cwd, file), cwd), line


def mypy(workspace: Path, *folders: str) -> Messages:
    messages: Messages = {}
    for folder in folders:  # one after the other, since they have modules of the same names
        messages |= mypy_of(workspace, folder)
    return messages


def mypy_of(workspace: Path, folder: str) -> Messages:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--output=json"]
    run = subprocess.run(
        [*command, f"--cache-dir={workspace / 'mypy_cache'}", folder],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    messages: Messages = {}
    for line in filter(None, run.stdout.splitlines()):
        found = json.loads(line)
        if found["severity"] == "error":
            place = place_of(found["file"], found["line"], workspace)
            messages.setdefault(place, []).append(found["message"])
    return messages


def pyright_report(cwd: Path, *args: str) -> Any:
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", *args],
        cwd=cwd,
        env={
            **os.environ,
            # The wheel holds the checker itself; it need not look for a newer one.
            "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
            # For --verifytypes, which looks nowhere but in the environment that is active.
            "VIRTUAL_ENV": sys.prefix,
            "PATH": os.pathsep.join([f"{sys.prefix}/bin", os.environ["PATH"]]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return json.loads(run.stdout)


def pyright(cwd: Path, *paths: str) -> Messages:
    report = pyright_report(cwd, "--pythonpath", sys.executable, *paths)
    assert report["summary"]["filesAnalyzed"] > 0
    messages: Messages = {}
    for found in report["generalDiagnostics"]:
        place = place_of(found["file"], found["range"]["start"]["line"] + 1, cwd)
        messages.setdefault(place, []).append(found["message"])
    return messages


CHECKERS: dict[str, Callable[..., Messages]] = {"mypy": mypy, "pyright": pyright}


@pytest.fixture(scope="module", params=CHECKERS)
def checker(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture(scope="module")
def messages(checker: str, workspace: Path) -> dict[str, Messages]:
    """What one checker said about the code to refuse, and about all else."""
    found = CHECKERS[checker](workspace, "accepted", "refused")
    refused = {place: said for place, said in found.items() if Path(place[0]).parts[0] == "refused"}
    return {"refused": refused, "accepted": {p: found[p] for p in found.keys() - refused.keys()}}


def sources(folder: str) -> list[Path]:
    found = sorted((SNIPPETS / folder).glob("*.py"))
    assert found
    return found


def test_right_code_is_accepted(messages: dict[str, Messages]) -> None:
    assert messages["accepted"] == {}


def test_right_code_is_accepted_in_pyrights_strict_mode(tmp_path: Path) -> None:
    shutil.copytree(SNIPPETS / "accepted", tmp_path / "accepted")
    configure_pyright(tmp_path, "strict")
    assert pyright(tmp_path) == {}


def test_the_public_api_is_typed_throughout(tmp_path: Path) -> None:
    # No type that a user can see is left to inference, in which checkers differ, or unknown.
    # Outside the project, so that the package is the installed one.
    report = pyright_report(tmp_path, "--ignoreexternal", "--verifytypes", "trio_durable")
    found = report["typeCompleteness"]
    assert found["exportedSymbolCounts"]["withKnownType"] > 0
    unknown = {
        symbol["name"]: [said["message"] for said in symbol["diagnostics"]]
        for symbol in found["symbols"]
        if symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"]
    }
    causes = {
        name: [said for said in messages if "partially unknown" not in said]
        for name, messages in unknown.items()
    }
    assert {name: messages for name, messages in causes.items() if messages} == {}
    assert unknown == {}


def test_wrong_code_is_refused(checker: str, messages: dict[str, Messages]) -> None:
    marked = {
        (f"refused/{path.name}", number): line.strip()
        for path in sources("refused")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if (mark := MARK.search(line)) and mark["checker"] in (None, checker)
    }
    assert marked
    missed = {place: line for place, line in marked.items() if place not in messages["refused"]}
    surplus = {place: said for place, said in messages["refused"].items() if place not in marked}
    assert not missed, f"passed although it is wrong: {missed}"
    assert not surplus, f"refused although nothing says that it is wrong: {surplus}"


def test_accepted_code_runs() -> None:
    # What a checker accepts should not be refused by the class statement.
    for path in sources("accepted"):
        subprocess.run([sys.executable, "-W", "error", str(path)], check=True)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The library with the settings of the project, wherever it is installed."""
    shutil.copytree(Path(trio_durable.__file__).parent, tmp_path / "trio_durable")
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


def test_pyright_accepts_the_public_modules(library: Path) -> None:
    found = (path.relative_to(library) for path in (library / "trio_durable").rglob("*.py"))
    public = [path for path in found if is_public(path) or "_api" in path.parts]
    assert len(public) > 50
    assert pyright(library, *map(str, public)) == {}


def is_public(path: Path) -> bool:
    """True if no part of a module's name is private."""
    return not any(part.startswith("_") for part in path.with_suffix("").parts[:-1]) and (
        path.stem == "__init__" or not path.stem.startswith("_")
    )


def test_pyright_accepts_the_library_itself(library: Path) -> None:
    assert pyright(library) == {}
