"""Outcomes of a request over a link, other than a value."""

from __future__ import annotations

from .link import LinkEnd


class RequestFailed(Exception):
    """Base of the outcomes without an answer."""


class NeverRan(RequestFailed):
    """The link has ended, and the peer hasn't accepted the request. It can be sent elsewhere."""

    def __init__(self, end: LinkEnd) -> None:
        super().__init__(end)
        self.end = end


class OutcomeUnknown(RequestFailed):
    """The link has ended after the request was sent. The peer may have accepted it."""

    def __init__(self, end: LinkEnd) -> None:
        super().__init__(end)
        self.end = end


class NoCapacity(RequestFailed):
    """The peer had no place for the request within its timeout. It never ran."""


class NoReply(RequestFailed):
    """No answer came within the timeout.

    Attributes:
        was_sent: False if the request never ran, because it was still in the queue of the link.
    """

    def __init__(self, was_sent: bool) -> None:
        super().__init__(was_sent)
        self.was_sent = was_sent


class ErrorReply(Exception):
    """The peer has answered with an error.

    Attributes:
        value: The error, a JSON value that the peer's layer above has made; None stands for a fault
            in the peer, whose log has it.
    """

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = value
