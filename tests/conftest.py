from __future__ import annotations

import asyncio
import logging
import os
import zlib
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from support.chromium import chromium
from support.clock import VirtualTimeLoop
from support.postgres import fresh_server, own_server, postgres, postgres_database
from trio.testing import MockClock

__all__ = [
    "chromium",
    "fresh_server",
    "own_server",
    "postgres",
    "postgres_database",
]  # fixtures for all


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each test runs on both loops, in virtual time: waiting costs nothing.

    A test of one loop parametrizes it with ``indirect=True``, or it would run in real time.
    """
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


SAMPLE = int(os.environ.get("TRIO_DURABLE_SAMPLE", "0"))
"""1 runs all tests, as do ``make deep`` and ``make test SAMPLE=1``. Without it, the suite stays
within ten minutes on two cores: each test runs on one of the two event loops, and of families of
tests that take long and are much alike a part is run. The choice is by their names, so it is always
the same. A rate of 0 leaves a test to those who run all."""
FAMILIES = {
    "project/test_typing.py::test_pyright_accepts_the_library_itself": 0,
    "guarantees/alarms/test_clocks.py::test_a_week_of_ten_thousand": 0,
    "documentation/test_pages.py::test_its_blocks_run[docs/storages.md]": 0,
    "storage/test_conformance.py::TestPostgresStorage": 12,
    "storage/test_conformance.py::TestMemberOfPostgresStorage": 12,
    "storage/test_conformance.py::TestSQLiteStorage": 8,
    "storage/postgres/": 8,
    "storage/sqlite/test_alarms.py": 2,
    "storage/sqlite/test_messages.py": 2,
    "storage/test_guide.py": 2,
    "guarantees/test_on_postgres.py": 8,
    "guarantees/": 3,
    "crash/": 12,
    "cluster/test_processes.py": 6,
    "cluster/test_chaos.py::test_it_says_what_it_has_done[lossy]": 3,
    "cluster/test_web_servers.py::test_workers_share_the_objects_of_a_database[gunicorn-pre": 1,
    "cluster/test_web_servers.py": 2,
    "cluster/test_messages_on_postgres.py": 3,
    "cluster/test_across.py": 2,
    "scheduler/test_conformance.py": 6,
    "project/test_examples.py": 3,
    "project/test_compare.py": 4,
    "project/test_load_programs.py": 4,
    "project/test_package.py": 2,
    "documentation/test_pages.py": 6,
    "documentation/test_reference.py": 2,
    "exactness/": 8,
    "simulation/test_cluster.py::test_what_members_tell": 1,
    "simulation/test_cluster.py::test_the_checker_finds_what_members_do_wrong[unknown_repeated]": 1,
    "simulation/": 6,
    "testing/simulate/": 5,
    "testing/test_plugin.py": 2,
    "telemetry/": 4,
    "cli/": 6,
    "outbox/test_on_postgres.py": 2,
    "outbox/test_sleeping_lanes.py": 2,
}


def _is_left_out(item: pytest.Item) -> bool:
    name = item.nodeid.removeprefix("tests/")
    rate = next((rate for start, rate in FAMILIES.items() if name.startswith(start)), 1)
    if rate == 0:
        return True
    params = item.callspec.params if hasattr(item, "callspec") else {}
    loop = next((params[each] for each in ("anyio_backend", "backend") if each in params), None)
    if loop in ("trio", "asyncio") and "/test_" in name:
        # One of the two, by the name of the test.
        number = zlib.crc32(name.replace(loop, "").encode())
        return bool(number % rate) or (number // rate % 2 == 0) != (loop == "trio")
    return bool(zlib.crc32(name.encode()) % rate)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if SAMPLE == 1:
        return
    left_out = {item for item in items if _is_left_out(item)}
    if left_out and len(items) > 1000:  # not of tests that were named
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
