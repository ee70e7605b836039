"""The plugin's fixture, in a test suite of a user."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from trio_durable import DurableRuntime, current_runtime
from trio_durable.testing import assert_persisted

from .objects import Tally
from .test_guide import run_pytest

ROOT = Path(__file__).parents[2]

SUITE = """
import anyio, pytest
from trio_durable import DurableObject, current_runtime, handler
from trio_durable.testing import assert_persisted

pytestmark = pytest.mark.anyio

class Counter(DurableObject):
    count: int = 0

    @handler
    async def add(self) -> int:
        await anyio.sleep(0)
        self.count += 1
        return self.count

@pytest.mark.parametrize("number", range(3))
async def test_each_has_its_own(durable_runtime, number):
    assert current_runtime() is durable_runtime
    assert durable_runtime.count_objects() == 0
    assert await Counter.add("a") == 1
    await assert_persisted(durable_runtime, Counter, "a", count=1)

async def test_a_failure_stays_the_test_s_own(durable_runtime):
    await Counter.add("a")
    assert 1 == 2, "on purpose"

async def test_after_a_failure(durable_runtime):
    assert await Counter.add("a") == 1
"""


def test_it_works_on_every_backend_without_settings(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    run = run_pytest(tmp_path)
    assert "2 failed, 8 passed" in run.stdout, run.stdout + run.stderr
    # Each once in its traceback; the summary's lines depend on the terminal.
    assert run.stdout.count("E       AssertionError: on purpose\n") == 2
    assert "ExceptionGroup" not in run.stdout


def test_pytest_finds_it_and_the_library_does_without_pytest() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [module] = project["entry-points"]["pytest11"].values()
    assert hasattr(import_module(module), "durable_runtime")
    assert not any("pytest" in requirement for requirement in project["dependencies"])
    code = "import sys, trio_durable.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.anyio
async def test_the_fixture_is_the_current_runtime(durable_runtime: DurableRuntime) -> None:
    assert current_runtime() is durable_runtime
    assert await Tally.add("a", 2) == 2
    await assert_persisted(durable_runtime, Tally, "a", count=2)
