"""A process that is meant to be killed: callers call counters and note what was acknowledged.

    python calls_child.py PATH BACKEND RUN

Each call has a name of its own. Before it is made, ``? NAME`` goes to standard output, or
``! NAME`` if its handler will raise, and when its reply is there, ``= NAME OBJECT POSITION``.
Each line is written at once and unbuffered, so that what was written is what was known when the
process died. It runs until it is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys

import anyio
import attrs

from trio_durable import DurableObject, DurableRuntime, handler

CALLERS = 16
OBJECTS = 6


class Ledger(DurableObject, call_timeout=60):
    """Every turn changes all fields together, so that half a turn would show."""

    total: int = 0
    names: list[str] = attrs.field(factory=list)
    last: str = ""

    @handler
    def note(self, name: str) -> int:
        self.total += 1
        self.names.append(name)
        self.last = name
        return self.total

    @handler
    async def note_slowly(self, name: str) -> int:
        self.total += 1
        await anyio.lowlevel.checkpoint()
        self.names.append(name)
        await anyio.lowlevel.checkpoint()
        self.last = name
        return self.total

    @handler
    async def note_twice(self, name: str) -> int:
        """Two commits in one turn, each of which may be the last one."""
        await self.note_slowly_unnamed(f"{name}a")
        await self.ctx.commit()
        await self.note_slowly_unnamed(f"{name}b")
        return self.total

    async def note_slowly_unnamed(self, name: str) -> None:
        self.total += 1
        await anyio.lowlevel.checkpoint()
        self.names.append(name)
        self.last = name

    @handler
    def fail(self, name: str) -> None:
        """A turn that must leave nothing, whenever the process dies."""
        self.total += 1
        self.names.append(name)
        raise ValueError(name)


def say(*words: object) -> None:
    # One write: a kill leaves the line wholly or not at all.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def caller(runtime: DurableRuntime, run: str, number: int) -> None:
    for n in itertools.count():
        name = f"{run}.{number}.{n}"
        object_id = f"ledger-{(number + n) % OBJECTS}"
        ledger = runtime.get(Ledger, object_id)
        kind = (number + n) % 5
        say("!" if kind == 4 else "?", name)
        match kind:
            case 0 | 1:
                say("=", name, object_id, await ledger.note(name))
            case 2:
                say("=", name, object_id, await ledger.note_slowly(name))
            case 3:
                position = await ledger.note_twice(name)
                say("=", f"{name}a", object_id, position - 1)
                say("=", f"{name}b", object_id, position)
            case _:
                with contextlib.suppress(ValueError):
                    await ledger.fail(name)


async def main(path: str, run: str) -> None:
    async with (
        DurableRuntime(path, objects=[Ledger]) as runtime,
        anyio.create_task_group() as tasks,
    ):
        for number in range(CALLERS):
            tasks.start_soon(caller, runtime, run, number)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[3], backend=sys.argv[2])
