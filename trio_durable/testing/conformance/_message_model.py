"""Model of messages and once-keys: lists in order of their numbers, which the storage chooses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Self

import attrs

from ..._keys import ObjectKey
from ...storage import (
    RECEIVER_DELETED,
    Commit,
    DeadMessage,
    DueMessage,
    MessageChanges,
    MessageKey,
    MessageSummary,
    NewMessage,
    OnceKey,
    OnceReply,
    Receiver,
    StoredMessage,
    lane_of,
)
from ._builders import in_order
from ._values import TENANTS


@attrs.define(eq=False)
class ModelMessage:
    """The expected fields of a message."""

    new: NewMessage
    seq: int = 0
    """0 until the storage has given it a number."""
    wake_at: int | None = None
    failures: int = 0
    crashes: int = 0
    last_error: str | None = None
    is_marked: bool = False
    died_at: int | None = None
    is_overtaken: bool = False

    @classmethod
    def of(cls, stored: StoredMessage) -> Self:
        """A message as it was exported, which has no number here."""
        to, lane, _, token = stored.key
        new = NewMessage(
            to,
            lane,
            token,
            stored.handler,
            stored.arguments,
            stored.sent_at,
            None,
            stored.hops,
            stored.sender,
            stored.reply_to,
            stored.failed_to,
            stored.sender_key,
            stored.once_key,
        )
        return cls(
            new,
            0,
            stored.wake_at,
            stored.failures,
            stored.crashes,
            stored.last_error,
        )

    @property
    def key(self) -> MessageKey:
        return MessageKey(self.new.to, self.new.lane, self.seq, self.new.token)

    @property
    def is_mail(self) -> bool:
        """True if it is part of a receiver's lanes."""
        return bool(self.new.lane) or self.wake_at is None

    def stored(self) -> StoredMessage:
        new = self.new
        return StoredMessage(
            self.key,
            new.handler,
            new.arguments,
            new.sent_at,
            self.wake_at,
            self.failures,
            self.crashes,
            new.hops,
            new.sender,
            new.reply_to,
            new.failed_to,
            new.sender_key,
            new.once_key,
            self.last_error,
        )

    def dead(self) -> DeadMessage:
        assert self.died_at is not None
        return DeadMessage(self.stored(), self.died_at, self.is_overtaken)


class ModelMail:
    """All messages of a storage, waiting and dead, and its once-keys."""

    def __init__(self) -> None:
        self.waiting: list[ModelMessage] = []
        self.letters: list[ModelMessage] = []
        self.once: dict[OnceKey, OnceReply] = {}

    # --- commits ---------------------------------------------------------------------------------

    def find(self, key: MessageKey) -> ModelMessage | None:
        return next((one for one in self.waiting if one.key == key), None)

    def is_stale(self, changes: MessageChanges, now: int) -> bool:
        if any(self.find(key) is None for key in changes.waiting):
            return True
        for reply in changes.recorded:
            there = self.once.get(reply.key)
            if there is not None and there.expires_at > now:
                is_kept = there.reply is None and reply.token is not None
                if not is_kept or there.token != reply.token:
                    return True
        return False

    def apply(self, commit: Commit, now: int) -> set[str]:
        """Apply a commit that isn't stale. Returns the sender keys with waiting messages."""
        changes = commit.messages or MessageChanges()
        taken_back = set()
        for key in changes.acknowledged:
            for letter in self.letters:
                if key.lane and letter.key[:2] == key[:2] and letter.seq < key.seq:
                    letter.is_overtaken = True
            self.remove(key)
        for burial in changes.buried:
            self.bury(burial.key, burial.failures, burial.last_error, now)
        for key in changes.withdrawn:
            self.remove(key)
        for one in list(self.waiting):
            if one.new.sender == commit.key and one.new.sender_key in changes.sender_keys:
                assert one.new.sender_key is not None
                taken_back.add(one.new.sender_key)
                self.waiting.remove(one)
        if commit.delete:
            for one in list(self.waiting):
                if one.new.to == commit.key:
                    self.bury(one.key, one.failures, RECEIVER_DELETED, now)
        self.waiting += (ModelMessage(new, wake_at=new.wake_at) for new in changes.sent)
        self.once.update((reply.key, reply) for reply in changes.recorded)
        return taken_back

    def remove(self, key: MessageKey) -> None:
        self.waiting.remove(self.the(key))

    def the(self, key: MessageKey) -> ModelMessage:
        found = self.find(key)
        assert found is not None
        return found

    def bury(self, key: MessageKey, failures: int, error: str | None, now: int) -> None:
        # By token, since what was sent in the same batch has no number yet.
        of_tenant = (one for one in self.waiting if one.new.to.tenant == key.to.tenant)
        one = next(one for one in of_tenant if one.new.token == key.token)
        self.waiting.remove(one)
        one.failures, one.last_error, one.died_at = failures, error, now
        one.is_marked = False
        self.letters.append(one)

    def number(self) -> None:
        """Take over the numbers that the storage has given, and check their order."""
        for tenant in TENANTS:
            waiting = [one for one in self.waiting if one.new.to.tenant == tenant]
            letters = [one for one in self.letters if one.new.to.tenant == tenant]
            last = max((one.seq for one in (*waiting, *letters)), default=0)
            fresh = [one for one in (*waiting, *letters) if not one.seq]
            for one in fresh:
                one.seq = one.new.seq
                assert one.seq > last
            assert len({one.seq for one in fresh}) == len(fresh)
            numbers = [one.seq for one in waiting]
            assert numbers == sorted(numbers)
        self.letters.sort(key=lambda one: one.seq)

    # --- exports ---------------------------------------------------------------------------------

    def restore(
        self,
        waiting: Collection[StoredMessage],
        dead: Collection[DeadMessage],
        once: Collection[OnceReply],
        tenant: str,
        now: int,
    ) -> tuple[list[int], list[OnceKey]]:
        """Add the mail of an export to a tenant, still without numbers. Returns what is there."""
        there = {
            one.new.token for one in (*self.waiting, *self.letters) if one.new.to.tenant == tenant
        }
        for letter in dead:
            if letter.message.key.token not in there:
                one = ModelMessage.of(letter.message)
                one.died_at, one.is_overtaken = letter.died_at, letter.is_overtaken
                self.letters.append(one)
        self.waiting += (ModelMessage.of(each) for each in waiting if each.key.token not in there)
        given = (*(letter.message for letter in dead), *waiting)
        keys = [r.key for r in once if r.key in self.once and self.once[r.key].expires_at > now]
        self.once.update((reply.key, reply) for reply in once if reply.key not in keys)
        return [each.key.token for each in given if each.key.token in there], keys

    def restored(self, numbers: Mapping[int, int], tenant: str) -> None:
        """Take over the numbers of restored mail by token: those of dead letters come first."""
        of_tenant = [one for one in (*self.letters, *self.waiting) if one.new.to.tenant == tenant]
        fresh = [one for one in of_tenant if not one.seq]
        for one in fresh:
            one.new.seq = numbers[one.new.token]
        assert [one.new.seq for one in fresh] == sorted(one.new.seq for one in fresh)
        self.number()

    # --- tenants ---------------------------------------------------------------------------------

    def drop_tenant(self, tenant: str) -> None:
        self.waiting = [one for one in self.waiting if one.new.to.tenant != tenant]
        self.letters = [one for one in self.letters if one.new.to.tenant != tenant]
        self.once = {k: reply for k, reply in self.once.items() if k.to.tenant != tenant}

    def rename(self, old: str, new: str, tenant: str) -> None:
        def renamed(key: ObjectKey) -> ObjectKey:
            is_old = (key.type_name, key.tenant) == (old, tenant)
            return attrs.evolve(key, type_name=new) if is_old else key

        for one in (*self.waiting, *self.letters):
            sender = one.new.sender and renamed(one.new.sender)
            lane = one.new.lane
            if one.new.sender is not None and sender is not None:
                lane = lane_of(sender) if lane == lane_of(one.new.sender) else lane
            one.new = attrs.evolve(one.new, to=renamed(one.new.to), sender=sender, lane=lane)
        for key, reply in list(self.once.items()):
            moved = key._replace(to=renamed(key.to))
            if moved != key:
                del self.once[key]
                self.once.setdefault(moved, attrs.evolve(reply, key=moved))

    # --- expected answers ------------------------------------------------------------------------

    def of(self, tenant: str) -> list[ModelMessage]:
        found = [one for one in self.waiting if one.new.to.tenant == tenant]
        return sorted(found, key=lambda one: (in_order(one.new.to), one.new.lane.encode(), one.seq))

    def letters_of(self, tenant: str) -> list[DeadMessage]:
        return [one.dead() for one in self.letters if one.new.to.tenant == tenant]

    def once_of(self, tenant: str) -> list[OnceReply]:
        found = [reply for reply in self.once.values() if reply.key.to.tenant == tenant]
        return sorted(found, key=lambda reply: (in_order(reply.key.to), reply.key.key.encode()))

    def receivers(self, tenant: str) -> list[Receiver]:
        awake: dict[ObjectKey, bool] = {}
        for one in self.of(tenant):
            awake[one.new.to] = awake.get(one.new.to, False) or one.is_mail
        return [Receiver(key, is_awake) for key, is_awake in awake.items()]

    def mail(self, to: ObjectKey) -> dict[str, list[StoredMessage]]:
        """The lanes of a receiver, in order."""
        lanes: dict[str, list[StoredMessage]] = {}
        for one in self.of(to.tenant):
            if one.new.to == to and one.is_mail:
                lanes.setdefault(one.new.lane, []).append(one.stored())
        return lanes

    def feed(self, tenant: str) -> list[DueMessage]:
        found = [
            DueMessage(one.wake_at, one.key) for one in self.of(tenant) if one.wake_at is not None
        ]
        return sorted(found, key=lambda each: (each.wake_at, each.key.seq))

    def summaries(self, tenant: str) -> list[MessageSummary]:
        waiting = [one.new for one in self.of(tenant)]
        dead = [letter.message.key.to.type_name for letter in self.letters_of(tenant)]
        names: Iterable[str] = {*dead, *(new.to.type_name for new in waiting)}
        return [
            MessageSummary(
                name,
                sum(new.to.type_name == name for new in waiting),
                min((new.sent_at for new in waiting if new.to.type_name == name), default=None),
                dead.count(name),
            )
            for name in sorted(names, key=str.encode)
        ]
