"""No turn of an object begins within another one of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from trio_durable import CallTimeout, DurableObject, DurableRuntime, handler

TESTS = Path(__file__).parents[1]
"""Not the root, or a package of `hold.mutants` would not be imported in its place."""


@pytest.mark.parametrize(
    ("how", "backend"),
    [
        ("greenback", "trio"),
        ("greenback", "asyncio"),
        ("nest", "asyncio"),
        pytest.param(
            "eager",
            "asyncio",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12"),
        ),
    ],
)
def test_a_def_handler_that_lets_the_loop_run_is_one_turn(how: str, backend: str) -> None:
    replies, count, begun = looping(how, backend)
    numbers = [int(reply) for reply in replies if reply != "refused"]
    assert sorted(numbers) == list(range(2, 2 + len(numbers)))
    assert count == begun == 2 + len(numbers)
    if how == "greenback":  # queued turns run in the runtime's own task, where it is refused
        assert replies.count("refused") in (1, 2, 3)
    else:
        assert replies.count("refused") == 1


def test_other_objects_are_served_within_an_async_def_turn_that_lets_the_loop_run() -> None:
    replies, count, begun = looping("nest-async", "asyncio")
    assert replies == ["2", "3", "4"]
    assert count == begun == 5


def looping(how: str, backend: str) -> tuple[list[str], int, int]:
    """Run the program: its replies, and the stored counts."""
    command = ["-W", "ignore", "-m", "hold.looping", how, backend]
    run = subprocess.run(
        [sys.executable, *command], cwd=TESTS, capture_output=True, text=True, check=False
    )
    assert not run.returncode, run.stdout + run.stderr
    replies, count, begun = json.loads(run.stdout)
    return replies, count, begun


class Deep(DurableObject):
    count: int = 0

    @handler
    def add(self) -> int:
        self.count += 1
        return self.count

    @handler
    async def add_async(self) -> int:
        self.count += 1
        return self.count


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["add", "add_async"])
@pytest.mark.parametrize("is_warm", [True, False])
async def test_a_recursion_that_ends_in_a_call_leaves_the_object_whole(
    name: str, is_warm: bool
) -> None:
    async with DurableRuntime(":memory:", call_timeout=5) as runtime:
        deep = runtime.get(Deep, "a")
        if is_warm:
            await deep.add_async()
        acknowledged = int(is_warm)

        async def run_away() -> None:
            nonlocal acknowledged
            await getattr(deep, name)()
            acknowledged += 1
            await run_away()

        began = anyio.current_time()
        with pytest.raises(RecursionError):
            await run_away()
        assert anyio.current_time() < began + 5
        try:
            count = await deep.add()
        except CallTimeout:
            raise AssertionError("the object is stuck") from None
        # The call that has raised may have had its turn.
        assert count in (acknowledged + 1, acknowledged + 2)
        assert await deep.add_async() == count + 1
