"""Recurring alarms of members that divide the objects: they go on as objects change members."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from itertools import pairwise

import anyio
import attrs
import pytest
from support.clock import settle

from trio_durable import DurableObject, Retry, alarm, handler
from trio_durable._api.durable_object import definition_of
from trio_durable._clock import SystemClock
from trio_durable._keys import ObjectKey
from trio_durable.storage import AlarmChanges, AlarmRow, Commit, NewAlarm

from .shared_memory import MemberWriter, Node, Rows, node
from .test_members import balanced, id_of

pytestmark = pytest.mark.anyio

TEN = timedelta(seconds=10)
IDS = [f"o{n}" for n in range(10)]
YEAR = 366 * 86400 * 1_000_000

members: list[tuple[str, object]] = []
"""The object and the runtime of each firing."""


class Beat(DurableObject, name="MembersBeat"):
    times: list[datetime] = attrs.field(factory=list)

    @alarm(every=TEN, missed="all", autostart=True, retry=Retry(initial=1, factor=1))
    async def beat(self) -> None:
        current = self.ctx.alarm
        assert current is not None
        members.append((self.ctx.object_id, self.ctx.runtime))
        await anyio.sleep(1)
        self.times.append(current.due_at)

    @handler(readonly=True)
    def read(self) -> list[datetime]:
        return self.times

    @handler
    def stop(self) -> None:
        self.ctx.cancel_alarm("beat")


@pytest.fixture(autouse=True)
def without_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    members.clear()
    yield
    members.clear()


def rows_of(rows: Rows) -> dict[str, list[AlarmRow]]:
    """The rows of alarms, by the ids of their objects."""
    found: dict[str, list[AlarmRow]] = {}
    for row in rows.reader.browse_alarms(None, SystemClock().now(), "MembersBeat", None, 1000):
        found.setdefault(row.alarm.key.object_id, []).append(row)
    return found


def die(of: Node, successor: Node) -> None:
    """A member loses its lease, and doesn't know."""
    of.membership.is_held = True
    of.membership.expire()
    of.membership.rows.remove(of.membership.current.holder)
    successor.membership.look()


async def check_chains(by: Node, rows: Rows) -> None:
    """Check that each object has had a firing each ten seconds, and has one to come."""
    found = rows_of(rows)
    assert found.keys() == set(IDS)
    for object_id in IDS:
        times = await by.runtime.get(Beat, object_id).read()
        assert all(later - earlier == TEN for earlier, later in pairwise(times)), object_id
        (row,) = found[object_id]
        assert row.alarm.recurrence is not None


async def test_a_recurring_alarm_goes_on_at_the_member_that_has_taken_its_object_over() -> None:
    rows = Rows()
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(node(rows, objects=[Beat], claim_ttl=5))
            for _ in range(2)
        ]
        await balanced(one, other)
        for each in IDS:
            await one.runtime.ensure_started(Beat, each)
        await anyio.sleep(10.5)  # while all of them are in flight
        assert {runtime for _, runtime in members} == {one.runtime, other.runtime}
        other.membership.lose()
        assert set(one.membership.rows.owners) <= {one.membership.current.holder, None}
        one.membership.look()
        await anyio.sleep(60)
        await check_chains(one, rows)
        counts = [len(await one.runtime.get(Beat, each).read()) for each in IDS]
        assert min(counts) >= 6


async def test_a_recurring_alarm_goes_on_with_an_object_that_is_handed_over() -> None:
    rows = Rows()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(node(rows, objects=[Beat]))
        for each in IDS:
            await one.runtime.ensure_started(Beat, each)
        await one.runtime.get(Beat, IDS[0]).stop()
        await anyio.sleep(15)
        async with node(rows, objects=[Beat]) as other:
            await balanced(one, other)
            await anyio.sleep(20)
            assert {runtime for _, runtime in members} == {one.runtime, other.runtime}
        await anyio.sleep(20)
        await check_chains(one, rows)
        (stopped,) = rows_of(rows)[IDS[0]]
        assert stopped.status == "stopped"
        assert len(await one.runtime.get(Beat, IDS[0]).read()) == 0


async def test_far_times_are_pulled_in_by_who_has_the_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[tuple[str, str]] = []
    commit = MemberWriter.commit

    def noted(self: MemberWriter, batch: Sequence[Commit], now: int) -> Collection[int]:
        written.extend(
            (each.key.object_id, self.membership.current.holder)
            for each in batch
            if each.alarms is not None and not each.alarms.acknowledged
        )
        return commit(self, batch, now)

    monkeypatch.setattr(MemberWriter, "commit", noted)
    rows = Rows()
    put_far_away(rows, IDS)
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(node(rows, objects=[Beat])) for _ in range(2)]
        await balanced(one, other)
        await anyio.sleep(1)
        assert sorted(object_id for object_id, _ in written) == sorted(IDS)
        latest = max(row.alarm.due_at for [row] in rows_of(rows).values())
        assert latest < SystemClock().now() + YEAR // 2
        # And by a successor, what its former owner has left.
        there = id_of(other)
        put_far_away(rows, [there])
        written.clear()
        die(other, one)
        await settle()
        await anyio.sleep(1)
        assert written == [(there, one.membership.current.holder)]


def put_far_away(rows: Rows, ids: Sequence[str]) -> None:
    """Write alarms as under a clock that was a year ahead."""
    recurrence = definition_of(Beat).alarms["beat"].recurrence
    assert recurrence is not None
    now = SystemClock().now()
    for object_id in ids:
        new = NewAlarm(now + YEAR, None, recurrence.fingerprint)
        changes = AlarmChanges(changed={"beat": new})
        rows.writer.commit([Commit(ObjectKey("MembersBeat", object_id), None, alarms=changes)], now)
