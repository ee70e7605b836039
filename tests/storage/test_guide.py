"""The storage of docs/storages.md in use, and with faults that the suite must find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from documentation.page import files

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "storages.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader has saved all the examples."""
    for name, code in files(GUIDE).items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        # As if the library were installed.
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def run_suite(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The suite, by a user's pytest, which has none of this project's settings."""
    settings = ["-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio", "--rootdir=."]
    return run(folder, "-m", "pytest", *settings, *arguments)


def test_a_runtime_works_with_the_storage_of_the_guide(folder: Path) -> None:
    app = run(folder, "-c", "import app, trio; trio.run(app.main); trio.run(app.main)")
    assert app.returncode == 0, app.stderr
    lines = (folder / "counters.log").read_text(encoding="utf-8").splitlines()
    assert [line.split()[-1] for line in lines] == ["0", "1"]


def test_the_suite_finds_what_a_storage_loses_and_says_what_it_found(folder: Path) -> None:
    storage = folder / "audited.py"
    code = storage.read_text(encoding="utf-8")
    passed_on = "self.inner.commit(batch, now)"
    assert passed_on in code
    storage.write_text(code.replace(passed_on, "self.inner.commit(batch[:1], now)"))
    suite = run_suite(folder, "-k", "loads_answer_in_order or batches_of_all_sizes")
    assert suite.returncode == 1
    # Of one assertion and of one comparison of much: what was there, and what should have been.
    assert "AssertionError: assert [None, None, (1, b'1')] == [(1, b'2'), " in suite.stdout
    assert "None instead of (1, b'0001')" in suite.stdout


def test_a_class_without_a_storage_is_told_so(folder: Path) -> None:
    (folder / "test_audited.py").write_text(
        "from trio_durable.testing.conformance import StorageConformance\n"
        "class TestNothing(StorageConformance): ...\n"
    )
    suite = run_suite(folder, "-k", "test_all_stale")
    assert suite.returncode == 1
    assert "NotImplementedError: TestNothing needs a fixture named `storage`" in suite.stdout


@pytest.mark.parametrize("missing", ["pytest", "hypothesis"])
def test_without_pytest_or_hypothesis_it_says_what_to_install(missing: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
import trio_durable.testing
try:
    import trio_durable.testing.conformance
except ImportError as error:
    print(error)
    assert error.name == {missing!r}
"""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == (
        "trio_durable.testing.conformance needs pytest and hypothesis, "
        f"and {missing} isn't there; install trio-durable[testing]"
    )
