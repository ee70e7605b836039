"""State machine that compares a storage with its model.

Hypothesis draws commits with right and wrong revisions and with held and lost claims. Time passes,
claims expire, tenants are dropped, and the storage is closed and opened again. After each step all
answers of a reader are compared with the model's.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from ..._keys import AlarmKey, ObjectKey
from ...storage import (
    AlarmChanges,
    AlarmStatus,
    Commit,
    DueAlarm,
    NewAlarm,
    Postponement,
    TypeSummary,
)
from ._builders import bytewise, in_order
from ._model import ModelAlarm, ModelledStorage
from ._strategies import (
    any_alarm,
    any_alarm_name,
    any_alarm_object,
    any_delay,
    any_key,
    any_object_id,
    any_payload,
    any_state,
    any_status,
    any_tenant,
    any_type_name,
)
from ._values import ANY_TIME, FOREVER, TENANTS


class StorageMachine(ModelledStorage):
    """Runs commits, claims, drops, reads and reopenings on a storage and its model."""

    @initialize()
    def nothing_is_stored(self) -> None:
        for type_name in ("Cart", "cart", "Order"):
            assert self.reader.list_ids(type_name, None, 10) == []
            assert self.reader.list_dead_letters(type_name, None, 10) == []
        assert self.reader.due_alarms(FOREVER, None, 10, ()) == []
        assert self.reader.list_tenants(None, 10) == []

    # --- commits ---------------------------------------------------------------------------------

    @rule(data=st.data(), keys=st.lists(any_key, min_size=1, max_size=12, unique=True))
    def commit(self, data: st.DataObject, keys: list[ObjectKey]) -> None:
        self.run_batch(data, keys, with_alarms=False)

    @rule(data=st.data(), keys=st.lists(any_alarm_object, min_size=1, max_size=6, unique=True))
    def commit_with_alarms(self, data: st.DataObject, keys: list[ObjectKey]) -> None:
        self.run_batch(data, keys, with_alarms=True)

    @rule(data=st.data(), keys=st.lists(any_alarm_object, min_size=1, max_size=6, unique=True))
    def set_from_outside(self, data: st.DataObject, keys: list[ObjectKey]) -> None:
        """A storage may apply such a batch by a single statement."""
        batch = []
        for one in keys:
            names = data.draw(st.lists(any_alarm_name, min_size=1, max_size=3, unique=True))
            changed = AlarmChanges(changed={name: self.draw_alarm(data) for name in names})
            batch.append(Commit(one, None, alarms=changed))
        self.apply(batch)

    def run_batch(self, data: st.DataObject, keys: list[ObjectKey], *, with_alarms: bool) -> None:
        batch: list[Commit] = []
        for one in keys:
            stored = self.model[one][0] if one in self.model else 0
            # Mostly the right one, since a stale commit stores nothing.
            revision: int | None = data.draw(st.just(stored) | st.just(stored) | st.integers(0, 5))
            action = data.draw(st.sampled_from(["save", "save", "save", "delete", "nothing"]))
            changed = None
            if with_alarms and data.draw(st.integers(0, 3)):
                changed = self.draw_changes(data, one)
                if action == "nothing" and data.draw(st.booleans()):
                    revision = None
            state = data.draw(any_state) if action == "save" else None
            batch.append(Commit(one, revision, state, delete=action == "delete", alarms=changed))
        self.apply(batch)

    def draw_alarm(self, data: st.DataObject) -> NewAlarm:
        return NewAlarm(self.now + data.draw(any_delay), data.draw(any_payload))

    def draw_changes(self, data: st.DataObject, one: ObjectKey) -> AlarmChanges:
        acknowledged: dict[str, int] = {}
        # Mostly a held claim, sometimes one that was lost or never made.
        mine = [pair for pair in self.claims if pair[0].object_key == one]
        held = [pair for pair in mine if self.holds(*pair)]
        for pairs in (held, held, mine):
            if data.draw(st.booleans()) and pairs:
                alarm, claim = data.draw(st.sampled_from(pairs))
                acknowledged[alarm.name] = claim
        if not data.draw(st.integers(0, 9)):
            acknowledged[data.draw(any_alarm_name)] = self.last_claim + 1
        changed: dict[str, NewAlarm | None] = {}
        for name in data.draw(st.lists(any_alarm_name, max_size=3, unique=True)):
            changed[name] = self.draw_alarm(data) if data.draw(st.integers(0, 3)) else None
        return AlarmChanges(acknowledged, not data.draw(st.integers(0, 7)), changed)

    def apply(self, batch: list[Commit]) -> None:
        stale: list[int] = []
        after = dict(self.model)
        alarms = dict(self.alarms)
        taken_back: dict[int, set[str]] = {}
        for position, commit in enumerate(batch):
            one = commit.key
            changed = commit.alarms or AlarmChanges()
            stored = self.model[one][0] if one in self.model else 0
            if commit.revision not in (None, stored) or not all(
                self.holds(one.alarm(name), claim) for name, claim in changed.acknowledged.items()
            ):
                stale.append(position)
                continue
            if commit.messages is not None and self.mail.is_stale(commit.messages, self.now):
                stale.append(position)
                continue
            taken_back[position] = self.mail.apply(commit, self.now)
            if commit.delete:
                after.pop(one, None)
            elif commit.state is not None:
                after[one] = (stored + 1, commit.state)
                self.updated[one] = self.now
            for name in changed.acknowledged:
                del alarms[one.alarm(name)]
            if changed.clear:
                alarms = {k: alarm for k, alarm in alarms.items() if k.object_key != one}
            for name, new in changed.changed.items():
                alarms.pop(one.alarm(name), None)
                if new is not None:
                    alarms[one.alarm(name)] = ModelAlarm(new.due_at, new.payload, new.due_at)
            is_saved = commit.state is not None and not commit.delete
            sends = commit.messages is not None and (
                commit.messages.sent or commit.messages.recorded
            )
            if one.tenant and (is_saved or sends or any(changed.changed.values())):
                self.tenants.add(one.tenant)
        found: Collection[int] = self.writer.commit(batch, self.now)
        assert sorted(found) == stale
        for position, commit in enumerate(batch):
            if commit.messages is not None:
                assert commit.messages.taken_back == taken_back.get(position, set())
                if position in stale:
                    assert not any(new.seq for new in commit.messages.sent)
        self.mail.number()
        self.model, self.alarms = after, alarms

    @precondition(lambda self: self.model or self.alarms)
    @rule(tenant=st.sampled_from(TENANTS[1:]), really=st.integers(0, 2))
    def drop_tenant(self, tenant: str, really: int) -> None:
        if really:  # rarely, or the storage would stay almost empty
            return
        assert self.writer.drop_tenant(tenant) is (tenant in self.tenants)
        self.tenants.discard(tenant)
        self.model = {k: row for k, row in self.model.items() if k.tenant != tenant}
        self.alarms = {k: alarm for k, alarm in self.alarms.items() if k.tenant != tenant}
        self.mail.drop_tenant(tenant)

    # --- delivery --------------------------------------------------------------------------------

    @rule(by=st.integers(0, 15))
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule(
        asked=st.lists(any_alarm, max_size=12, unique=True),
        ttl=st.integers(0, 15),
    )
    def claim_some(self, asked: list[AlarmKey], ttl: int) -> None:
        self.claim(asked, ttl)

    @precondition(lambda self: self.alarms)
    @rule(ttl=st.integers(5, 15))
    def claim_all(self, ttl: int) -> None:
        self.claim(list(self.alarms), ttl)

    @precondition(lambda self: self.alarms)
    @rule(data=st.data(), ttl=st.integers(0, 15))
    def claim_whatever_its_time(self, data: st.DataObject, ttl: int) -> None:
        self.claim([data.draw(st.sampled_from(list(self.alarms)))], ttl, now=ANY_TIME)

    def claim(self, asked: list[AlarmKey], ttl: int, now: int | None = None) -> None:
        self.last_claim += 1
        now = self.now if now is None else now
        expected = {}
        for one in asked:
            alarm = self.alarms.get(one)
            if alarm and alarm.available_at is not None and alarm.available_at <= now:
                if self.counts_crashes and alarm.claim is not None and now != ANY_TIME:
                    alarm.outlive()
                alarm.claim, alarm.available_at = self.last_claim, self.now + ttl
                alarm.is_marked = False
                expected[one] = alarm.stored(one)
                self.claims.append((one, self.last_claim))
        found = self.writer.claim(asked, self.last_claim, now, self.now + ttl)
        assert len(found) == len(expected)
        assert {alarm.key: alarm for alarm in found} == expected

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), by=st.integers(-5, 15))
    def renew(self, data: st.DataObject, by: int) -> None:
        claims = data.draw(st.lists(st.sampled_from(self.claims), max_size=5, unique=True))
        for one, claim in claims:
            if self.holds(one, claim):
                self.alarms[one].available_at = self.now + by
        self.writer.renew(claims, self.now + by)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def postpone(self, data: st.DataObject) -> None:
        claims = data.draw(
            st.lists(st.sampled_from(self.claims), max_size=5, unique_by=lambda pair: pair[0])
        )
        postponements = []
        for one, claim in claims:
            again_at = data.draw(st.none() | any_delay.map(lambda delay: self.now + delay))
            failures = data.draw(st.integers(0, 5))
            error = data.draw(st.sampled_from([None, "", "no", 'it\'s "é"\n👾']))
            crashes = None
            if self.counts_crashes:
                crashes = data.draw(st.none() | st.integers(0, 3))
            postponements.append(Postponement(one, claim, again_at, failures, error, crashes))
            if self.holds(one, claim):
                alarm = self.alarms[one]
                alarm.claim, alarm.available_at = None, again_at
                alarm.failures, alarm.last_error, alarm.crashes = failures, error, crashes
        self.writer.postpone(postponements)

    @rule(one=any_alarm)
    def revive(self, one: AlarmKey) -> None:
        self.check_revive(one)

    @precondition(lambda self: any(alarm.available_at is None for alarm in self.alarms.values()))
    @rule(data=st.data())
    def revive_a_dead_letter(self, data: st.DataObject) -> None:
        dead = [one for one, alarm in self.alarms.items() if alarm.available_at is None]
        self.check_revive(data.draw(st.sampled_from(dead)))

    def check_revive(self, one: AlarmKey) -> None:
        alarm = self.alarms.get(one)
        is_dead = alarm is not None and alarm.available_at is None
        assert self.writer.revive(one, self.now) is is_dead
        if alarm is not None and is_dead:
            alarm.available_at, alarm.failures = self.now, 0
            alarm.crashes = None if alarm.crashes is None else 0

    @precondition(lambda self: self.counts_crashes and self.claims)
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        one, claim = data.draw(st.sampled_from(self.claims))
        assert self.writer.mark(one, claim) is self.holds(one, claim)
        if self.holds(one, claim):
            self.alarms[one].is_marked = True

    @precondition(lambda self: self.counts_crashes and self.claims)
    @rule(data=st.data())
    def acquit(self, data: st.DataObject) -> None:
        one, claim = data.draw(st.sampled_from(self.claims))
        assert self.writer.acquit(one, claim) is self.holds(one, claim)
        if self.holds(one, claim):
            self.alarms[one].crashes = None

    # --- reading ---------------------------------------------------------------------------------

    @rule(keys=st.lists(any_key, max_size=12))
    def load(self, keys: list[ObjectKey]) -> None:
        self.check_load(keys)

    @rule(
        type_name=any_type_name,
        after=st.none() | any_object_id | st.just("") | st.just("zz"),
        limit=st.integers(1, 12),
        tenant=any_tenant,
    )
    def list_ids(self, type_name: str, after: str | None, limit: int, tenant: str) -> None:
        expected = sorted(
            (k.object_id for k in self.model if (k.type_name, k.tenant) == (type_name, tenant)),
            key=str.encode,
        )
        if after is not None:
            expected = [one for one in expected if one.encode() > after.encode()]
        assert self.reader.list_ids(type_name, after, limit, tenant) == expected[:limit]

    @rule(after=st.none() | st.sampled_from(["a", "a-b", "acmd", "z"]), limit=st.integers(1, 3))
    def list_tenants(self, after: str | None, limit: int) -> None:
        expected = [one for one in sorted(self.tenants) if after is None or one > after]
        assert self.reader.list_tenants(after, limit) == expected[:limit]

    @rule(
        type_name=st.none() | any_type_name,
        after=st.none() | any_key,
        limit=st.integers(1, 12),
        tenant=any_tenant,
    )
    def browse_objects(
        self, type_name: str | None, after: ObjectKey | None, limit: int, tenant: str
    ) -> None:
        if after is not None and type_name is not None:
            after = attrs.evolve(after, type_name=type_name)
        expected = [
            row
            for row in self.objects_of(tenant)
            if type_name in (None, row.key.type_name)
            and (after is None or in_order(row.key) > in_order(after))
        ]
        assert self.reader.browse_objects(type_name, after, limit, tenant) == expected[:limit]

    @rule(
        status=any_status,
        later=any_delay,
        type_name=st.none() | any_type_name,
        after=st.none() | any_alarm,
        limit=st.integers(1, 12),
        tenant=any_tenant,
    )
    def browse_alarms(
        self,
        status: AlarmStatus | None,
        later: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
        tenant: str,
    ) -> None:
        if after is not None and type_name is not None:
            after = after._replace(type_name=type_name)
        now = self.now + later
        expected = [
            row
            for row in self.alarms_of(tenant, now)
            if type_name in (None, row.alarm.key.type_name)
            and status in (None, row.status)
            and (after is None or bytewise(row.alarm.key)[:3] > bytewise(after)[:3])
        ]
        found = self.reader.browse_alarms(status, now, type_name, after, limit, tenant)
        assert found == expected[:limit]

    @rule(
        before=any_delay,
        after=st.none() | st.tuples(any_delay, any_alarm),
        limit=st.integers(1, 30),
        except_types=st.sets(any_type_name),
        tenant=any_tenant,
    )
    def due_alarms(
        self,
        before: int,
        after: tuple[int, AlarmKey] | None,
        limit: int,
        except_types: set[str],
        tenant: str,
    ) -> None:
        last = None
        if after is not None:
            last = DueAlarm(self.now + after[0], after[1]._replace(tenant=tenant))
        expected = [
            each
            for each in self.feed(tenant)
            if each.available_at < self.now + before
            and each.key.type_name not in except_types
            and (last is None or self.place(each) > self.place(last))
        ]
        found = self.reader.due_alarms(self.now + before, last, limit, except_types, tenant)
        assert found == expected[:limit]

    @rule(
        type_name=any_type_name,
        after=st.none() | any_alarm,
        limit=st.integers(1, 12),
        tenant=any_tenant,
    )
    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str
    ) -> None:
        if after is not None:
            after = after._replace(type_name=type_name, tenant=tenant)
        expected = [
            letter
            for letter in self.dead_letters(type_name, tenant)
            if after is None or bytewise(letter.key) > bytewise(after)
        ]
        assert self.reader.list_dead_letters(type_name, after, limit, tenant) == expected[:limit]

    @precondition(lambda self: self.model or self.alarms or self.mail.waiting)
    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()
        for alarm in self.alarms.values():
            if self.opens_for_one and alarm.claim is not None:
                alarm.claim, alarm.available_at = None, alarm.due_at
                if self.counts_crashes:
                    alarm.outlive()
        for message in self.mail.waiting:
            if self.opens_for_one and message.is_marked:
                message.crashes, message.is_marked = message.crashes + 1, False

    # --- everything, after each step -------------------------------------------------------------

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        self.check_load(list(self.model))
        assert self.reader.list_tenants(None, 1000) == sorted(self.tenants)
        for tenant in TENANTS:
            self.all_of_a_tenant_is_as_in_the_model(tenant)
        for one in {alarm.object_key for alarm in self.alarms}:
            expected = [
                alarm.stored(k)
                for k, alarm in self.alarms.items()
                if k.object_key == one and alarm.available_at is not None
            ]
            expected.sort(key=lambda alarm: (alarm.due_at, bytewise(alarm.key)))
            assert self.reader.list_alarms(one) == expected

    def all_of_a_tenant_is_as_in_the_model(self, tenant: str) -> None:
        reader = self.reader
        assert reader.due_alarms(FOREVER, None, 1000, (), tenant) == self.feed(tenant)
        for type_name in ("Cart", "cart"):
            letters = reader.list_dead_letters(type_name, None, 1000, tenant)
            assert letters == self.dead_letters(type_name, tenant)
        objects, alarms = self.objects_of(tenant), self.alarms_of(tenant, self.now)
        assert reader.browse_objects(None, None, 1000, tenant) == objects
        assert reader.browse_alarms(None, self.now, None, None, 1000, tenant) == alarms
        types = {row.key.type_name for row in objects} | {row.alarm.key.type_name for row in alarms}
        summaries = []
        for type_name in sorted(types, key=str.encode):
            sizes = [len(row.state) for row in objects if row.key.type_name == type_name]
            found = [row.status for row in alarms if row.alarm.key.type_name == type_name]
            counts = [found.count(status) for status in ("pending", "overdue", "dead")]
            summaries.append(TypeSummary(type_name, len(sizes), sum(sizes), *counts))
        assert reader.summarize(self.now, tenant) == summaries
