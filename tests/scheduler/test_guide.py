"""The scheduler of docs/schedulers.md, broken in ways that the suite must find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from documentation.page import files

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "schedulers.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which a reader has saved all the examples."""
    for name, code in files(GUIDE).items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    return tmp_path


def run_suite(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the suite by a user's pytest, which has none of this project's settings."""
    settings = ["-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio", "--rootdir=."]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *settings, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_suite_finds_what_a_scheduler_loses_and_says_what_it_found(folder: Path) -> None:
    scheduler = folder / "logging_scheduler.py"
    code = scheduler.read_text(encoding="utf-8")
    passed_on = "super().committed(key, changes)"
    assert passed_on in code
    scheduler.write_text(code.replace(passed_on, "pass"))
    suite = run_suite(folder, "-k", "test_an_alarm_that_a_turn_sets")
    assert suite.returncode == 1
    assert "AssertionError: assert [] == ['x']" in suite.stdout


def test_a_class_that_makes_no_scheduler_is_told_so(folder: Path) -> None:
    tests = folder / "test_logging_scheduler.py"
    code = tests.read_text(encoding="utf-8")
    assert "def make_scheduler(" in code
    tests.write_text(code.replace("def make_scheduler(", "def another("))
    suite = run_suite(folder, "-k", "test_a_dead_letter_is_cancelled")
    assert suite.returncode == 1
    assert "TestLoggingScheduler needs a method `make_scheduler`" in suite.stdout


def test_without_pytest_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["pytest"] = None
try:
    import trio_durable.testing.scheduler_conformance
except ImportError as error:
    print(error)
    assert error.name == "pytest"
"""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == (
        "trio_durable.testing.scheduler_conformance needs pytest; install trio-durable[testing]"
    )
