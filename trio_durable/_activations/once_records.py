"""Records of once-keys: how long they are kept, and the calls that they stand for."""

from __future__ import annotations

import logging

from .._errors import OnceKeyReused
from .._messages.once import OnceRequest
from ..storage import OnceReply
from .object_type import ObjectType

logger = logging.getLogger("trio_durable.messages")


def expiry(object_type: ObjectType, recorded_at: int) -> int:
    """When the record of a once-key expires, in microseconds since 1970 UTC."""
    return recorded_at + round(object_type.options.remember * 1e6)


def check_stored(request: OnceRequest | OnceReply, stored: OnceReply) -> None:
    """Check that a key was used for the same call.

    Arguments of another release can't be compared. Then what is stored wins.

    Raises:
        OnceKeyReused: It wasn't.
    """
    if stored.handler == request.handler and stored.signature != request.signature:
        logger.warning(
            "%s on %s has parameters that differ from those under whose once-key %r it was called "
            "before; its arguments can't be compared, and the stored reply counts",
            *(request.handler, request.key.to, request.key.key),
        )
        return
    check_same(request, stored)


def check_same(request: OnceRequest | OnceReply, other: OnceRequest | OnceReply) -> None:
    """Check that two calls with one key are the same.

    Raises:
        OnceKeyReused: They aren't.
    """
    if other.handler != request.handler:
        problem = f"a call of {other.handler}"
    elif other.digest != request.digest:
        problem = "the same handler with other arguments"
    else:
        return
    raise OnceKeyReused(request.key.to, request.handler, request.key.key, problem)
