"""A pytest plugin: the fixture ``durable_runtime``, and the reports of simulations.

pytest loads the plugin wherever the library is installed. The fixture works with the tests of the
three plugins that run async tests: AnyIO's own, pytest-asyncio and pytest-trio. Each runs an async
fixture in its own event loop, so there is one for each, and ``durable_runtime`` takes the one of
the plugin that runs the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator

import pytest

from .._api.runtime import DurableRuntime
from ._new_runtime import new_runtime

__all__ = ["durable_runtime"]


@pytest.fixture
def durable_runtime(request: pytest.FixtureRequest) -> DurableRuntime:
    """A runtime on ``:memory:``, open during the test. Each test has a new one, without objects.

    The runtime serves every imported class and is the current runtime of the test. Its time is that
    of the event loop, thus virtual if the loop has a virtual clock.

    Raises:
        pytest.UsageError: None of the plugins runs the test.
    """
    runtime: DurableRuntime = request.getfixturevalue(_fixture_for(request))
    return runtime


def _fixture_for(request: pytest.FixtureRequest) -> str:
    """The name of the fixture that is run in the test's event loop."""
    test, config = request.node, request.config
    has_plugin = config.pluginmanager.hasplugin
    if has_plugin("trio") and test.get_closest_marker("trio") is not None:
        return "_durable_runtime_of_trio"
    marker = test.get_closest_marker("asyncio") if has_plugin("asyncio") else None
    if marker is not None:  # before AnyIO's, whose tests pytest-asyncio runs in its auto mode
        scope = marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
        return f"_durable_runtime_of_{scope or config.getini('asyncio_default_test_loop_scope')}"
    if "anyio_backend" in request.fixturenames:
        return "_durable_runtime_of_anyio"
    raise pytest.UsageError(
        f"durable_runtime needs an async test that a plugin runs, and {test.name} is none: mark it "
        "with pytest.mark.anyio, or with the mark of pytest-asyncio or pytest-trio"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the fixtures for pytest-asyncio, if that is there."""
    if config.pluginmanager.hasplugin("asyncio"):
        # Not before: pytest warns of a plugin that was imported before it was loaded.
        from . import _asyncio_fixtures

        config.pluginmanager.register(_asyncio_fixtures)


_REPORT = "durable simulation"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the report of a simulation to that of its test."""
    report = yield
    # Set by a simulation that has run. The plugin imports none, and so not Hypothesis.
    simulated = getattr(getattr(item, "cls", None), "durable_simulation_report", None)
    if call.when == "call" and simulated is not None:
        report.sections.append((_REPORT, str(simulated)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the reports of simulations that have passed, with ``-v``."""
    passed: list[pytest.TestReport] = terminalreporter.getreports("passed")
    reports = [text for each in passed for name, text in each.sections if name == _REPORT]
    if reports and terminalreporter.verbosity > 0:
        terminalreporter.write_sep("=", "simulations")
        for text in reports:
            terminalreporter.write_line(text)


@pytest.fixture
async def _durable_runtime_of_anyio(
    anyio_backend: object,  # noqa: ARG001  # AnyIO runs only fixtures that depend on it
) -> AsyncIterator[DurableRuntime]:
    async for runtime in new_runtime():
        yield runtime


@pytest.fixture
async def _durable_runtime_of_trio() -> AsyncIterator[DurableRuntime]:
    async for runtime in new_runtime():
        yield runtime
