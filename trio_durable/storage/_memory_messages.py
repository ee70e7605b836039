"""Messages, dead letters and once-keys of a storage in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterable, Sequence

import attrs

from .._keys import ObjectKey
from ._messages import (
    RECEIVER_DELETED,
    Burial,
    DeadMessage,
    Deferral,
    DueMessage,
    MessageChanges,
    MessageKey,
    MessageSummary,
    NewMessage,
    OnceKey,
    OnceReply,
    Receiver,
    RetriedMessage,
    StoredMessage,
    lane_of,
)
from ._records import Commit


def _place(key: ObjectKey) -> tuple[str, str]:
    return key.type_name, key.object_id


class Messages:
    """All messages by number, and the numbers by lane, time and sender key."""

    def __init__(self) -> None:
        self._next = 1
        self._waiting: dict[int, StoredMessage] = {}
        self._lanes: dict[ObjectKey, dict[str, list[int]]] = {}
        """Numbers in order. Those without a lane that sleep are in ``_asleep`` instead."""
        self._asleep: dict[ObjectKey, list[int]] = {}
        self._by_time: list[tuple[int, int]] = []
        self._by_sender_key: dict[tuple[ObjectKey, str], list[int]] = {}
        self._marked: set[int] = set()
        self._dead: dict[int, DeadMessage] = {}
        self._once: dict[OnceKey, OnceReply] = {}

    def copy(self) -> Messages:
        """These messages as they are now. Records are shared, since they never change."""
        new = Messages()
        new._waiting, new._dead, new._once = dict(self._waiting), dict(self._dead), dict(self._once)
        new._by_time = list(self._by_time)
        new._lanes = {
            to: {lane: list(seqs) for lane, seqs in list(lanes.items())}
            for to, lanes in list(self._lanes.items())
        }
        new._asleep = {to: list(seqs) for to, seqs in list(self._asleep.items())}
        new._by_sender_key = {k: list(seqs) for k, seqs in list(self._by_sender_key.items())}
        return new

    # --- single messages -------------------------------------------------------------------------

    def find(self, key: MessageKey) -> StoredMessage | None:
        """The message with this key; None if it isn't waiting."""
        message = self._waiting.get(key.seq)
        return message if message is not None and message.key == key else None

    def _home(self, message: StoredMessage) -> list[int]:
        to, lane = message.key.to, message.key.lane
        if not lane and message.wake_at is not None:
            return self._asleep.setdefault(to, [])
        return self._lanes.setdefault(to, {}).setdefault(lane, [])

    def _put(self, message: StoredMessage) -> None:
        seq = message.key.seq
        self._waiting[seq] = message
        insort(self._home(message), seq)
        if message.wake_at is not None:
            insort(self._by_time, (message.wake_at, seq))
        if message.sender is not None and message.sender_key is not None:
            insort(self._by_sender_key.setdefault((message.sender, message.sender_key), []), seq)

    def _remove(self, seq: int) -> StoredMessage:
        message = self._waiting.pop(seq)
        to, lane = message.key.to, message.key.lane
        home = self._home(message)
        del home[bisect_left(home, seq)]
        if not home:
            if not lane and message.wake_at is not None:
                del self._asleep[to]
            else:
                del self._lanes[to][lane]
                if not self._lanes[to]:
                    del self._lanes[to]
        if message.wake_at is not None:
            del self._by_time[bisect_left(self._by_time, (message.wake_at, seq))]
        if message.sender is not None and message.sender_key is not None:
            under = self._by_sender_key[message.sender, message.sender_key]
            under.remove(seq)
            if not under:
                del self._by_sender_key[message.sender, message.sender_key]
        self._marked.discard(seq)
        return message

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    # --- commits ---------------------------------------------------------------------------------

    def is_stale(self, changes: MessageChanges, now: int) -> bool:
        """True if a message isn't waiting that must be, or a once-key is taken."""
        return any(self.find(key) is None for key in changes.waiting) or any(
            not self._may_record(reply, now) for reply in changes.recorded
        )

    def _may_record(self, reply: OnceReply, now: int) -> bool:
        there = self._once.get(reply.key)
        if there is None or there.expires_at <= now:
            return True
        return there.is_pending and there.token == reply.token

    def apply(self, commit: Commit, now: int) -> None:
        """Apply the changes of a commit that isn't stale, its deletion included."""
        changes = commit.messages
        if changes is not None:
            for key in changes.acknowledged:
                self._acknowledge(key)
            for burial in changes.buried:
                self._bury(burial, now)
            for key in changes.withdrawn:
                self._remove(key.seq)
            changes.taken_back = {
                name for name in changes.sender_keys if self._remove_under(commit.key, name)
            }
        if commit.delete:
            for message in self.of_object(commit.key):
                self._bury(Burial(message.key, message.failures, RECEIVER_DELETED), now)
        if changes is not None:
            for new in changes.sent:
                self._send(new)
            for reply in changes.recorded:
                self._once[reply.key] = reply

    def _acknowledge(self, key: MessageKey) -> None:
        self._remove(key.seq)
        if key.lane:
            for seq, dead in self._dead.items():
                message = dead.message.key
                if (message.to, message.lane) == (key.to, key.lane) and seq < key.seq:
                    self._dead[seq] = attrs.evolve(dead, is_overtaken=True)

    def _bury(self, burial: Burial, now: int) -> None:
        message = attrs.evolve(
            self._remove(burial.key.seq), failures=burial.failures, last_error=burial.last_error
        )
        self._dead[burial.key.seq] = DeadMessage(message, now, is_overtaken=False)

    def _remove_under(self, sender: ObjectKey, name: str) -> bool:
        found = list(self._by_sender_key.get((sender, name), ()))
        for seq in found:
            self._remove(seq)
        return bool(found)

    def _send(self, new: NewMessage) -> None:
        new.seq = self._number()
        self._put(
            StoredMessage(
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
        )

    # --- other changes ---------------------------------------------------------------------------

    def defer(self, deferrals: Sequence[Deferral]) -> None:
        """See `Writer.defer_messages`."""
        for each in deferrals:
            if self.find(each.key) is not None:
                self._put(
                    attrs.evolve(
                        self._remove(each.key.seq),
                        wake_at=each.wake_at,
                        failures=each.failures,
                        last_error=each.last_error,
                        crashes=each.crashes,
                    )
                )

    def mark(self, key: MessageKey) -> bool:
        """See `Writer.mark_message`."""
        if self.find(key) is None:
            return False
        self._marked.add(key.seq)
        return True

    def count_crashes(self) -> None:
        """Count the crashes of the marked, as the storage opens."""
        for seq in self._marked:
            message = self._waiting[seq]
            self._waiting[seq] = attrs.evolve(message, crashes=message.crashes + 1)
        self._marked.clear()

    def retry(self, tokens: Sequence[int], tenant: str) -> list[RetriedMessage]:
        """See `Writer.retry_messages`."""
        retried = []
        for dead in self.load_dead(tokens, tenant):
            if dead is not None:
                del self._dead[dead.message.key.seq]
                key = dead.message.key._replace(seq=self._number())
                self._put(
                    attrs.evolve(
                        dead.message,
                        key=key,
                        wake_at=None,
                        failures=0,
                        crashes=0,
                        hops=0,
                        sender_key=None,
                    )
                )
                retried.append(RetriedMessage(key, dead.is_overtaken))
        return retried

    def drop(self, tokens: Sequence[int], tenant: str) -> list[int]:
        """See `Writer.drop_messages`."""
        found = [dead.message.key for dead in self.load_dead(tokens, tenant) if dead is not None]
        for key in found:
            del self._dead[key.seq]
        return [key.token for key in found]

    def clean_once(self, now: int, limit: int, tenant: str) -> int:
        """See `Writer.clean_once`."""
        expired = [
            key
            for key, reply in self._once.items()
            if key.to.tenant == tenant and reply.expires_at <= now
        ][:limit]
        for key in expired:
            del self._once[key]
        return len(expired)

    def rename(self, old: str, new: str, tenant: str) -> None:
        """See `Writer.rename_messages`."""

        def renamed(key: ObjectKey) -> ObjectKey:
            matches = key.type_name == old and key.tenant == tenant
            return attrs.evolve(key, type_name=new) if matches else key

        def changed(message: StoredMessage) -> StoredMessage:
            sender = message.sender and renamed(message.sender)
            lane = message.key.lane
            if (
                sender is not None
                and message.sender is not None
                and lane == lane_of(message.sender)
            ):
                lane = lane_of(sender)
            key = message.key._replace(to=renamed(message.key.to), lane=lane)
            return attrs.evolve(message, key=key, sender=sender)

        for message in list(self._waiting.values()):
            after = changed(message)
            if after != message:
                is_marked = message.key.seq in self._marked
                self._remove(message.key.seq)
                self._put(after)
                if is_marked:
                    self._marked.add(after.key.seq)
        for seq, dead in list(self._dead.items()):
            self._dead[seq] = attrs.evolve(dead, message=changed(dead.message))
        for key, reply in list(self._once.items()):
            to = renamed(key.to)
            if to != key.to:
                del self._once[key]
                name = key._replace(to=to)
                self._once.setdefault(name, attrs.evolve(reply, key=name))

    def restore(
        self,
        waiting: Sequence[StoredMessage],
        dead: Sequence[DeadMessage],
        once: Sequence[OnceReply],
        now: int,
    ) -> tuple[list[int], list[OnceKey]]:
        """See `Writer.restore_messages`."""
        there = {
            (message.key.to.tenant, message.key.token)
            for message in (*self._waiting.values(), *(d.message for d in self._dead.values()))
        }
        letters = {letter.message.key.token: letter for letter in dead}
        tokens, keys = [], []
        for message in (*(letter.message for letter in dead), *waiting):
            token = message.key.token
            if (message.key.to.tenant, token) in there:
                tokens.append(token)
                continue
            key = message.key._replace(seq=self._number())
            restored = attrs.evolve(message, key=key)
            if token in letters:
                self._dead[key.seq] = attrs.evolve(letters[token], message=restored)
            else:
                self._put(restored)
        for reply in once:
            found = self._once.get(reply.key)
            if found is not None and found.expires_at > now:
                keys.append(reply.key)
            else:
                self._once[reply.key] = reply
        return tokens, keys

    def drop_tenant(self, tenant: str) -> None:
        """Remove all of a tenant."""
        for seq, message in list(self._waiting.items()):
            if message.key.to.tenant == tenant:
                self._remove(seq)
        for seq, dead in list(self._dead.items()):
            if dead.message.key.to.tenant == tenant:
                del self._dead[seq]
        for key in list(self._once):
            if key.to.tenant == tenant:
                del self._once[key]

    # --- reading ---------------------------------------------------------------------------------

    def _stored(self, seqs: Iterable[int]) -> list[StoredMessage]:
        # The writer's thread may have removed some in between.
        found = map(self._waiting.get, seqs)
        return [message for message in found if message is not None]

    def of_object(self, to: ObjectKey) -> list[StoredMessage]:
        """All that waits for an object, by number."""
        lanes = list(self._lanes.get(to, {}).values())
        seqs = [*(seq for lane in lanes for seq in list(lane)), *self._asleep.get(to, ())]
        return sorted(self._stored(seqs), key=lambda message: message.key.seq)

    def receivers(self, after: ObjectKey | None, limit: int, tenant: str) -> list[Receiver]:
        """See `Reader.list_receivers`."""
        awake = set(self._lanes)
        keys = [key for key in {*awake, *self._asleep} if key.tenant == tenant]
        keys = sorted(keys, key=_place)
        start = 0 if after is None else bisect_right(keys, _place(after), key=_place)
        return [Receiver(key, key in awake) for key in keys[start : start + limit]]

    def mail(self, to: ObjectKey, after: str | None, lanes: int, limit: int) -> list[StoredMessage]:
        """See `Reader.read_mail`."""
        names = sorted(lane for lane in self._lanes.get(to, ()) if after is None or lane > after)
        return [message for lane in names[:lanes] for message in self.lane(to, lane, 0, limit)]

    def lane(self, to: ObjectKey, lane: str, after: int, limit: int) -> list[StoredMessage]:
        """See `Reader.read_lane`."""
        seqs = self._lanes.get(to, {}).get(lane, [])
        start = bisect_right(seqs, after)
        return self._stored(seqs[start : start + limit])

    def due(
        self,
        before: int,
        after: DueMessage | None,
        limit: int,
        except_types: Collection[str],
        tenant: str,
    ) -> list[DueMessage]:
        """See `Reader.due_messages`."""
        by_time = self._by_time
        start = 0 if after is None else bisect_right(by_time, (after.wake_at, after.key.seq))
        found = self._stored(seq for _, seq in by_time[start : bisect_left(by_time, (before,))])
        return [
            DueMessage(message.wake_at, message.key)
            for message in found
            if message.key.to.tenant == tenant
            and message.key.to.type_name not in except_types
            and message.wake_at is not None
        ][:limit]

    def sent_under(self, sender: ObjectKey, name: str) -> MessageKey | None:
        """See `Reader.find_sent`."""
        found = self._stored(list(self._by_sender_key.get((sender, name), ())))
        return found[0].key if found else None

    def waiting(
        self,
        type_name: str | None,
        object_id: str | None,
        after: MessageKey | None,
        limit: int,
        tenant: str,
    ) -> list[StoredMessage]:
        """See `Reader.list_messages`."""

        def place(key: MessageKey) -> tuple[str, str, str, int]:
            return (*_place(key.to), key.lane, key.seq)

        found = [
            message
            for message in list(self._waiting.values())
            if message.key.to.tenant == tenant
            and type_name in (None, message.key.to.type_name)
            and object_id in (None, message.key.to.object_id)
            and (after is None or place(message.key) > place(after))
        ]
        return sorted(found, key=lambda message: place(message.key))[:limit]

    def dead(self, type_name: str | None, after: int, limit: int, tenant: str) -> list[DeadMessage]:
        """See `Reader.list_dead_messages`."""
        found = [
            dead
            for dead in list(self._dead.values())
            if dead.message.key.to.tenant == tenant
            and type_name in (None, dead.message.key.to.type_name)
            and dead.message.key.seq > after
        ]
        return sorted(found, key=lambda dead: dead.message.key.seq)[:limit]

    def load_dead(self, tokens: Sequence[int], tenant: str) -> list[DeadMessage | None]:
        """See `Reader.load_dead_messages`."""
        found = {
            dead.message.key.token: dead
            for dead in list(self._dead.values())
            if dead.message.key.to.tenant == tenant
        }
        return [found.get(token) for token in tokens]

    def find_once(self, keys: Sequence[OnceKey], now: int) -> list[OnceReply | None]:
        """See `Reader.find_once`."""
        found = [self._once.get(key) for key in keys]
        return [reply if reply and reply.expires_at > now else None for reply in found]

    def list_once(self, after: OnceKey | None, limit: int, tenant: str) -> list[OnceReply]:
        """See `Reader.list_once`."""

        def place(key: OnceKey) -> tuple[str, str, str]:
            return (*_place(key.to), key.key)

        found = [
            reply
            for reply in list(self._once.values())
            if reply.key.to.tenant == tenant and (after is None or place(reply.key) > place(after))
        ]
        return sorted(found, key=lambda reply: place(reply.key))[:limit]

    def summarize(self, tenant: str) -> list[MessageSummary]:
        """See `Reader.summarize_messages`."""
        waiting = [m for m in list(self._waiting.values()) if m.key.to.tenant == tenant]
        dead = [d.message for d in list(self._dead.values()) if d.message.key.to.tenant == tenant]
        summaries = []
        for name in sorted({message.key.to.type_name for message in (*waiting, *dead)}):
            times = [message.sent_at for message in waiting if message.key.to.type_name == name]
            count = sum(message.key.to.type_name == name for message in dead)
            summaries.append(MessageSummary(name, len(times), min(times) if times else None, count))
        return summaries
