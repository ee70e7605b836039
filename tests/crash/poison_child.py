"""A process with alarms, one of which kills it.

    python poison_child.py PATH BACKEND WAY

It says ``+ ID`` when the alarm of an object begins, and ``calm`` once that of ``poison`` is a dead
letter, and all others run and none of them is a suspect. WAY is how the alarm of ``poison`` kills
the process: ``exit`` or ``kill``. With ``end`` all alarms end at once, and the process with them:
it says ``dead ID ERROR`` of each dead letter, and ``done ID STATE`` of the others.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import sys
from contextlib import closing

import anyio

from trio_durable import DurableObject, DurableRuntime, Retry, alarm
from trio_durable.scheduler._delivery import suspects

INNOCENT = ["a", "b", "c"]
CRASHES = 3

begun: set[str] = set()


def say(*words: object) -> None:
    # One write: a kill leaves the line wholly or not at all.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Job(DurableObject):
    done: bool = False

    @alarm(retry=Retry(initial=0, crashes=CRASHES))
    async def run(self) -> None:
        way, object_id = sys.argv[3], self.ctx.object_id
        begun.add(object_id)
        say("+", object_id)
        if object_id == "poison" and way != "end":
            await anyio.sleep(0.05)  # the others begin, if they may
            if way == "exit":
                os._exit(7)
            os.kill(os.getpid(), signal.SIGKILL)
        if way != "end":
            await anyio.sleep(3600)
        self.done = True


def count(path: str, condition: str) -> int:
    """The alarms in the file that aren't dead letters."""
    with closing(sqlite3.connect(path)) as connection:
        (number,) = connection.execute(
            f"SELECT count(*) FROM durable_alarms WHERE available_at IS NOT NULL AND {condition}"
        ).fetchone()
    return int(number)


async def main(path: str, way: str) -> None:
    async with DurableRuntime(path, objects=[Job], grace_period=0) as runtime:
        if way == "end":
            while count(path, "true"):
                await anyio.sleep(0.02)
            for dead in await runtime.list_dead_letters(Job):
                say("dead", dead.key.object_id, dead.last_error)
            for name in INNOCENT:
                say("done", name, (await runtime.get_state(Job, name)).done)
        else:
            suspicious = "(crashes IS NOT NULL OR object_id = 'poison')"
            while not begun.issuperset(INNOCENT) or count(path, suspicious):
                await anyio.sleep(0.02)
            say("calm")
            await anyio.sleep(3600)


if __name__ == "__main__":
    logging.getLogger("trio_durable.alarms").disabled = True
    suspects.PROBATION_SECONDS = 0.3
    anyio.run(main, sys.argv[1], sys.argv[3], backend=sys.argv[2])
