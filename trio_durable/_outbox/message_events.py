"""Telemetry of messages: sent ones, deliveries, and dead letters.

It exists only in a runtime that has instruments. A message's row has no column for a trace, so the
trace of its sender is kept in memory from `composed` until the commit, when `MessageSent` has it.
"""

from __future__ import annotations

from collections import OrderedDict
from contextvars import Context, copy_context

from .._activations.calls import LocalCalls
from .._activations.submission import Submission
from .._clock import Clock
from .._declarations.records import HandlerDefinition
from .._messages.message import message_id
from .._telemetry.events import MessageBuried, MessageDelivery, MessageSent
from .._telemetry.notifier import Notifier, request
from ..storage import MessageChanges, NewMessage, StoredMessage
from .inbox import Flight

_MAX_TRACES = 10_000
"""Messages that aren't committed yet, those of turns that have failed included."""


class MessageEvents:
    """Reports the messages of one runtime.

    Args:
        notifier: The receiver of the events.
        clock: The time.
    """

    def __init__(self, notifier: Notifier, clock: Clock) -> None:
        self._notifier = notifier
        self._clock = clock
        self._traces: OrderedDict[int, dict[str, str]] = OrderedDict()
        """The traces of messages that aren't committed yet, by token."""
        self._observed: dict[Flight, tuple[MessageDelivery, Context, float]] = {}

    def composed(self, new: NewMessage) -> None:
        """Keep the trace of a message, in the context of its sender."""
        self._traces[new.token] = self._notifier.inject()
        if len(self._traces) > _MAX_TRACES:
            self._traces.popitem(last=False)

    def sent(self, changes: MessageChanges) -> None:
        """Report messages that were committed."""
        for new in changes.sent:
            delay = 0.0 if new.wake_at is None else max(0, new.wake_at - new.sent_at) / 1e6
            trace = self._traces.pop(new.token, {})
            self._notifier.tell(
                MessageSent(new.to, new.handler, message_id(new.token), new.sender, delay, trace)
            )

    def deliver(
        self,
        flight: Flight,
        calls: LocalCalls,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Submission | None:
        """Report that a delivery begins, and deliver in its context."""
        message = flight.stored
        due = message.sent_at if message.wake_at is None else message.wake_at
        event = MessageDelivery(
            message.key.to,
            message.handler,
            message_id(message.key.token),
            message.sender,
            (self._clock.now() - due) / 1e6,
            message.failures + 1,
            handler.expected,
        )
        context = copy_context()
        self._observed[flight] = event, context, context.run(self._notifier.start, event)
        context.run(request.set, event)
        # In a copy: the delivery may end at once, and a context can't be entered twice.
        return context.copy().run(calls.deliver_message, flight, handler, args, kwargs)

    def ended(self, flight: Flight, error: BaseException | None) -> None:
        """Report the end of a delivery, once."""
        observed = self._observed.pop(flight, None)
        if observed is None:
            return
        event, context, began = observed
        duration = self._notifier.now() - began
        if error is None:
            context.run(self._notifier.stop, event, duration)
        else:
            context.run(self._notifier.fail, event, duration, error)

    def buried(self, message: StoredMessage, failures: int) -> None:
        """Report a dead letter."""
        self._notifier.tell(
            MessageBuried(message.key.to, message.handler, message_id(message.key.token), failures)
        )
