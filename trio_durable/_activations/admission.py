"""Whether a call is let in, or told at once that it would hardly be done in time.

There are three lines in which calls wait: for their object's turns, for the reader that loads it,
and for the writer that makes its change durable. The first holds no more than its callers; but what
waits for the reader or the writer stays there when its caller has gone, so without a bound it would
grow for as long as more comes than the storage can do. See `wait_estimate` for when a line is
too long.

A call is refused before it is anywhere, so nothing is left of it. Alarms aren't refused: they are
claimed only when there is room.
"""

from __future__ import annotations

from .._errors import Overloaded
from .._keys import ObjectKey
from .._persistence.wait_estimate import PATIENCE
from .activation import Activation
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
    """Refuse a call that would have to wait for the storage for too long.

    Args:
        services: The runtime's.
        key: The object.
        name: What is called.
        timeout: The call's, in seconds; without one, it is let in.
        saves: Whether it may change anything.
        loads: Whether the object may have to be loaded for it.

    Raises:
        Overloaded: It would hardly be done in time.
    """
    commits, reads = services.group_commit, services.batched_load
    if timeout is None:
        return
    if saves and commits.is_behind and (wait := commits.expected_wait()) > PATIENCE * timeout:
        raise Overloaded(key, name, timeout, f"what waits to be saved takes {wait:.3g} s")
    if loads and reads.is_behind and (wait := reads.expected_wait()) > PATIENCE * timeout:
        raise Overloaded(key, name, timeout, f"what waits to be loaded takes {wait:.3g} s")


def admit_to(activation: Activation, name: str, timeout: float) -> None:
    """Refuse a call whose turn would come too late.

    Raises:
        Overloaded: It would hardly be done in time.
    """
    wait = activation.expected_wait()
    if wait > PATIENCE * timeout:
        problem = f"{activation.depth:,} calls wait before it, with which it takes {wait:.3g} s"
        raise Overloaded(activation.key, name, timeout, problem)
