"""A request that a peer has sent, and its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from .frames import Message

_REPLY: Final = b'["r",%d,%b]'
_ERROR: Final = b'["e",%d,%b]'


class Sender(Protocol):
    """The process that has sent a request, for requests in the other direction."""

    async def request(self, body: bytes, timeout: float | None, grace: float = 0.0) -> Any:
        """See `Peer.request`."""
        ...

    def when_ended(self, call: Callable[[], object]) -> None:
        """See `Peer.when_ended`."""
        ...

    def abort(self, reason: str) -> None:
        """See `Peer.abort`."""
        ...


class Incoming:
    """A request of the peer, to be answered once with `reply` or `fail`, from any task.

    After the first answer, and after the end of the link, answers are ignored.
    """

    __slots__ = ("_answer", "is_answered", "is_withdrawn", "message", "sender", "withdrawn")

    message: Message
    """The request: ``["c", id, seconds left or None, …]``."""
    sender: Sender
    """The peer."""
    is_answered: bool
    """It needs no answer any more."""
    is_withdrawn: bool
    """The caller was cancelled or timed out, or the link has ended. The request must be answered
    all the same."""
    withdrawn: Callable[[], object] | None
    """Called when that happens, from the task that reads. Its exceptions are logged."""

    def __init__(
        self, answer: Callable[[int, bytes], object], message: Message, sender: Sender
    ) -> None:
        self._answer = answer
        self.sender = sender
        self.message = message
        self.is_answered = self.is_withdrawn = False
        self.withdrawn = None

    @property
    def seconds_left(self) -> float | None:
        """The rest of the caller's timeout when the request was sent; None if it has none."""
        seconds: float | None = self.message[2]
        return seconds

    def reply(self, value: bytes) -> None:
        """Answer with a JSON value.

        Raises:
            MessageTooLarge: The peer doesn't accept it. The request isn't answered yet.
        """
        self._send(_REPLY, value)

    def fail(self, value: bytes) -> None:
        """Answer with an error, a JSON value.

        Raises:
            MessageTooLarge: See `reply`.
        """
        self._send(_ERROR, value)

    def _send(self, form: bytes, value: bytes) -> None:
        if not self.is_answered:
            request_id = self.message[1]
            if self.is_withdrawn:
                form, value = _REPLY, b"null"
            self._answer(request_id, form % (request_id, value))
            self.is_answered = True
            self.withdrawn = None

    def withdraw(self) -> None:
        """Note that the caller was cancelled or timed out. Exceptions of `withdrawn` pass."""
        if not self.is_withdrawn:
            self.is_withdrawn = True
            if self.withdrawn is not None:
                self.withdrawn()

    def detach(self) -> None:
        """The link has ended, so there can be no answer."""
        self.is_answered = True
