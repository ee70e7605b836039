"""State machine of messages, beside objects and alarms; see `_machine`."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from ..._keys import ObjectKey
from ...storage import (
    Burial,
    Commit,
    DeadMessage,
    Deferral,
    MessageChanges,
    NewMessage,
    OnceKey,
    OnceReply,
    Receiver,
    StoredMessage,
    lane_of,
    new_token,
)
from ._machine import StorageMachine
from ._message_model import ModelMessage
from ._strategies import any_alarm_object, any_delay, any_state, any_tenant
from ._values import FOREVER, TENANTS

_any_name = st.sampled_from(["k", "K", "é"])
_any_error = st.sampled_from([None, "", "no", 'it\'s "é"\n👾'])
_any_lane = st.sampled_from(["", "Cart/a", "Cart/👾", "cart/a"])


def _place(found: StoredMessage | Receiver) -> tuple[object, ...]:
    """The place in a list of messages or receivers, whose order by receiver is the storage's."""
    if isinstance(found, Receiver):
        return found.key.type_name.encode(), found.key.object_id.encode()
    to, lane, seq, _ = found.key
    return to.type_name.encode(), to.object_id.encode(), lane.encode(), seq


def _has_mail(machine: MessageMachine) -> bool:
    return bool(machine.mail.waiting)


def _has_letters(machine: MessageMachine) -> bool:
    return bool(machine.mail.letters)


@attrs.frozen
class _Export:
    """The mail of a tenant at one time."""

    waiting: list[StoredMessage] = attrs.field(factory=list)
    dead: list[DeadMessage] = attrs.field(factory=list)
    once: list[OnceReply] = attrs.field(factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.waiting or self.dead or self.once)

    def moved_to(self, tenant: str) -> _Export:
        """The same mail, for another tenant."""
        return _Export(
            [_moved(each, tenant) for each in self.waiting],
            [attrs.evolve(each, message=_moved(each.message, tenant)) for each in self.dead],
            [
                attrs.evolve(
                    each, key=each.key._replace(to=attrs.evolve(each.key.to, tenant=tenant))
                )
                for each in self.once
            ],
        )


def _moved(message: StoredMessage, tenant: str) -> StoredMessage:
    sender = message.sender and attrs.evolve(message.sender, tenant=tenant)
    key = message.key._replace(to=attrs.evolve(message.key.to, tenant=tenant))
    return attrs.evolve(message, key=key, sender=sender)


class MessageMachine(StorageMachine):
    """Sends, handles, defers, buries, retries, moves, exports and restores messages."""

    exported = _Export()
    """The last export."""

    # --- commits ---------------------------------------------------------------------------------

    @rule(data=st.data(), keys=st.lists(any_alarm_object, min_size=1, max_size=5, unique=True))
    def commit_with_messages(self, data: st.DataObject, keys: list[ObjectKey]) -> None:
        batch = []
        for one in keys:
            stored = self.model[one][0] if one in self.model else 0
            right = st.just(stored)
            revision: int | None = data.draw(right | right | right | st.integers(0, 3))
            action = data.draw(st.sampled_from(["save", "nothing", "nothing", "delete"]))
            if action == "nothing" and not data.draw(st.integers(0, 3)):
                revision = None
            state = data.draw(any_state) if action == "save" else None
            messages = self.draw_messages(data, one)
            alarms = None if data.draw(st.integers(0, 4)) else self.draw_changes(data, one)
            batch.append(
                Commit(one, revision, state, action == "delete", alarms, messages=messages)
            )
        self.apply(batch)

    @rule(data=st.data(), keys=st.lists(any_alarm_object, min_size=1, max_size=4))
    def send_from_outside(self, data: st.DataObject, keys: list[ObjectKey]) -> None:
        self.apply(
            [
                Commit(
                    to,
                    None,
                    messages=MessageChanges(
                        sent=[NewMessage(to, "", new_token(), "h", data.draw(any_state), self.now)]
                    ),
                )
                for to in keys
            ]
        )

    def draw_messages(self, data: st.DataObject, one: ObjectKey) -> MessageChanges:
        changes = MessageChanges()
        to_it = [m for m in self.mail.waiting if m.new.to == one]
        from_it = [m for m in self.mail.waiting if m.new.sender == one]
        for pool in (to_it, to_it, from_it):
            if not pool or not data.draw(st.booleans()):
                continue
            some = st.lists(st.sampled_from(pool), max_size=3, unique_by=id)
            keys = [m.key for m in data.draw(some) if m.key not in changes.waiting]
            if keys and not data.draw(st.integers(0, 7)):
                keys[0] = keys[0]._replace(token=1)
            if pool is from_it:
                changes.withdrawn = [*changes.withdrawn, *keys]
            elif data.draw(st.booleans()):
                changes.acknowledged = [*changes.acknowledged, *keys]
            else:
                burials = [
                    Burial(key, data.draw(st.integers(0, 5)), data.draw(_any_error)) for key in keys
                ]
                changes.buried = [*changes.buried, *burials]
        if not data.draw(st.integers(0, 3)):
            changes.cancelled = data.draw(st.lists(_any_name, max_size=2, unique=True))
        names: set[str] = set()
        for _ in range(data.draw(st.integers(0, 3))):
            new = self.draw_new(data, one)
            if new.sender_key in names:
                new.sender_key = None
            names |= {new.sender_key} if new.sender_key else set()
            changes.send(new)
        if not data.draw(st.integers(0, 3)):
            changes.record(self.draw_reply(data, one.tenant))
        return changes

    def draw_new(self, data: st.DataObject, sender: ObjectKey) -> NewMessage:
        to = attrs.evolve(data.draw(any_alarm_object), tenant=sender.tenant)
        is_delayed = not data.draw(st.integers(0, 3))
        return NewMessage(
            to,
            "" if is_delayed else lane_of(sender),
            new_token(),
            data.draw(_any_name),
            data.draw(any_state),
            self.now + data.draw(any_delay),
            self.now + data.draw(any_delay) if is_delayed else None,
            data.draw(st.integers(0, 3)),
            sender,
            data.draw(st.none() | _any_name),
            data.draw(st.none() | _any_name),
            data.draw(_any_name) if is_delayed and data.draw(st.booleans()) else None,
            data.draw(st.none() | _any_name),
        )

    def draw_reply(self, data: st.DataObject, tenant: str) -> OnceReply:
        to = attrs.evolve(data.draw(any_alarm_object), tenant=tenant)
        token = data.draw(st.none() | st.integers(1, 2))
        return OnceReply(
            OnceKey(to, data.draw(_any_name)),
            data.draw(_any_name),
            data.draw(_any_name),
            data.draw(_any_name),
            None if token and data.draw(st.booleans()) else data.draw(any_state),
            self.now + data.draw(any_delay),
            token,
        )

    # --- apart from commits ----------------------------------------------------------------------

    @precondition(_has_mail)
    @rule(data=st.data())
    def defer(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(self.mail.waiting), max_size=4, unique_by=id))
        deferrals = []
        for one in some:
            wake_at = data.draw(st.none() | any_delay.map(lambda delay: self.now + delay))
            failures, crashes = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 2))
            error = data.draw(_any_error)
            if not data.draw(st.integers(0, 7)):
                wrong = one.key._replace(token=1)
                deferrals.append(Deferral(wrong, wake_at, failures, error, crashes))
                continue
            deferrals.append(Deferral(one.key, wake_at, failures, error, crashes))
            one.wake_at, one.failures, one.crashes = wake_at, failures, crashes
            one.last_error, one.is_marked = error, False
        self.writer.defer_messages(deferrals)

    @precondition(_has_mail)
    @rule(data=st.data())
    def mark_one(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.mail.waiting))
        assert self.writer.mark_message(one.key._replace(token=1)) is False
        assert self.writer.mark_message(one.key) is True
        one.is_marked = True

    def draw_tokens(self, data: st.DataObject) -> tuple[list[int], str]:
        tenant = data.draw(st.sampled_from(self.mail.letters)).new.to.tenant
        some = [m.new.token for m in (*self.mail.letters, *self.mail.waiting)]
        return data.draw(st.lists(st.sampled_from(some), max_size=4, unique=True)), tenant

    @precondition(_has_letters)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        tokens, tenant = self.draw_tokens(data)
        found = self.writer.retry_messages(tokens, tenant)
        letters = {m.new.token: m for m in self.mail.letters if m.new.to.tenant == tenant}
        expected = [letters[token] for token in tokens if token in letters]
        assert [each.key.token for each in found] == [one.new.token for one in expected]
        for one, each in zip(expected, found, strict=True):
            assert each.is_overtaken is one.is_overtaken
            self.mail.letters.remove(one)
            new = attrs.evolve(one.new, seq=each.key.seq, hops=0, sender_key=None)
            self.mail.waiting.append(ModelMessage(new, last_error=one.last_error))
        self.mail.number()

    @precondition(_has_letters)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        tokens, tenant = self.draw_tokens(data)
        letters = {m.new.token: m for m in self.mail.letters if m.new.to.tenant == tenant}
        expected = [token for token in tokens if token in letters]
        assert self.writer.drop_messages(tokens, tenant) == expected
        for token in expected:
            self.mail.letters.remove(letters[token])

    @rule(limit=st.integers(1, 3), tenant=any_tenant)
    def clean_once(self, limit: int, tenant: str) -> None:
        expired = [r.key for r in self.mail.once_of(tenant) if r.expires_at <= self.now]
        count = self.writer.clean_once(self.now, limit, tenant)
        assert count == min(limit, len(expired))
        left = {reply.key for reply in self.reader.list_once(None, 1000, tenant)}
        gone = [key for key in expired if key not in left]
        assert len(gone) == count
        for key in gone:
            del self.mail.once[key]

    @precondition(_has_mail)
    @rule(old=st.sampled_from(["Cart", "cart"]), tenant=any_tenant, really=st.integers(0, 3))
    def rename(self, old: str, tenant: str, really: int) -> None:
        if not really:  # rarely, or all would be of one type
            new = "cart" if old == "Cart" else "Cart"
            self.writer.rename_messages(old, new, tenant)
            self.mail.rename(old, new, tenant)

    @rule(data=st.data(), source=any_tenant, tenant=any_tenant, is_older=st.booleans())
    def export_and_restore(
        self, data: st.DataObject, source: str, tenant: str, is_older: bool
    ) -> None:
        """A restored message may be there, or have been handled since an older export.

        Some is of another storage.
        """
        older = self.exported
        with self.reader.snapshot():
            self.exported = _Export(
                self.reader.list_messages(None, None, None, 1000, source),
                self.reader.list_dead_messages(None, 0, 1000, source),
                self.reader.list_once(None, 1000, source),
            )
        export = (older if is_older else self.exported).moved_to(tenant)
        for _ in range(data.draw(st.integers(0, 2))):
            export.waiting.append(self.draw_stored(data, tenant))
            letter = self.draw_stored(data, tenant)
            export.dead.append(DeadMessage(letter, self.now, data.draw(st.booleans())))
            reply = self.draw_reply(data, tenant)
            if all(each.key != reply.key for each in export.once):
                export.once.append(reply)
        refused = self.mail.restore(export.waiting, export.dead, export.once, tenant, self.now)
        found = self.writer.restore_messages(export.waiting, export.dead, export.once, self.now)
        assert [set(each) for each in found] == [set(each) for each in refused]
        dead = self.reader.list_dead_messages(None, 0, 1000, tenant)
        stored = [letter.message.key for letter in dead]
        stored += (one.key for one in self.reader.list_messages(None, None, None, 1000, tenant))
        self.mail.restored({key.token: key.seq for key in stored}, tenant)
        if tenant and not export.is_empty:
            self.tenants.add(tenant)

    def draw_stored(self, data: st.DataObject, tenant: str) -> StoredMessage:
        new = self.draw_new(data, attrs.evolve(data.draw(any_alarm_object), tenant=tenant))
        one = ModelMessage(new, wake_at=data.draw(st.just(new.wake_at) | any_delay))
        one.failures, one.crashes = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 2))
        one.last_error = data.draw(_any_error)
        return one.stored()

    # --- reading ---------------------------------------------------------------------------------

    @rule(
        to=any_alarm_object,
        after=st.none() | _any_lane,
        lanes=st.integers(1, 4),
        limit=st.integers(1, 3),
    )
    def read_mail(self, to: ObjectKey, after: str | None, lanes: int, limit: int) -> None:
        names = [
            lane for lane in self.mail.mail(to) if after is None or lane.encode() > after.encode()
        ]
        expected: list[StoredMessage] = []
        for lane in names[:lanes]:
            expected += self.mail.mail(to)[lane][:limit]
        assert self.reader.read_mail(to, after, lanes, limit) == expected

    @rule(to=any_alarm_object, lane=_any_lane, data=st.data(), limit=st.integers(1, 3))
    def read_lane(self, to: ObjectKey, lane: str, data: st.DataObject, limit: int) -> None:
        messages = self.mail.mail(to).get(lane, [])
        after = data.draw(st.sampled_from([0, *(one.key.seq for one in messages)]))
        expected = [one for one in messages if one.key.seq > after]
        assert self.reader.read_lane(to, lane, after, limit) == expected[:limit]

    @rule(before=any_delay, limit=st.integers(1, 5), excepted=st.sets(st.just("cart")))
    def due_messages(self, before: int, limit: int, excepted: set[str]) -> None:
        for tenant in TENANTS:
            expected = [
                each
                for each in self.mail.feed(tenant)
                if each.wake_at < self.now + before and each.key.to.type_name not in excepted
            ]
            found = self.reader.due_messages(self.now + before, None, limit, excepted, tenant)
            assert found == expected[:limit]

    @rule(sender=any_alarm_object, name=_any_name)
    def find_sent(self, sender: ObjectKey, name: str) -> None:
        expected = [
            one.key
            for one in self.mail.waiting
            if (one.new.sender, one.new.sender_key) == (sender, name)
        ]
        assert self.reader.find_sent(sender, name) == (expected[0] if expected else None)

    @rule(to=any_alarm_object, names=st.lists(_any_name, max_size=3))
    def find_once(self, to: ObjectKey, names: list[str]) -> None:
        keys = [OnceKey(to, name) for name in names]
        there = [self.mail.once.get(key) for key in keys]
        expected = [reply if reply and reply.expires_at > self.now else None for reply in there]
        assert self.reader.find_once(keys, self.now) == expected

    # --- everything, after each step -------------------------------------------------------------

    @invariant()
    def all_mail_is_as_in_the_model(self) -> None:
        for tenant in TENANTS:
            mail, reader = self.mail, self.reader
            expected = [one.stored() for one in mail.of(tenant)]
            found = reader.list_messages(None, None, None, 1000, tenant)
            assert sorted(found, key=_place) == expected
            assert reader.load_messages([one.key for one in expected]) == expected
            assert reader.list_dead_messages(None, 0, 1000, tenant) == mail.letters_of(tenant)
            assert reader.list_once(None, 1000, tenant) == mail.once_of(tenant)
            receivers = reader.list_receivers(None, 1000, tenant)
            assert sorted(receivers, key=_place) == mail.receivers(tenant)
            assert reader.due_messages(FOREVER, None, 1000, (), tenant) == mail.feed(tenant)
            assert reader.summarize_messages(tenant) == mail.summaries(tenant)
