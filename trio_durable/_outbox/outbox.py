"""Outbox: delivers the messages that turns have sent, each in a turn of its receiver.

Prior art: the transactional outbox and the inbox of NServiceBus and Wolverine; the messages of
Restate. Here both ends are in one database, and the receiver has one owner. So a message is removed
in the commit of the turn that handles it, and its effect happens exactly once, without a relay and
without a table of handled messages.

A message takes one of two ways into memory. If all that waits in its lane is in memory, it goes
there right after the commit that has sent it. Else it is read from the table, when there is room.

Invariants:

- A lane in memory is a piece of the table from its head on, in order: see `inboxes`.
- Of a lane one message is in the object's mailbox at a time. The next one follows when the turn of
  the one before has *ended well*; its commit needn't be durable, since the commits of an object are
  based on each other. If that fails, the inbox is forgotten and read again.
- A message that fails isn't passed by a later one of its lane: the lane sleeps until it is due
  again, or until it is a dead letter.
- An inbox is read again only when none of its messages is in flight, so none is delivered twice at
  the same time.
- Nothing here makes an effect happen once: that is the acknowledgement's part, see `Effects`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from .._activations.calls import LocalCalls
from .._activations.object_type import ObjectType
from .._activations.once_runs import OnceRuns
from .._activations.services import Services
from .._errors import CallTimeout, StorageUnavailable
from .._eventloop.loop import Expired
from .._eventloop.runner import Runner
from .._keys import ObjectKey
from .._messages.delivery import MessageDelivery
from .._messages.request import SendRequest
from .._messages.statistics import OutboxStatistics
from ..storage import (
    MessageChanges,
    MessageKey,
    NewMessage,
    OnceReply,
    Reader,
    StorageFault,
    StoredMessage,
)
from .composing import Composer
from .deliverer import RETRY_SECONDS, Deliverer
from .feed import Feed
from .lanes import Lanes
from .message_codec import Arguments, MessageCodecs
from .message_events import MessageEvents
from .sleepers import Sleepers

logger = logging.getLogger("trio_durable.messages")


class Outbox:
    """The messages of one runtime: its `Mail`, and the `MessageListener` of its group commit.

    Args:
        services: The runtime's parts.
        runner: The reader's.
        reader: The side of the storage that reads messages.
        calls: Returns the calls of a type's objects, by its stored name.
        is_here: False if an object lives in another process.
        hint: Lets the process with an object know that messages wait for it.
        codecs: The codecs of messages.
        composer: Makes messages.
        once: Calls with once-keys, which may wait for messages.
        polling_interval: Seconds between looks at the messages that sleep.
        location: The storage, for errors.
    """

    def __init__(
        self,
        services: Services,
        runner: Runner,
        reader: Reader,
        calls: Callable[[str], LocalCalls],
        is_here: Callable[[ObjectKey], bool],
        hint: Callable[[ObjectKey], Awaitable[None]],
        codecs: MessageCodecs,
        composer: Composer,
        once: OnceRuns,
        polling_interval: float,
        location: str,
    ) -> None:
        self._services = services
        self._once = once
        self._runner = runner
        self._reader = reader
        self._composer = composer
        self._codecs = codecs
        self._location = location
        self._is_here = is_here
        self._hint = hint
        self._hinted: dict[ObjectKey, bool] = {}
        """Objects elsewhere whose processes are being told of messages: True if there are more."""
        self._lanes = lanes = Lanes(services, is_here)
        loop, clock = services.loop, services.clock
        self._sleepers = Sleepers(loop, clock, runner, reader, lanes, polling_interval)
        self._feed = Feed(loop, clock, runner, reader, lanes, self._sleepers)
        notifier = services.notifier
        self._observation = None if notifier is None else MessageEvents(notifier, clock)
        self._deliverer = Deliverer(
            services, calls, codecs, composer, once, lanes, self._sleepers, self._observation
        )

    def statistics(self) -> OutboxStatistics:
        """A snapshot of the counters."""
        deliverer = self._deliverer
        return OutboxStatistics(
            waiting=self._lanes.inboxes.messages,
            in_flight=deliverer.in_flight,
            delivered=deliverer.delivered,
            failed=deliverer.failed,
            buried=deliverer.buried,
        )

    # --- the messages of turns: see `Mail` -------------------------------------------------------

    def compose(
        self,
        request: SendRequest,
        tenant: str,
        now: int,
        sender: ObjectKey | None,
        delivery: MessageDelivery | None,
    ) -> NewMessage:
        """See `Mail.compose`."""
        new = self._composer.compose(request, tenant, now, sender, delivery)
        if self._observation is not None:
            self._observation.composed(new)
        return new

    async def find_sent(self, sender: ObjectKey, sender_key: str) -> MessageKey | None:
        """See `Mail.find_sent`."""
        try:
            return await self._runner.run(partial(self._reader.find_sent, sender, sender_key))
        except StorageFault as fault:
            raise StorageUnavailable(self._location, str(fault)) from fault

    # --- messages from outside -------------------------------------------------------------------

    async def send(
        self, new: NewMessage, timeout: float | None, promise: OnceReply | None = None
    ) -> None:
        """Send a message from outside of turns; return when it is durable.

        Args:
            new: The message.
            timeout: Seconds, or None.
            promise: The promise of its reply, if it has a once-key.

        Raises:
            CallTimeout: It isn't within the timeout.
            StaleObject: Its once-key is taken.
            PersistenceError: It could not be made durable.
        """
        loop, deadlines = self._services.loop, self._services.deadlines
        waiter = loop.waiter()
        recorded = [] if promise is None else [promise]
        self._deliverer.commit(new.to, MessageChanges(sent=[new], recorded=recorded), waiter)
        if timeout is not None:
            deadlines.watch(waiter, loop.now(), timeout)
        try:
            await waiter.wait()
        except Expired:
            problem = "the message isn't durable yet, and may be sent all the same"
            raise CallTimeout(new.to, new.handler, timeout or 0, problem) from None

    def type_of(self, to: ObjectKey) -> ObjectType:
        """The object type of a receiver."""
        return self._composer.type_of(to.type_name)

    def timeout_of(self, to: ObjectKey) -> float | None:
        """How long a sender waits until its message is durable, in seconds."""
        return self.type_of(to).timeout

    def rescan(self) -> None:
        """Find all receivers with messages once more: other objects may be here than before."""
        self._once.moved(self._is_here)
        self._feed.rescan()
        self._sleepers.rescan()

    def rescan_tenant(self, tenant: str) -> None:
        """Find the receivers of a tenant once more: it was dropped, or should have been."""
        self._feed.rescan_tenant(tenant)

    def hinted(self, to: ObjectKey) -> None:
        """Another process has sent messages to an object."""
        self._lanes.hinted(to)

    def look(self, to: ObjectKey) -> None:
        """Read what waits for an object, since it has messages that memory doesn't know of."""
        self._lanes.look(to)

    async def settled(self, to: ObjectKey) -> None:
        """Return when nothing of an object is delivered or may be. Sleeping ones don't count."""
        while not self._lanes.is_settled(to):
            await self._lanes.changed()

    async def drain(self, most: int) -> bool:
        """Return when nothing is delivered or may be, with the messages that deliveries send.

        Messages that sleep beyond now don't count.

        Args:
            most: The number of deliveries at which this gives up.

        Returns:
            False if it has given up.
        """
        end = self._deliverer.outcomes + most
        while not (self._lanes.are_settled and self._sleepers.are_settled(self._now())):
            if self._deliverer.outcomes >= end:
                return False
            await self._lanes.changed()
        return True

    def _now(self) -> int:
        return self._services.clock.now()

    def arguments(self, stored: StoredMessage) -> Arguments:
        """The arguments of a stored message.

        Raises:
            UnknownObjectType: The runtime doesn't know the receiver's type.
            UnknownHandler: The type has no such handler.
            Unfit: They don't fit the handler.
        """
        object_type = self._composer.type_of(stored.key.to.type_name)
        handler = object_type.handler(stored.handler)
        return self._codecs.of(object_type, handler).decode(stored.arguments)

    # --- what was committed: see `MessageListener` -----------------------------------------------

    def sent(self, changes: MessageChanges) -> None:
        """See `MessageListener.sent`."""
        if changes.acknowledged:
            self._deliverer.committed += 1
        if changes.recorded:
            self._once.recorded(changes.recorded)
        if self._observation is not None:
            self._observation.sent(changes)
        lanes = self._lanes
        for new in changes.sent:
            if not self._is_here(new.to):
                self._tell(new.to)
            elif new.to.type_name not in lanes.unknown_types:
                if new.wake_at is None:
                    lanes.arrived(_stored(new))
                else:
                    self._sleepers.expect(new.wake_at, new.key)

    def _tell(self, to: ObjectKey) -> None:
        """Let the process with an object know that messages wait for it."""
        if to in self._hinted:
            self._hinted[to] = True
            return
        self._hinted[to] = False
        name = f"trio_durable hint of messages to {to}"
        self._services.tasks.start(partial(self._give_hint, to), name, partial(self._gave_none, to))

    async def _give_hint(self, to: ObjectKey) -> None:
        while True:
            self._hinted[to] = False
            await self._hint(to)
            if not self._hinted[to]:
                del self._hinted[to]
                return

    def _gave_none(self, to: ObjectKey, error: BaseException) -> None:
        """The answer isn't known. Its next owner reads what waits; so does this one at its next
        look.

        The runtime closes, or the object has no owner now.
        """
        self._hinted.pop(to, None)
        logger.debug("the owner of %s doesn't know of its messages yet: %s", to, error)

    def deleted(self, key: ObjectKey) -> None:
        """See `MessageListener.deleted`."""
        self._lanes.deleted(key)

    def unsure(self, key: ObjectKey, changes: MessageChanges | None) -> None:
        """See `MessageListener.unsure`."""
        receivers = {key} if changes is None else {key, *(new.to for new in changes.sent)}
        for to in receivers:
            if self._is_here(to):
                self._lanes.look(to)
            else:
                self._tell(to)

    # --- tasks -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver messages, until cancelled."""
        async with anyio.create_task_group() as tasks:
            deliverer = self._deliverer
            for part in (self._feed.run, self._sleepers.run, deliverer.deferrals.run):
                tasks.start_soon(self._retrying, part)
            tasks.start_soon(deliverer.suspects.run)
            await deliverer.run()

    def stop(self) -> None:
        """Begin no more deliveries."""
        self._deliverer.stop()

    async def _retrying(self, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except StorageFault as fault:
                logger.warning("could not read or defer messages: %s", fault)
                await anyio.sleep(RETRY_SECONDS)


def _stored(new: NewMessage) -> StoredMessage:
    """A new message as it is stored."""
    return StoredMessage(
        new.key,
        new.handler,
        new.arguments,
        new.sent_at,
        new.wake_at,
        failures=0,
        crashes=0,
        hops=new.hops,
        sender=new.sender,
        reply_to=new.reply_to,
        failed_to=new.failed_to,
        sender_key=new.sender_key,
        once_key=new.once_key,
        last_error=None,
    )
