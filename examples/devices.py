"""Twins of devices: the last report of each, and a note of the ones that went silent.

    python -m examples.devices 10000

lets a day pass, on a clock that jumps.
"""

from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta

import anyio
from trio.testing import MockClock

from trio_durable import DurableObject, DurableRuntime, alarm, handler

SILENCE = timedelta(hours=2)
REPORTS = 4


class Device(DurableObject, hibernate_after=60):
    celsius: float | None = None
    seen: datetime | None = None
    online: bool = False
    outages: int = 0

    @handler
    def report(self, celsius: float) -> None:
        self.celsius, self.seen, self.online = celsius, self.ctx.now(), True
        self.ctx.schedule_alarm("silent", after=SILENCE)  # replaces the one before

    @alarm
    def silent(self) -> None:
        self.online = False
        self.outages += 1


async def one_day(number: int) -> None:
    """The reports of one device, at random times."""
    times = sorted(random.uniform(0, 86400 - SILENCE.total_seconds()) for _ in range(REPORTS))
    for before, at in zip([0.0, *times], times, strict=False):
        await anyio.sleep(at - before)
        await Device.report(f"device-{number}", round(random.gauss(20, 5), 1))


async def main(devices: int) -> int:
    """Let a day pass; returns the number of outages."""
    async with DurableRuntime(
        ":memory:", objects=[Device], call_timeout=None, polling_interval=86400
    ) as runtime:
        async with anyio.create_task_group() as day:
            for number in range(devices):
                day.start_soon(one_day, number)
        await anyio.sleep(2 * SILENCE.total_seconds())
        page = await runtime.list_states(Device, limit=1_000_000)
        assert all(device.state.online is False for device in page)
        return sum(device.state.outages for device in page)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    options = {"clock": MockClock(autojump_threshold=0)}
    print(f"{anyio.run(main, count, backend='trio', backend_options=options):,} outages")
