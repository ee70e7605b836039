"""Second owner: a process that runs from its start to its end while the first one is suspended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from threading import Thread

from ._call import Call
from ._process import MAX_STEP_SECONDS, Process


def run_second_owner(start: Callable[[], Process], calls: Iterable[Call]) -> float:
    """Run a second owner, whose callers make the same calls as those of the first process.

    It runs in a thread of its own, since no other event loop can run in that of the first process,
    which is in the middle of a tick.

    Args:
        start: Starts the process.
        calls: The calls of the step.

    Returns:
        The time of its loop at its end.

    Raises:
        BaseException: What would have failed the step in the first process.
    """
    ended: list[float | BaseException] = []

    def run() -> None:
        try:
            process = start()
            try:
                process.start_calls(again)
                process.run_until(lambda: all(call.has_ended for call in again), MAX_STEP_SECONDS)
                process.run_until(process.is_idle, MAX_STEP_SECONDS)
                process.close()
                now = process.now  # more time passes for a process that is disposed of
            finally:
                process.dispose()
            ended.append(now)
        except BaseException as error:  # noqa: BLE001  # raised in the thread of the first process
            ended.append(error)

    again = [copy(call) for call in calls]
    thread = Thread(target=run, name="trio-durable second owner")
    thread.start()
    thread.join()
    [outcome] = ended
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
