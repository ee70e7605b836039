"""Records of messages between objects, of dead messages, and of once-keys.

Times, names and texts are as in `_records`. Arguments and replies are JSON in UTF-8, which a
storage keeps exactly. The contract sets no bound for them; a runtime limits arguments and replies
to 64 kB each. Names of handlers, sender keys and once-keys have 1 to 512 bytes of UTF-8.

A *lane* is a sequence of messages to one object that are delivered one after the other, in the
order in which they were committed. Its name is that of the sender, see `lane_of`. Messages that
wait for no other have no lane: their ``lane`` is "".
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, TypeVar

import attrs

from .._keys import ObjectKey
from .._random_bits import random_bits

T = TypeVar("T")

RECEIVER_DELETED = "the receiver was deleted while the message waited"
"""The error of a message that became a dead letter because its receiver was deleted."""


def new_token() -> int:
    """A random token for a new message, unique with overwhelming probability."""
    return random_bits()


def lane_of(sender: ObjectKey) -> str:
    """The lane of the messages from ``sender``; up to 1025 bytes."""
    return f"{sender.type_name}/{sender.object_id}"


class MessageKey(NamedTuple):
    """The place of a waiting message: its receiver and lane, its number there, and its token."""

    to: ObjectKey
    lane: str
    seq: int
    """The number that the storage gave it, from 1, distinct from those of all that wait or are
    dead in its tenant. It orders the messages of a lane. After the storage was opened again,
    another message may get the number of one that is gone."""
    token: int
    """62 random bits, the public id of the message for its whole life."""


@attrs.define(eq=False)
class NewMessage:
    """A message to send."""

    to: ObjectKey
    """Of the tenant of its commit."""
    lane: str
    token: int
    handler: str
    arguments: bytes
    sent_at: int
    wake_at: int | None = None
    """When it may be delivered; None for at once. A delayed message has no lane."""
    hops: int = 0
    """How many messages led to it, one from the turn of the other."""
    sender: ObjectKey | None = None
    """The object whose turn sent it; None if it comes from outside."""
    reply_to: str | None = None
    """The handler of the sender that gets the result."""
    failed_to: str | None = None
    """The handler of the sender that learns of its death."""
    sender_key: str | None = None
    """Replaces what the sender has waiting under this key. Only with a ``sender``."""
    once_key: str | None = None
    """The once-key of the receiver under which its reply is to be recorded."""
    seq: int = 0
    """Set by `Writer.commit` when it has applied the commit: the number that the message got."""

    @property
    def key(self) -> MessageKey:
        """Its place, once it is stored."""
        return MessageKey(self.to, self.lane, self.seq, self.token)


@attrs.frozen
class Burial:
    """A waiting message that becomes a dead letter."""

    key: MessageKey
    failures: int
    last_error: str | None
    """Without NUL and lone surrogates."""


class OnceKey(NamedTuple):
    """The identity of a once-key: the object that was called, and the caller's key."""

    to: ObjectKey
    key: str


@attrs.frozen
class OnceReply:
    """The reply of a call with a once-key, or the promise of one."""

    key: OnceKey
    handler: str
    digest: str
    """Of the arguments. Opaque to the storage, as is ``signature``."""
    signature: str
    reply: bytes | None
    """None while the message with ``token`` hasn't been handled."""
    expires_at: int
    """From this time on the key counts as absent."""
    token: int | None = None
    """The message that was sent with the key; None for a call."""

    @property
    def is_pending(self) -> bool:
        """True if it waits for the outcome of its message."""
        return self.reply is None and self.token is not None


def _joined(entries: Sequence[T], more: Sequence[T]) -> Sequence[T]:
    """The entries of a field of `MessageChanges`, and more. In place if there is a list already."""
    if not more:
        return entries
    if isinstance(entries, list):
        entries += more
        return entries
    return [*entries, *more]


@attrs.define(eq=False)
class MessageChanges:
    """Changes that turns of one object made to messages. Applied in the order of the fields.

    Nearly every record has one or two entries in all. So a field is the empty tuple until it has
    one, or else each message would make a dozen lists for the garbage collector to visit.

    A deletion of the object by the same commit comes before ``sent``: what waits for the object by
    then becomes a dead letter, and what is sent to it later is for the next one of its id.
    """

    acknowledged: Sequence[MessageKey] = ()
    """Handled messages to the object, which are removed. If one of them isn't waiting any more, by
    all fields of its key, the commit is stale and nothing of it applies."""
    buried: Sequence[Burial] = ()
    """Messages to the object that become dead letters. They must be waiting, too."""
    withdrawn: Sequence[MessageKey] = ()
    """Messages from the object that it takes back. They must be waiting, too."""
    cancelled: Sequence[str] = ()
    """Sender keys of the object: what waits under them is removed, if anything does."""
    sent: Sequence[NewMessage] = ()
    """In order. At most one for each sender key. Those of one commit get ascending numbers."""
    recorded: Sequence[OnceReply] = ()
    """Replies of once-keys, of any object of the tenant. If a key is there that hasn't expired and
    isn't the promise of a reply to the same ``token``, the commit is stale."""
    taken_back: AbstractSet[str] = frozenset()
    """Set by `Writer.commit` when it has applied the commit: the sender keys, among ``cancelled``
    and those of ``sent``, under which messages waited and were removed."""

    def send(self, new: NewMessage) -> None:
        """Add a message to send."""
        self.sent = _joined(self.sent, (new,))

    def withdraw(self, message: MessageKey) -> None:
        """Add a message to take back."""
        self.withdrawn = _joined(self.withdrawn, (message,))

    def record(self, reply: OnceReply) -> None:
        """Add a reply to record."""
        self.recorded = _joined(self.recorded, (reply,))

    @property
    def writes_anything(self) -> bool:
        """True if they store a message or a once-key, which creates their tenant."""
        return bool(self.sent or self.recorded)

    @property
    def expects_anything(self) -> bool:
        """True if they can only apply to messages that are waiting."""
        return bool(self.acknowledged or self.buried or self.withdrawn)

    @property
    def waiting(self) -> list[MessageKey]:
        """The messages that must be waiting, or the commit is stale."""
        return [*self.acknowledged, *(each.key for each in self.buried), *self.withdrawn]

    @property
    def sender_keys(self) -> set[str]:
        """The sender keys under which waiting messages are removed."""
        return {*self.cancelled, *(new.sender_key for new in self.sent if new.sender_key)}

    def forget_results(self) -> None:
        """Undo what `Writer.commit` has set, because it didn't apply them after all."""
        self.taken_back = frozenset()
        for new in self.sent:
            new.seq = 0

    def merge(self, later: MessageChanges) -> None:
        """Add ``later``, so that applying these changes applies both.

        A message of these changes under a sender key of ``later`` is left out. The answer of such a
        key is known by that, whatever `Writer.commit` says of it.
        """
        if replaced := later.sender_keys:
            self.sent = [new for new in self.sent if new.sender_key not in replaced]
        self.acknowledged = _joined(self.acknowledged, later.acknowledged)
        self.buried = _joined(self.buried, later.buried)
        self.withdrawn = _joined(self.withdrawn, later.withdrawn)
        cancelled = [key for key in later.cancelled if key not in self.cancelled]
        self.cancelled = _joined(self.cancelled, cancelled)
        self.sent = _joined(self.sent, later.sent)
        self.recorded = _joined(self.recorded, later.recorded)

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        size = 64 * (len(self.acknowledged) + len(self.buried) + len(self.withdrawn))
        for new in self.sent:
            size += 128 + len(new.arguments)
        for each in self.recorded:
            size += 128 + len(each.reply or b"")
        return size


@attrs.frozen
class StoredMessage:
    """A message that waits, or waited before it became a dead letter."""

    key: MessageKey
    handler: str
    arguments: bytes
    sent_at: int
    wake_at: int | None
    """It isn't delivered before this time; None for at once. Of the first message of a lane it
    holds back the whole lane."""
    failures: int
    """How many deliveries have failed since it was sent or retried."""
    crashes: int
    """How many processes in succession its deliveries didn't let live, as far as these began by
    `Writer.mark_message`."""
    hops: int
    sender: ObjectKey | None
    reply_to: str | None
    failed_to: str | None
    sender_key: str | None
    once_key: str | None
    last_error: str | None


@attrs.frozen
class DeadMessage:
    """A dead letter: a message that is kept, and not delivered."""

    message: StoredMessage
    """As it waited. Its numbers order the dead letters, and with them what waits."""
    died_at: int
    is_overtaken: bool
    """True if a later message of its lane was acknowledged after it died."""


@attrs.frozen
class DueMessage:
    """An entry of the feed of sleeping messages."""

    wake_at: int
    key: MessageKey


@attrs.frozen
class Receiver:
    """An object for which messages wait."""

    key: ObjectKey
    is_awake: bool
    """False if each of them sleeps and has no lane, so that the feed leads to all of them."""


@attrs.frozen
class Deferral:
    """A failed delivery of a waiting message, or its return unhandled."""

    key: MessageKey
    wake_at: int | None
    """The time of the next delivery; None for at once."""
    failures: int
    last_error: str | None
    """Without NUL and lone surrogates."""
    crashes: int = 0
    """See `StoredMessage.crashes`; 0 after a delivery that has ended, since it let its process
    live."""


@attrs.frozen
class RetriedMessage:
    """A dead letter that waits again, at the end of its lane."""

    key: MessageKey
    """With its new number."""
    is_overtaken: bool
    """See `DeadMessage.is_overtaken`."""


@attrs.frozen
class MessageSummary:
    """Counts of the messages to objects of one type."""

    type_name: str
    waiting: int
    oldest: int | None
    """When the oldest waiting one was sent; None if none waits."""
    dead: int
