"""Functions in fresh processes, whose memory and caches nothing has used before."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_GRACE = 10


class ChildFailed(Exception):
    """A child process failed; the message is the end of its standard error."""


def in_child(
    work: Callable[[], T], *, timeout: float | None = None, tracer: Sequence[str] = ()
) -> T:
    """Call ``work``, a picklable callable, in a fresh interpreter and return its result.

    Args:
        work: A partial of a module's function, for example.
        timeout: The seconds it may take.
        tracer: A command to put before that of the interpreter, such as strace.

    Raises:
        ChildFailed: The callable raised, or took too long.
    """
    with tempfile.NamedTemporaryFile() as result:
        # A session of its own, so that servers that the child has started end with it.
        with subprocess.Popen(
            [*tracer, sys.executable, "-m", __name__, result.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                _, complaints = process.communicate(pickle.dumps(work), timeout=timeout)
            except subprocess.TimeoutExpired:
                _end(process)
                raise ChildFailed(f"it took longer than {timeout} s") from None
            except BaseException:
                _end(process)
                raise
        if process.returncode:
            reason = complaints.decode().strip() or f"exit status {process.returncode}"
            raise ChildFailed(reason[-2000:])
        returned: T = pickle.load(result)
        return returned


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a child and its session, with time to stop servers before SIGKILL."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE)
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(pickle.dumps(pickle.load(sys.stdin.buffer)()))
