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


OF_OTHERS = """
import pytest
from trio_durable import DurableObject, current_runtime, handler

class Counter(DurableObject):
    count: int = 0

    @handler
    async def add(self) -> int:
        self.count += 1
        return self.count
"""
STRICT = """
import pytest_asyncio

@pytest_asyncio.fixture
async def counted(durable_runtime):
    await Counter.add("a")
    return durable_runtime

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(2))
async def test_each_has_its_own(durable_runtime, counted, number):
    assert current_runtime() is durable_runtime is counted
    assert await Counter.add("a") == 2

@pytest.mark.asyncio(loop_scope="module")
async def test_in_the_module_s_loop(durable_runtime):
    assert await Counter.add("a") == 1

@pytest.mark.asyncio(loop_scope="class")
class TestInTheLoopOfAClass:
    async def test_once(self, durable_runtime):
        assert await Counter.add("a") == 1

    async def test_twice(self, durable_runtime):
        assert await Counter.add("a") == 1
"""
AUTO = """
@pytest.fixture
async def counted(durable_runtime):
    await Counter.add("a")
    return durable_runtime

async def test_unmarked(durable_runtime, counted):
    assert current_runtime() is durable_runtime is counted
    assert await Counter.add("a") == 2
"""
TRIO = """
@pytest.fixture
async def counted(durable_runtime):
    await Counter.add("a")
    return durable_runtime

@pytest.mark.trio
async def test_marked(durable_runtime, counted):
    assert current_runtime() is durable_runtime is counted
    assert await Counter.add("a") == 2

@pytest.mark.trio
async def test_in_virtual_time(durable_runtime, autojump_clock):
    import trio
    await trio.sleep(3600)
    assert await Counter.add("a") == 1
"""
FUNCTION_LOOPS = ("-o", "asyncio_default_fixture_loop_scope=function")
SESSION_LOOPS = ("-o", "asyncio_default_fixture_loop_scope=session")


@pytest.mark.parametrize(
    ("suite", "options", "without", "passed"),
    [
        pytest.param(STRICT, FUNCTION_LOOPS, ["anyio", "trio"], 5, id="pytest-asyncio"),
        pytest.param(STRICT, FUNCTION_LOOPS, [], 5, id="pytest-asyncio, and others"),
        pytest.param(
            AUTO,
            (*FUNCTION_LOOPS, "-o", "asyncio_mode=auto"),
            ["trio"],
            1,
            id="pytest-asyncio in its auto mode",
        ),
        pytest.param(
            AUTO,
            (
                *(*SESSION_LOOPS, "-o", "asyncio_mode=auto"),
                *("-o", "asyncio_default_test_loop_scope=session"),
            ),
            ["trio"],
            1,
            id="pytest-asyncio in a loop of the session",
        ),
        pytest.param(TRIO, (), ["anyio", "asyncio"], 2, id="pytest-trio"),
        pytest.param(TRIO, FUNCTION_LOOPS, [], 2, id="pytest-trio, and others"),
        pytest.param(
            AUTO, ("-o", "trio_mode=true"), ["asyncio"], 1, id="pytest-trio in its trio mode"
        ),
        pytest.param(AUTO, ("-o", "anyio_mode=auto"), ["asyncio", "trio"], 2, id="AnyIO's"),
    ],
)
def test_it_works_with_each_plugin(
    suite: str, options: tuple[str, ...], without: list[str], passed: int, tmp_path: Path
) -> None:
    (tmp_path / "test_suite.py").write_text(OF_OTHERS + suite, encoding="utf-8")
    run = run_pytest(tmp_path, *options, without=without)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{passed} passed" in run.stdout


def test_without_any_of_them_it_says_what_to_do(tmp_path: Path) -> None:
    suite = "def test_sync(durable_runtime): pass"
    (tmp_path / "test_suite.py").write_text(suite, encoding="utf-8")
    run = run_pytest(tmp_path)
    assert "1 error" in run.stdout
    assert "durable_runtime needs an async test that a plugin runs, and test_sync is none" in (
        run.stdout
    )
    assert "pytest.mark.anyio" in run.stdout


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
