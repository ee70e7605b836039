"""Effects: changes that a turn stages besides its state, to be committed with it.

The engine owns them; ``self.ctx`` is the face that handlers see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .._alarms.delivery import Delivery
from .._alarms.recurrence import Recurrence
from .._errors import TooManyMessages
from .._eventloop.current import Dispatcher
from .._keys import ObjectKey
from .._messages.delivery import MessageDelivery
from .._messages.once import OnceTurn
from .._messages.request import MAX_TURN_BYTES, MAX_TURN_MESSAGES, SendRequest
from ..storage import (
    AlarmChanges,
    MessageChanges,
    MessageKey,
    NewAlarm,
    NewMessage,
    StoredAlarm,
)


class Effects:
    """The effects of one turn.

    Args:
        delivery: The alarm that the turn handles, if it is a delivery. The commit at the turn's end
            acknowledges it.
        message: The message that the turn handles, likewise.
        once: The call with a once-key that the turn is, if it is one. That commit records its
            reply.
    """

    __slots__ = (
        "_sent_bytes",
        "alarms",
        "delete",
        "deleted",
        "delivery",
        "message",
        "messages",
        "once",
    )

    def __init__(
        self,
        delivery: Delivery | None = None,
        message: MessageDelivery | None = None,
        once: OnceTurn | None = None,
    ) -> None:
        self.delivery: Delivery | None = delivery
        self.message: MessageDelivery | None = message
        self.once: OnceTurn | None = once
        self._sent_bytes = 0
        self.messages: MessageChanges | None = None
        """The messages that the turn sends, takes back and acknowledges, and its record."""
        if message is not None:
            self.messages = message.changes
        elif once is not None:
            self.messages = once.changes
        self.delete: bool = False
        """The object is to be deleted by the next commit of the turn."""
        self.deleted: bool = False
        """A commit within the turn has deleted the object: it starts over however the turn ends."""
        self.alarms: AlarmChanges | None = None
        if delivery is not None:
            self.alarms = AlarmChanges(acknowledged={delivery.key.name: delivery.claim})

    @property
    def is_indivisible(self) -> bool:
        """True if the turn can have one commit only, since it may be run once more without it."""
        return self.message is not None or self.once is not None

    @property
    def origin(self) -> str | None:
        """The turn's own once-key, or its message; None if it has neither."""
        if self.once is not None:
            return f"once {self.once.request.key.key}"
        return None if self.message is None else f"message {self.message.message.id}"

    def set_alarm(self, name: str, new: NewAlarm | None) -> None:
        """Stage an alarm, or its cancellation if ``new`` is None."""
        self._alarm_changes().set(name, new)

    def end_delivery(self, now: int) -> None:
        """Stage the next firing of the recurring alarm that the turn handles.

        This is the one place where a turn does so, and at its end: unless it has cancelled the
        alarm, or set it itself.
        """
        delivery = self.delivery
        if delivery is None or delivery.recurrence is None or delivery.replaced:
            return
        alarms, name = self._alarm_changes(), delivery.key.name
        if not alarms.supersedes(name):
            alarms.changed[name] = delivery.following(now)

    def alarms_by_its_end(self, now: int) -> AlarmChanges | None:
        """A copy of the staged changes, with the next firing that the turn's end adds."""
        alarms, delivery = self.alarms, self.delivery
        if alarms is None or delivery is None or delivery.recurrence is None or delivery.replaced:
            return alarms
        copy, name = AlarmChanges(), delivery.key.name
        copy.merge(alarms)
        if not copy.supersedes(name):
            copy.changed[name] = delivery.next_firing(now)[0]
        return copy

    def change_alarms(self, changes: AlarmChanges) -> None:
        """Stage changes of alarms, in addition to those staged before."""
        self._alarm_changes().merge(changes)

    def delete_object(self) -> None:
        """Stage the deletion of the object and of its alarms."""
        self.change_alarms(AlarmChanges(clear=True))
        self.delete = True

    def send(self, new: NewMessage) -> None:
        """Stage a message. It replaces one that was staged under its sender key.

        Raises:
            TooManyMessages: The turn has sent as many as it may.
        """
        changes = self._message_changes()
        if new.sender_key is not None:
            changes.sent = [each for each in changes.sent if each.sender_key != new.sender_key]
        size = self._sent_bytes + len(new.arguments)
        if len(changes.sent) >= MAX_TURN_MESSAGES or size > MAX_TURN_BYTES:
            raise TooManyMessages(
                new.to,
                new.handler,
                f"a turn may send {MAX_TURN_MESSAGES:,} messages with {MAX_TURN_BYTES:,} bytes of "
                "arguments; send a message to yourself with the rest of the work",
            )
        self._sent_bytes = size
        changes.send(new)

    def cancel_message(self, sender_key: str) -> bool:
        """Stage the removal of the message that waits under a sender key.

        Returns:
            Whether this turn itself has staged one under it.
        """
        changes = self._message_changes()
        staged = len(changes.sent)
        changes.merge(MessageChanges(cancelled=[sender_key]))
        return len(changes.sent) < staged

    def withdraw_message(self, message: MessageKey) -> None:
        """Stage the removal of a message of the object that must be waiting still."""
        self._message_changes().withdraw(message)

    def take_messages(self) -> MessageChanges | None:
        """Take what was staged, for a commit within the turn."""
        messages, self.messages = self.messages, None
        return messages

    def take_alarms(self) -> AlarmChanges | None:
        """Take the changes of alarms that a commit within the turn makes durable.

        The acknowledgement of the alarm that the turn handles stays for the turn's end, so that the
        alarm is delivered again if the rest of the turn fails; unless the turn has set or cancelled
        that alarm itself.
        """
        delivery, staged = self.delivery, self.alarms
        if staged is None:
            return None
        self.alarms = None
        if delivery is not None and not delivery.replaced:
            name = delivery.key.name
            if staged.supersedes(name):
                delivery.replaced = True
            else:
                # A condition on the alarm itself is for when it is gone.
                changed = dict(staged.changed)
                own = {name: changed.pop(name)} if name in changed else {}
                self.alarms = AlarmChanges(acknowledged=staged.acknowledged, changed=own)
                if not changed:
                    return None
                staged = AlarmChanges(changed=changed)
        return staged

    def _message_changes(self) -> MessageChanges:
        if self.messages is None:
            self.messages = MessageChanges()
        return self.messages

    def _alarm_changes(self) -> AlarmChanges:
        if self.alarms is None:
            self.alarms = AlarmChanges()
        return self.alarms


class ContextHost(Protocol):
    """The object behind a ``ctx``: an activation, or a single turn in a test."""

    @property
    def key(self) -> ObjectKey:
        """The object's identity."""
        ...

    @property
    def runtime(self) -> Dispatcher:
        """The runtime that the object lives in, or its tenant of it."""
        ...

    @property
    def in_turn(self) -> bool:
        """True if the caller is in a turn of the object."""
        ...

    @property
    def effects(self) -> Effects | None:
        """The effects that the turn has staged so far."""
        ...

    def stage(self) -> Effects:
        """The turn's effects, to add to them."""
        ...

    def wall_time(self) -> int:
        """Microseconds since 1970 UTC."""
        ...

    @property
    def recurrences(self) -> Mapping[str, Recurrence]:
        """The schedules of the object's recurring alarms, by name."""
        ...

    async def list_alarms(self) -> list[StoredAlarm]:
        """The alarms that there are when the turn commits what it has staged.

        Raises:
            StorageUnavailable: The storage can't be read.
        """
        ...

    def send(self, request: SendRequest) -> NewMessage:
        """Stage a message in the turn.

        Raises:
            DurableError: It can't be sent.
        """
        ...

    async def find_sent(self, sender_key: str) -> MessageKey | None:
        """The message that the object has waiting under a key.

        Raises:
            StorageUnavailable: The storage can't be read.
        """
        ...

    async def commit_now(self) -> None:
        """Make durable what the turn has done so far."""
        ...
