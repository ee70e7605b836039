"""Model of a storage: the expected contents in dictionaries, and the expected answers of a reader.

The model has no tables, batches or indexes. It sorts and filters all its contents for each answer,
so that it is obviously correct.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from hypothesis.stateful import RuleBasedStateMachine

from ..._keys import AlarmKey, ObjectKey
from ...storage import (
    AlarmChanges,
    AlarmRow,
    AlarmStatus,
    Commit,
    DueAlarm,
    MessageChanges,
    ObjectRow,
    Storage,
    StoredAlarm,
)
from ._builders import bytewise, in_order, key
from ._message_model import ModelMail
from ._values import FOREVER, NOW


@attrs.define
class ModelAlarm:
    """The expected fields of an alarm."""

    due_at: int
    payload: bytes | None
    available_at: int | None
    claim: int | None = None
    failures: int = 0
    last_error: str | None = None
    crashes: int | None = None
    is_marked: bool = False

    def stored(self, one: AlarmKey) -> StoredAlarm:
        return StoredAlarm(
            one, self.due_at, self.payload, self.failures, self.last_error, self.crashes
        )

    def outlive(self) -> None:
        """Its claim turns out to have outlived the process that held it."""
        if self.crashes is None:
            self.crashes = 0
        elif self.is_marked:
            self.crashes += 1

    def row(self, one: AlarmKey, now: int) -> AlarmRow:
        status: AlarmStatus = "overdue" if self.due_at <= now else "pending"
        if self.available_at is None:
            status = "dead"
        return AlarmRow(self.stored(one), self.available_at, status)


class ModelledStorage(RuleBasedStateMachine):
    """A storage, and dictionaries with its expected contents."""

    def __init__(self, storage: Storage, opens_for_one: bool, counts_crashes: bool) -> None:
        super().__init__()
        self.storage = storage
        self.opens_for_one = opens_for_one
        self.counts_crashes = counts_crashes
        self.model: dict[ObjectKey, tuple[int, bytes]] = {}
        self.updated: dict[ObjectKey, int] = {}
        self.alarms: dict[AlarmKey, ModelAlarm] = {}
        self.mail = ModelMail()
        self.tenants: set[str] = set()
        self.now = NOW
        self.last_claim = 0
        self.claims: list[tuple[AlarmKey, int]] = []
        """All claims ever made, whether held or lost."""
        self.open()

    def open(self) -> None:
        self.writer = self.storage.open_writer()
        self.reader = self.storage.open_reader()

    def close(self) -> None:
        self.reader.close()
        self.writer.close()

    def holds(self, one: AlarmKey, claim: int) -> bool:
        return one in self.alarms and self.alarms[one].claim == claim

    def objects_of(self, tenant: str) -> list[ObjectRow]:
        rows = [
            ObjectRow(one, revision, self.updated[one], state)
            for one, (revision, state) in self.model.items()
            if one.tenant == tenant
        ]
        return sorted(rows, key=lambda row: in_order(row.key))

    def alarms_of(self, tenant: str, now: int) -> list[AlarmRow]:
        rows = [alarm.row(k, now) for k, alarm in self.alarms.items() if k.tenant == tenant]
        return sorted(rows, key=lambda row: bytewise(row.alarm.key))

    @staticmethod
    def place(each: DueAlarm) -> tuple[int, list[bytes]]:
        return each.available_at, bytewise(each.key)

    def feed(self, tenant: str) -> list[DueAlarm]:
        return sorted(
            (
                DueAlarm(alarm.available_at, one)
                for one, alarm in self.alarms.items()
                if alarm.available_at is not None and one.tenant == tenant
            ),
            key=self.place,
        )

    def dead_letters(self, type_name: str, tenant: str) -> list[StoredAlarm]:
        return sorted(
            (
                alarm.stored(one)
                for one, alarm in self.alarms.items()
                if (one.type_name, one.tenant) == (type_name, tenant) and alarm.available_at is None
            ),
            key=lambda alarm: bytewise(alarm.key),
        )

    def check_load(self, keys: Sequence[ObjectKey]) -> None:
        rows = self.reader.load(keys)
        found = [None if row is None else (row.revision, row.state) for row in rows]
        assert found == [self.model.get(one) for one in keys]

    def teardown(self) -> None:
        # All examples share one storage, so each leaves it empty for the next.
        for tenant in self.reader.list_tenants(None, 100):
            self.writer.drop_tenant(tenant)
        for type_name in ("Cart", "cart", "Order"):
            keys = [key(one, type_name) for one in self.reader.list_ids(type_name, None, 100)]
            rows = self.reader.load(keys)
            self.writer.commit(
                [
                    Commit(k, row.revision, delete=True)
                    for k, row in zip(keys, rows, strict=True)
                    if row
                ],
                NOW,
            )
            letters = self.reader.list_dead_letters(type_name, None, 1000)
            alarms = {letter.key.object_key for letter in letters}
            alarms.update(
                each.key.object_key for each in self.reader.due_alarms(FOREVER, None, 1000, ())
            )
            self.writer.commit(
                [Commit(k, None, alarms=AlarmChanges(clear=True)) for k in alarms], NOW
            )
        self._discard_messages()
        self.close()

    def _discard_messages(self) -> None:
        waiting = [one.key for one in self.reader.list_messages(None, None, None, 1000)]
        for one in waiting:
            done = MessageChanges(acknowledged=[one])
            self.writer.commit([Commit(one.to, None, messages=done)], NOW)
        dead = self.reader.list_dead_messages(None, 0, 1000)
        self.writer.drop_messages([letter.message.key.token for letter in dead])
        self.writer.clean_once(FOREVER, 1000)
