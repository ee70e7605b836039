"""Deliverer of messages: from the head of a lane to the outcome of the receiver's turn.

The acknowledgement isn't here. It is part of the commit of that turn, which `Effects` stages before
the handler runs. This module decides about failures: a message sleeps, and its lane with it, or it
becomes a dead letter.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TypeAlias

from .._activations.calls import LocalCalls
from .._activations.once_runs import OnceRuns
from .._activations.services import Services
from .._declarations.records import HandlerDefinition
from .._errors import (
    ActivationFailed,
    CallCycle,
    DurableError,
    OwnerLost,
    PersistenceError,
    RuntimeClosed,
    StateDecodeError,
    TenantDropped,
    TurnInterrupted,
    UnknownObjectType,
)
from .._eventloop.loop import CallbackWaiter, Waiter
from .._keys import ObjectKey
from .._messages.request import MAX_HOPS, WARNED_HOPS
from .._persistence.other_commits import OtherCommits
from .._persistence.ticket import Ticket
from .._text import error_summary
from ..storage import Burial, Deferral, MessageChanges, OnceKey, StoredMessage
from .composing import Composer
from .deferrals import Deferrals
from .inbox import Flight, Lane
from .lanes import Lanes
from .message_codec import MessageCodec, MessageCodecs
from .message_events import MessageEvents
from .sleepers import Sleepers
from .suspects import Suspects

logger = logging.getLogger("trio_durable.messages")

MAX_RUNNING = 256
"""Messages that are in mailboxes at the same time."""
MAX_IN_FLIGHT = 1024
"""Deliveries whose outcome isn't durable yet. Else they would take memory without a bound while the
disk hangs, and each call of others would wait for all their commits."""
MAX_OF_ONE = 256
"""The same of one receiver."""
MAX_OF_ONE_BESIDE_CALLS = 4
"""The same while calls commit changes, which would wait for the turns of a crowd of messages."""
DELIVERIES_PER_SLICE = 8
"""How many deliveries begin without a checkpoint, if they take no longer than a slice."""
RETRY_SECONDS = 1.0
"""The pause after a fault of the storage."""
UNCOUNTED_SECONDS = 10.0
"""The pause after a failure that isn't the handler's, about."""
PATIENCE_MICROSECONDS = 24 * 3600 * 10**6
"""How long a message that this release can't handle waits for one that can."""
MAX_ERROR_CHARS = 1000

_Route: TypeAlias = "tuple[LocalCalls, HandlerDefinition, MessageCodec]"


class OutsideCommit:
    """The owner of a ticket that changes messages and no object in memory."""

    def __init__(self, key: ObjectKey) -> None:
        self.key = key
        self.turn_event = None
        self.revision: int | None = None
        self.epoch = 0
        self.gate: Ticket | None = None

    def committed(self, ticket: Ticket) -> None:
        """See `TicketOwner.committed`."""

    def commit_failed(self) -> None:
        """See `TicketOwner.commit_failed`."""


class Deliverer:
    """Delivers messages, and decides about failures.

    Args:
        services: The runtime's parts.
        calls: Returns the calls of a type's objects, by its stored name.
        codecs: The codecs of messages.
        composer: Makes answers.
        once: Calls with once-keys, which may wait for messages.
        lanes: Where the messages are.
        sleepers: Where those go that failed.
        observation: Reports deliveries, if there are instruments.
    """

    def __init__(
        self,
        services: Services,
        calls: Callable[[str], LocalCalls],
        codecs: MessageCodecs,
        composer: Composer,
        once: OnceRuns,
        lanes: Lanes,
        sleepers: Sleepers,
        observation: MessageEvents | None,
    ) -> None:
        self._services = services
        self._observation = observation
        self._calls = calls
        self._codecs = codecs
        self._composer = composer
        self._once = once
        self._lanes = lanes
        self._routes: dict[tuple[str, str], _Route] = {}
        self._sleepers = sleepers
        self.deferrals = Deferrals(services.loop, services.group_commit, self._deferred)
        self.suspects = Suspects(services, lanes, self._delay_of, self._begin_suspect)
        self._running = 0
        self._in_flight: dict[Flight, None] = {}
        self._is_stopped = False
        self.committed = 0
        """Commits of turns that messages have begun."""
        self._other_commits = OtherCommits(services.group_commit)
        self.delivered = 0
        self.failed = 0
        self.buried = 0

    @property
    def in_flight(self) -> int:
        """The number of deliveries whose outcome isn't durable."""
        return len(self._in_flight)

    @property
    def outcomes(self) -> int:
        """The number of deliveries that have ended, well or not, since the runtime opened."""
        return self.delivered + self.failed

    def stop(self) -> None:
        """Begin no more deliveries."""
        self._is_stopped = True

    # --- deliveries ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver what is ready, until cancelled."""
        lanes, clock = self._lanes, self._services.slice_clock
        while True:
            share = clock.slice(clock.end_of_pass())
            while lanes.ready and self._has_room:
                self._begin(lanes.next_ready())
                share.turns += 1
                if share.turns >= DELIVERIES_PER_SLICE or share.is_late:
                    await self._services.loop.checkpoint()
                    share = clock.slice(clock.end_of_pass())
            await lanes.has_ready.wait()

    @property
    def _has_room(self) -> bool:
        """True if another delivery may begin."""
        is_bounded = self._running < MAX_RUNNING and len(self._in_flight) < MAX_IN_FLIGHT
        return is_bounded and not self._is_stopped

    def _begin(self, lane: Lane) -> None:
        if not lane.may_deliver or lane.inbox.is_stale:
            return
        if not self._lanes.serves(lane.inbox.key):  # it has moved to another process
            self._lanes.inboxes.discard(lane.inbox)
            self._lanes.tell_watchers()
            return
        if len(lane.inbox.in_flight) >= self._most_of_one():
            if lane.inbox.held is None:
                lane.inbox.held = []
            lane.inbox.held.append(lane)
            return
        message = self._next(lane)
        if message is not None:
            self._hand_over(self._take(lane, message))
            if lane.may_deliver:
                self._lanes.note_ready(lane)

    def _most_of_one(self) -> int:
        """How many deliveries to one receiver may wait for their commits."""
        now = self._services.loop.now()
        are_calls = self._other_commits.are_expected(self.committed, now)
        return MAX_OF_ONE_BESIDE_CALLS if are_calls else MAX_OF_ONE

    def _next(self, lane: Lane) -> StoredMessage | None:
        """The next message of a lane; None if it is a suspect, which waits for its turn."""
        must_wait, first = self.suspects.must_wait, lane.queue[0]
        if not must_wait(lane, first):
            return first
        return next((each for each in lane.possible if not must_wait(lane, each)), None)

    def _take(self, lane: Lane, message: StoredMessage) -> Flight:
        self._lanes.inboxes.take(lane, message)
        flight = Flight(self, lane, message)
        lane.running += 1
        lane.inbox.in_flight[flight] = None
        self._running += 1
        self._in_flight[flight] = None
        return flight

    def _begin_suspect(self, lane: Lane, message: StoredMessage) -> Flight:
        """See `Suspects`."""
        flight = self._take(lane, message)
        flight.over = self._services.loop.waiter()
        self._hand_over(flight)
        return flight

    def _delay_of(self, message: StoredMessage) -> float | None:
        """See `Suspects`."""
        try:
            handler = self._route_of(message)[1]
        except DurableError:
            return None  # this release has none
        if handler.retry.is_fatal(message.crashes):
            return None
        return handler.retry.delay(message.crashes) if message.crashes else 0.0

    def _route_of(self, message: StoredMessage) -> _Route:
        """The requirements for delivering to a handler. They are the same for each message."""
        type_name, name = message.key.to.type_name, message.handler
        route = self._routes.get((type_name, name))
        if route is None:
            calls = self._calls(type_name)
            handler = calls.object_type.handler(name)
            route = calls, handler, self._codecs.of(calls.object_type, handler)
            self._routes[type_name, name] = route
        return route

    def _hand_over(self, flight: Flight) -> None:
        """Hand a message to its object, if this release can handle it."""
        message, to = flight.stored, flight.stored.key.to
        try:
            calls, handler, codec = self._route_of(message)
            args, kwargs = codec.decode(message.arguments)
        except UnknownObjectType as error:
            self._lanes.unknown_types.add(to.type_name)
            logger.warning("messages to %s wait: %s", to.type_name, error)
            self._lanes.inboxes.discard(flight.lane.inbox)
            self._finish(flight)
            return
        except Exception as error:  # noqa: BLE001  # validators may raise anything
            self._wait_for_release(flight, error)
            return
        if message.hops >= MAX_HOPS:
            self._bury(flight, message.failures, f"it is the {message.hops:,}th in succession")
            return
        if message.crashes and handler.retry.is_fatal(message.crashes):
            crashes = f"the process died in each of its last {message.crashes} deliveries"
            self._bury(flight, message.failures + message.crashes, crashes)
            return
        if message.hops and message.hops % WARNED_HOPS == 0:
            logger.warning(
                "message %s to %s is the %dth in succession, each sent by the turn of the one "
                "before; after %d it is a dead letter",
                *(message.handler, to, message.hops, MAX_HOPS),
            )
        flight.handler = handler
        try:
            if self._observation is None:
                flight.submission = calls.deliver_message(flight, handler, args, kwargs)
            else:
                flight.submission = self._observation.deliver(flight, calls, handler, args, kwargs)
        except Exception as error:  # noqa: BLE001  # the object isn't here, or its tenant goes
            flight.fail(error)

    def turn_ended(self, flight: Flight) -> None:
        """See `Tower.turn_ended`. The next one may follow."""
        if not flight.has_run:
            flight.has_run = True
            self._stop_running(flight)
            self._lanes.advance(flight.lane)

    def _stop_running(self, flight: Flight) -> None:
        flight.lane.running -= 1
        self._running -= 1
        self._lanes.has_ready.set()

    def ended(self, flight: Flight) -> None:
        """See `Tower.ended`."""
        error = flight.error
        self._report_end(flight, error)
        if error is None:
            self.delivered += 1
            flight.is_decided = True
            self._finish(flight)
        else:
            flight.error = None
            self._failed(flight, error)

    def _report_end(self, flight: Flight, error: BaseException | None) -> None:
        if self._observation is not None:
            self._observation.ended(flight, error)

    def _finish(self, flight: Flight) -> None:
        """A delivery is over, and so is what became of it."""
        if self._in_flight.pop(flight, self) is self:
            return
        lane, inbox = flight.lane, flight.lane.inbox
        if not flight.has_run:
            flight.has_run = True
            self._stop_running(flight)
        inbox.in_flight.pop(flight, None)
        if inbox.held is not None:
            held, inbox.held = inbox.held, None
            for each in held:
                self._lanes.note_ready(each)
        if self._lanes.ready:
            self._lanes.has_ready.set()  # there may be room for it now
        flight.submission = None  # or the two would be a cycle
        if flight.over is not None:
            flight.over.settle()
        self._lanes.inboxes.ended(inbox, flight.stored)
        if inbox.lanes.get(lane.name) is lane:
            self._lanes.advance(lane)
        else:
            self._lanes.let_go(inbox)
        self._lanes.reread(inbox)
        self._lanes.tell_watchers()

    # --- failures --------------------------------------------------------------------------------

    def _wait_for_release(self, flight: Flight, error: Exception) -> None:
        """Let a message wait that this release can't handle: a newer one may, for a day."""
        message, text = flight.stored, _text(error)
        if self._services.clock.now() - message.sent_at > PATIENCE_MICROSECONDS:
            self._bury(flight, message.failures, text)
        else:
            self._defer_uncounted(flight, text)

    def _failed(self, flight: Flight, error: BaseException) -> None:
        """Decide what becomes of a message whose delivery has failed."""
        inbox, message, handler = flight.lane.inbox, flight.stored, flight.handler
        assert handler is not None
        if isinstance(error, (RuntimeClosed, TenantDropped)):
            self._lanes.inboxes.discard(inbox)
            self._finish(flight)
        elif (
            flight.has_run
            or not isinstance(error, Exception)
            or isinstance(error, (PersistenceError, OwnerLost, TurnInterrupted))
        ):
            self._lost(flight)
        elif isinstance(error, (ActivationFailed, StateDecodeError, CallCycle)):
            self._defer_uncounted(flight, _text(error))
        else:
            self.failed += 1
            failures, text = message.failures + 1, _text(error)
            if isinstance(error, handler.expected) or handler.retry.is_exhausted(failures):
                self._bury(flight, failures, text)
            else:
                self._defer(flight, handler.retry.delay(failures), failures, text)

    def _lost(self, lost: Flight) -> None:
        """Nothing of a delivery was stored, as far as is known.

        The messages behind it in the mailbox would overtake it, so they are withdrawn.
        """
        inbox = lost.lane.inbox
        self._lanes.invalidate(inbox, RETRY_SECONDS)
        for flight in list(inbox.in_flight):
            if flight is lost:
                self._give_back(flight)
            elif not flight.has_run and flight.withdraw():
                self._report_end(flight, _overtaken(flight))
                self._give_back(flight)

    def _give_back(self, flight: Flight) -> None:
        """A delivery has ended, and the message waits as before."""
        message = flight.stored
        if not flight.lane.name and message.wake_at is not None:
            # It isn't read with its inbox, as one that sleeps.
            wake_at = self._services.clock.now() + round(RETRY_SECONDS * 1e6)
            self._sleepers.expect(wake_at, message.key)
        self._finish(flight)

    def _defer(self, flight: Flight, seconds: float, failures: int, error: str) -> None:
        """Let the message, and its lane, sleep."""
        wake_at = self._services.clock.now() + round(seconds * 1e6)
        deferral = Deferral(flight.stored.key, wake_at, failures, error)
        logger.info(
            "message %s to %s has failed, and is tried again in %.1f s: %s",
            *(flight.stored.handler, flight.stored.key.to, seconds, error),
        )
        flight.is_decided = True
        self.deferrals.add(flight, deferral)

    def _deferred(self, flight: Flight, deferral: Deferral) -> None:
        """A message sleeps, and so does its lane."""
        lane = flight.lane
        assert deferral.wake_at is not None
        if lane.name and lane.inbox.lanes.get(lane.name) is lane and not lane.inbox.is_stale:
            self._lanes.fall_asleep(lane)
        self._sleepers.expect(deferral.wake_at, flight.stored.key)
        self._finish(flight)

    def _defer_uncounted(self, flight: Flight, error: str) -> None:
        """Let it sleep after a failure that isn't the handler's."""
        seconds = UNCOUNTED_SECONDS * random.uniform(0.5, 1)  # noqa: S311  # jitter
        self._defer(flight, seconds, flight.stored.failures, error)

    def _bury(self, flight: Flight, failures: int, error: str) -> None:
        """Make the message a dead letter; its lane goes on when that is durable."""
        message = flight.stored
        key, now = message.key.to, self._services.clock.now()
        changes = MessageChanges(buried=[Burial(message.key, failures, error)])
        if message.failed_to is not None and message.sender is not None:
            try:
                changes.send(self._composer.failed(message, failures, error, now))
            except DurableError as problem:
                logger.warning("nobody learns of the death of a message to %s: %s", key, problem)
        logger.error(
            "message %s to %s is a dead letter after %d attempts: %s",
            *(message.handler, key, failures, error),
        )

        flight.is_decided = True

        def ended(waiter: Waiter) -> None:
            if waiter.error is None:
                self.buried += 1
                if message.once_key is not None:
                    once_key = OnceKey(key, message.once_key)
                    self._once.died(once_key, message.key.token, error)
                if self._observation is not None:
                    self._observation.buried(message, failures)
            else:
                waiter.error = None
                flight.is_decided = False
                self._lost(flight)
            self._finish(flight)

        self.commit(key, changes, CallbackWaiter(ended))

    def commit(self, key: ObjectKey, changes: MessageChanges, waiter: Waiter) -> None:
        """Commit changes of messages from outside of turns; ``waiter`` ends when it is durable."""
        owner = OutsideCommit(key)
        try:
            ticket = self._services.group_commit.submit(owner, None, False, messages=changes)
        except RuntimeClosed as error:
            waiter.fail(error)
        else:
            ticket.hold(waiter)

    def answer(self, flight: Flight, result: object) -> None:
        """See `Tower.answer`: in the commit of that turn.

        It is sent to the message's sender, and recorded under its once-key.

        Raises:
            InvalidMessage: It can't be sent, so the turn fails.
            ReplyError: It can't be recorded, likewise.
        """
        stored, handler = flight.stored, flight.handler
        if stored.once_key is not None:
            assert handler is not None
            object_type = self._composer.type_of(stored.key.to.type_name)
            reply = self._once.reply(object_type, handler, stored, result)
            flight.changes.record(reply)
        if stored.reply_to is not None and stored.sender is not None:
            now = self._services.clock.now()
            flight.changes.send(self._composer.reply(stored, result, now))


def _overtaken(flight: Flight) -> PersistenceError:
    """The error of a message that is delivered again, since one before it could not be stored."""
    key = flight.stored.key.to
    return PersistenceError(key, "save", "an earlier message's outcome could not be saved")


def _text(error: Exception) -> str:
    """The text of an error, as it is stored."""
    return error_summary(error)[:MAX_ERROR_CHARS]
