"""Admission control: rejects a call that is unlikely to finish before its timeout.

A call waits in up to three queues: for its object's turns, for the reader that loads the object,
and for the writer that makes its change durable. The first is as long as its callers are many; but
entries in the other two stay there when their callers have gone, so without a bound they would grow
for as long as more arrives than the storage can do. `WaitEstimate` in `_persistence` estimates the
waits.

A call is rejected before it is queued anywhere, so nothing has to be undone, and it is safe to
repeat. Alarms aren't rejected: they are claimed only when there is room.
"""

from __future__ import annotations

from .._errors import Overloaded
from .._keys import ObjectKey
from .._persistence.wait_estimate import PATIENCE
from .services import Services


def admit(
    services: Services,
    key: ObjectKey,
    name: str,
    timeout: float | None,
    *,
    saves: bool = True,
    loads: bool = True,
) -> None:
    """Reject a call that would wait for the storage for too long.

    Args:
        services: The runtime's parts.
        key: The object.
        name: The handler, or the public method.
        timeout: The call's timeout in seconds; without one, the call is admitted.
        saves: The call may change something.
        loads: The object may have to be loaded for the call.

    Raises:
        Overloaded: The expected wait is more than `PATIENCE` of the timeout.
    """
    commits, reads = services.group_commit, services.batched_load
    if timeout is None:
        return
    if saves and commits.is_behind and (wait := commits.expected_wait()) > PATIENCE * timeout:
        raise Overloaded(key, name, timeout, f"the queue of commits takes {wait:.3g} s")
    if loads and reads.is_behind and (wait := reads.expected_wait()) > PATIENCE * timeout:
        raise Overloaded(key, name, timeout, f"the queue of loads takes {wait:.3g} s")


def admit_to_mailbox(key: ObjectKey, name: str, timeout: float, depth: int, wait: float) -> None:
    """Reject a call whose turn would come too late.

    Args:
        key: The object.
        name: The handler, or the public method.
        timeout: The call's timeout in seconds.
        depth: The number of calls before it.
        wait: The seconds that these take.

    Raises:
        Overloaded: The expected wait is more than `PATIENCE` of the timeout.
    """
    if wait > PATIENCE * timeout:
        calls = "1 call waits" if depth == 1 else f"{depth:,} calls wait"
        problem = f"{calls} before it, with which it takes {wait:.3g} s"
        raise Overloaded(key, name, timeout, problem)
