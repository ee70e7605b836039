"""A program whose ``def`` handlers let the event loop run.

    python -m hold.looping HOW BACKEND

It prints the replies of three calls of one object and the state that is stored; each reply must be
another number, and the last is stored. ``HOW`` is "greenback", "nest" (nest_asyncio), "eager" (a
task that begins inside of the handler), or "nest-async": nest_asyncio in an ``async def`` handler,
which calls another object by it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio

from trio_durable import DurableObject, DurableRuntime, handler

how, backend = sys.argv[1:]
tasks: list[asyncio.Task[Any]] = []
AROUND = ["add_around", "add_around", "fail_around"]


def let_the_loop_run() -> None:
    if how == "greenback":
        import greenback

        greenback.await_(anyio.sleep(0.02))
    elif how == "nest":
        asyncio.get_running_loop().run_until_complete(asyncio.sleep(0.02))
    else:
        tasks.append(asyncio.get_running_loop().create_task(Counter.add("a")))


class Counter(DurableObject):
    count: int = 0
    begun: int = 0

    @handler
    def add(self) -> int:
        self.begun += 1
        self.count += 1
        return self.count

    @handler
    def add_around(self) -> int:
        self.begun += 1
        before = self.count
        let_the_loop_run()
        self.count = before + 1
        return self.count

    @handler
    async def add_async(self) -> int:
        self.count += 1
        return self.count

    @handler
    async def add_nested(self) -> int:
        self.begun += 1
        before = self.count
        asyncio.get_running_loop().run_until_complete(Counter.add_async("other"))
        self.count = before + 1
        return self.count

    @handler
    def fail_around(self) -> None:
        self.begun += 100
        let_the_loop_run()
        raise ValueError


async def main(path: str) -> list[object]:
    replies: list[object] = []

    async def call(name: str) -> None:
        if how == "greenback":
            import greenback

            await greenback.ensure_portal()
        try:
            replies.append(await getattr(Counter, name)("a"))
        except (ValueError, RuntimeError):  # a queued turn has no portal of greenback's
            replies.append("refused")

    if how == "eager":
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    async with DurableRuntime(path, call_timeout=5):
        await Counter.add("a")
        async with anyio.create_task_group() as group:
            for name in ["add_nested"] * 3 if how == "nest-async" else AROUND:
                group.start_soon(call, name)
        replies.extend([await task for task in tasks])
    async with DurableRuntime(path) as runtime:
        await Counter.add("a")
        state = await runtime.get_state(Counter, "a")
    return [sorted(map(str, replies)), state.count, state.begun]


if __name__ == "__main__":
    if how.startswith("nest"):
        import nest_asyncio

        nest_asyncio.apply()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "a.db")
        if how.startswith("nest"):
            result = asyncio.run(main(path))
        else:
            result = anyio.run(main, path, backend=backend)
    sys.stdout.write(json.dumps(result))
