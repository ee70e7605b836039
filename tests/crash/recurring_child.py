"""A process that is meant to be killed: objects with recurring alarms.

    python recurring_child.py STORAGE BACKEND RUN [cluster]

Each firing is ``= ID`` on standard output, at once and unbuffered. Some firings fail and become
dead letters. Meanwhile callers turn alarms off and on, and delete objects. It runs until it is
killed.

A member of a cluster goes on if another process of it dies, which may have handled the call.
"""

from __future__ import annotations

import logging
import os
import random
import sys

import anyio
import attrs

from trio_durable import (
    CallTimeout,
    DurableObject,
    DurableRuntime,
    OwnerLost,
    Retry,
    StorageUnavailable,
    alarm,
    handler,
)
from trio_durable._clock import microseconds_of

CALLERS = 4
METERS = 40
SECOND = 1_000_000
HASTY = Retry(initial=0.01, maximum=0.02, attempts=2)


def dies(due_at: int) -> bool:
    """True if a firing of "flaky" raises in all its attempts. By its time, so that a test knows."""
    return (due_at // SECOND + due_at) % 3 == 0


class Meter(DurableObject, call_timeout=60):
    ticks: int = 0
    last: dict[str, int] = attrs.field(factory=dict)
    """The due time of each alarm's last firing that has had its effect."""
    is_off: bool = False
    """The alarm "flaky" is turned off."""
    wrong: list[str] = attrs.field(factory=list)
    """Firings that came twice, or not after the one before."""

    @handler
    def begin(self) -> None:
        if not self.is_off:
            self.ctx.schedule_alarm("flaky")

    @handler
    def switch(self) -> None:
        self.is_off = not self.is_off
        if self.is_off:
            self.ctx.cancel_alarm("flaky")
        else:
            self.ctx.schedule_alarm("flaky")

    @handler
    def remove(self) -> None:
        self.ctx.delete()

    @alarm(every=1, missed="all", autostart=True)
    def tick(self) -> None:
        due_at = self._fire("tick", every=SECOND)
        before = self.last.get("tick")
        if before is not None and due_at != before + SECOND:
            self.wrong.append(f"tick {before} {due_at}")
        self.last["tick"] = due_at
        self.ticks += 1

    @alarm(every=1.5, retry=HASTY)
    async def flaky(self) -> None:
        due_at = self._fire("flaky", every=3 * SECOND // 2)
        if dies(due_at):
            raise ValueError("on purpose")
        self.last["flaky"] = due_at

    @alarm(every=1, missed="skip", grace=0.5, autostart=True)
    def skipping(self) -> None:
        self.last["skipping"] = self._fire("skipping", every=SECOND)

    def _fire(self, name: str, *, every: int) -> int:
        current = self.ctx.alarm
        assert current is not None
        due_at, before = microseconds_of(current.due_at), self.last.get(name)
        if before is not None and due_at <= before:
            self.wrong.append(f"{name} {before} {due_at}")
        os.write(1, f"= {self.ctx.object_id}\n".encode())
        return due_at


async def caller(runtime: DurableRuntime, rng: random.Random) -> None:
    while True:
        await anyio.sleep(0.05)
        meter = runtime.get(Meter, f"m{rng.randrange(METERS)}")
        try:
            if rng.random() < 0.1:
                await meter.remove()
            elif rng.random() < 0.5:
                await meter.switch()
            else:
                await meter.begin()
        except (OwnerLost, CallTimeout, StorageUnavailable):
            if not is_member:
                raise


async def begin(runtime: DurableRuntime, number: int) -> None:
    try:
        await runtime.ensure_started(Meter, f"m{number}")
        await runtime.get(Meter, f"m{number}").begin()
    except (OwnerLost, CallTimeout, StorageUnavailable):
        if not is_member:
            raise


async def main(storage: str, run: str) -> None:
    async with (
        DurableRuntime(
            storage, objects=[Meter], polling_interval=0.5, cluster=is_member
        ) as runtime,
        anyio.create_task_group() as tasks,
    ):
        for number in range(METERS):
            tasks.start_soon(begin, runtime, number)
        for number in range(CALLERS):
            tasks.start_soon(caller, runtime, random.Random(f"{run} {number}"))


is_member = "cluster" in sys.argv[4:]


if __name__ == "__main__":
    logging.getLogger("trio_durable").setLevel(logging.CRITICAL)
    anyio.run(main, sys.argv[1], sys.argv[3], backend=sys.argv[2])
