"""Own tasks of a runtime: nothing that they raise leaves them."""

from __future__ import annotations

from contextvars import copy_context

import pytest

from trio_durable._eventloop.running import running_loop
from trio_durable._eventloop.tasks import OwnTasks

pytestmark = pytest.mark.anyio


class Struck(Exception):
    """What the handler of a signal raises."""


async def test_an_exception_within_the_report_of_another_one_is_a_fault_of_the_runtime() -> None:
    faults: list[BaseException] = []
    tasks = OwnTasks(running_loop(), copy_context(), faults.append)

    async def run() -> None:
        raise ValueError

    def failed(error: BaseException) -> None:
        assert isinstance(error, ValueError)
        raise Struck

    tasks.start(run, "own task", failed)
    await tasks.wait()
    assert [type(error) for error in faults] == [Struck]
