"""One release of a program, as a process of its own.

    python release_child.py PATH RELEASE

RELEASE "new" has a recurring alarm; it says ``= DUE`` of two firings or more, and ends. "old" has
none, and ends once it has refused a firing.
"""

from __future__ import annotations

import logging
import sys

import anyio

from trio_durable import DurableObject, DurableRuntime, alarm, handler
from trio_durable._clock import microseconds_of
from trio_durable.scheduler._delivery import deliverer, failures

done = anyio.Event()


class New(DurableObject, name="Report"):
    count: int = 0

    @alarm(every=1, missed="all", autostart=True)
    def digest(self) -> None:
        current = self.ctx.alarm
        assert current is not None
        self.count += 1
        print("=", microseconds_of(current.due_at), flush=True)  # noqa: T201
        if self.count % 2 == 0:
            done.set()


class Old(DurableObject, name="Report"):
    count: int = 0

    @handler(readonly=True)
    def read(self) -> int:
        return self.count


class Noted(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print("!", record.getMessage(), flush=True)  # noqa: T201
        done.set()


async def main(path: str, release: str) -> None:
    cls = New if release == "new" else Old
    async with DurableRuntime(path, objects=[cls]) as runtime:
        with anyio.fail_after(60):
            if release == "new":
                await runtime.ensure_started(New, "a")
            else:
                assert await runtime.get(Old, "a").read() == 2
            await done.wait()
            await anyio.sleep(0.1)  # until what it knows is written


if __name__ == "__main__":
    # So that the next release needn't be waited for.
    setattr(deliverer, "UNHANDLED_SECONDS", 0.1)  # noqa: B010
    assert failures.UNHANDLED_SECONDS > 1
    logger = logging.getLogger("trio_durable.alarms")
    logger.propagate = False
    logger.addHandler(Noted())
    anyio.run(main, sys.argv[1], sys.argv[2], backend="trio")
