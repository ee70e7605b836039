from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from support.clock import VirtualTimeLoop
from support.postgres import fresh_server, own_server, postgres, postgres_database
from trio.testing import MockClock

__all__ = ["fresh_server", "own_server", "postgres", "postgres_database"]  # fixtures for all


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each test runs on both loops, in virtual time: waiting costs nothing."""
    if request.param == "trio":
        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture(params=["trio", "asyncio", "asyncio+uvloop"])
def real_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """For what can't run in virtual time: other threads, other event loops."""
    if request.param == "asyncio+uvloop":
        uvloop = pytest.importorskip("uvloop")
        return "asyncio", {"loop_factory": uvloop.new_event_loop}
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": asyncio.new_event_loop}
    return "trio", {}


class _Repairs(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "nothing served it" in record.getMessage():
            self.lines.append(record.getMessage())


@pytest.fixture(autouse=True)
def no_repairs() -> Iterator[None]:
    """No object may be found busy and unserved, which the runtime repairs at a call's timeout."""
    logger, repairs = logging.getLogger("trio_durable.alarms"), _Repairs()
    logger.addHandler(repairs)
    try:
        yield
    finally:
        logger.removeHandler(repairs)
    assert not repairs.lines


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let reports of tests go from process to process.

    Some tests log what is no Unicode, to see that nothing stumbles over it; pytest-xdist would.
    """
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
