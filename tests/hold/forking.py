"""A program that forks inside of a runtime: ``python -m hold.forking BACKEND HOW PATH``.

It prints the exit code of the child, which is 3 if all is as it must be.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings

import anyio

from trio_durable import DurableObject, DurableRuntime, RuntimeClosed, handler

SECONDS = 10.0


class Counter(DurableObject):
    count: int = 0

    @handler
    def add(self) -> int:
        self.count += 1
        return self.count


class OwnError(Exception):
    pass


async def main(*arguments: str) -> int:
    how, path = arguments
    try:
        async with DurableRuntime(path) as runtime:
            counter = runtime.get(Counter, "a")
            await counter.add()
            child = os.fork()
            if not child:
                if how == "call":
                    await counter.add()
                raise OwnError
            code = await status_of(child)
            await counter.add()  # the parent's is as it was
            return code
    except RuntimeClosed as error:
        # Not by the end of the loop, whose means to be woken are the parent's, too.
        os._exit(3 if how == "call" and "forked" in str(error) else 4)
    except OwnError:
        os._exit(3 if how == "exception" else 5)


async def status_of(child: int) -> int:
    """The exit code of a child process; one that doesn't end is killed."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)  # noqa: ASYNC222
        if ended:
            return os.waitstatus_to_exitcode(status)
        await anyio.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)  # noqa: ASYNC222
    return -1


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of threads, which the child doesn't have
    print(anyio.run(main, *sys.argv[2:], backend=sys.argv[1]))  # noqa: T201
