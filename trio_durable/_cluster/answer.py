"""Answer to a call of another process: given when its turn has ended and is durable.

Values and errors alike are checked against the lease under which the call began.
"""

from __future__ import annotations

import orjson

from .._activations.services import Services
from .._activations.submission import Submitted
from .._activations.tenure import check_lease
from .._errors import DurableError, ReplyError, RuntimeClosed
from .._eventloop.loop import CallbackWaiter
from .._keys import ObjectKey
from ..storage import Lease
from .incoming import Incoming
from .link import MessageTooLarge
from .remote_errors import encode_error
from .router import CUT_OFF, MOVED

MOVED_ANSWER, CUT_OFF_ANSWER = orjson.dumps(MOVED), orjson.dumps(CUT_OFF)

_NOTHING = b"null"


def fail(incoming: Incoming, error: BaseException) -> None:
    """Answer with an error; with a shorter one if it is too large."""
    try:
        incoming.fail(encode_error(error))
    except MessageTooLarge as too_large:
        incoming.fail(encode_error(too_large))


def give(
    incoming: Incoming,
    services: Services,
    lease: Lease | None,
    key: ObjectKey,
    name: str,
    value: object,
    error: BaseException | None,
) -> None:
    """Answer with the outcome of a turn that has begun.

    Args:
        incoming: The call.
        services: The runtime's parts.
        lease: The lease under which it began, if the runtime has one.
        key: The object.
        name: The handler.
        value: Its reply, as JSON.
        error: The error in its place.
    """
    try:
        if lease is not None:
            check_lease(lease, key, name)
        if error is None:
            assert isinstance(value, bytes)
            incoming.reply(value)
        elif isinstance(error, RuntimeClosed) and services.closing:
            incoming.fail(CUT_OFF_ANSWER)
        elif isinstance(error, (KeyboardInterrupt, SystemExit)):  # meant for this process
            services.exit(error)
            incoming.fail(CUT_OFF_ANSWER)
        else:
            fail(incoming, error)
    except MessageTooLarge as too_large:
        fail(incoming, ReplyError(key, name, str(too_large)))
    except DurableError as problem:
        fail(incoming, problem)


class Answer(CallbackWaiter):
    """The answer to a call whose turn hasn't begun, or isn't durable. Its value is the JSON.

    Args:
        incoming: The call.
        services: The runtime's parts.
        lease: See `give`.
        key: The object.
        name: The handler.
    """

    __slots__ = ("_incoming", "_key", "_lease", "_name", "_services", "has_run", "submission")

    def __init__(
        self,
        incoming: Incoming,
        services: Services,
        lease: Lease | None,
        key: ObjectKey,
        name: str,
    ) -> None:
        super().__init__(Answer._give)
        self._incoming = incoming
        self._services = services
        self._key = key
        self._name = name
        self._lease = lease
        self.has_run = False
        """The turn has ended, and its commit is on its way."""
        self.submission: Submitted | None = None
        """The call in its mailbox."""
        incoming.withdrawn = self.withdraw

    def withdraw(self) -> None:
        """The caller has gone. Answer, unless the turn runs: until its end it takes a place."""
        submission = self.submission
        if submission is not None and not submission.has_begun:
            submission.withdraw()
            self.settle(_NOTHING)
        elif self.has_run:
            self.settle(_NOTHING)

    def _give(self) -> None:
        incoming, submission, error = self._incoming, self.submission, self.error
        self.submission = self.expiry = incoming.withdrawn = None
        has_begun = self.has_run
        try:
            if submission is not None:
                has_begun = submission.has_begun
                submission.end()
            if isinstance(error, RuntimeClosed) and self._services.closing and not has_begun:
                incoming.fail(MOVED_ANSWER)
                return
            give(incoming, self._services, self._lease, self._key, self._name, self.value, error)
        finally:
            self.error, self.value = None, _NOTHING
            del error  # or it, its traceback and this frame would be a cycle
