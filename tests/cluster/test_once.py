"""Once-keys in a cluster on one SQLite file: one effect, whichever process calls, ends or owns."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import attrs
import pytest
from support.tasks import calls

from trio_durable import CallCycle, DurableObject, OnceKeyReused, OwnerLost, handler

from .files import CLIENT, member

pytestmark = pytest.mark.anyio


class Account(DurableObject, name="ClusterAccount"):
    total: int = 0
    marks: list[str] = attrs.field(factory=list)

    @handler
    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    @handler
    async def add_slowly(self, amount: int) -> int:
        began.append(amount)
        await go_on.wait()
        self.total += amount
        return self.total

    @handler
    async def add_by_itself(self, key: str) -> None:
        await self.ctx.runtime.get(Account, self.ctx.object_id, once=key).add(1)

    @handler(readonly=True)
    def read(self) -> int:
        return self.total


began: list[int]
go_on: anyio.Event


@pytest.fixture(autouse=True)
def fresh() -> None:
    global began, go_on
    began, go_on = [], anyio.Event()


async def test_processes_share_the_key(tmp_path: Path) -> None:
    async with (
        member(tmp_path / "a.db", objects=[Account]) as owner,
        member(tmp_path / "a.db", objects=[Account], cluster=CLIENT) as guest,
    ):
        for runtime in (guest, owner, guest):
            assert await runtime.get(Account, "a", once="k").add(5) == 5
        with pytest.raises(OnceKeyReused):
            await guest.get(Account, "a", once="k").add(6)
        with pytest.raises(CallCycle):
            await guest.get(Account, "a").add_by_itself("other")
        assert await guest.get(Account, "a").read() == 5


async def test_calls_of_several_processes_join(tmp_path: Path) -> None:
    async with (
        member(tmp_path / "a.db", objects=[Account]) as owner,
        member(tmp_path / "a.db", objects=[Account], cluster=CLIENT) as guest,
        calls() as group,
    ):
        await owner.ensure_started(Account, "a")
        found = [
            group.start(runtime.get(Account, "a", once="k").add_slowly, 5)
            for runtime in (guest, owner, guest)
        ]
        await anyio.wait_all_tasks_blocked()
        assert began == [5]
        found[0].cancel()
        await found[0].wait()
        go_on.set()
        for each in found[1:]:
            await each.wait()
            assert each.value == 5


async def test_a_call_whose_owner_ends_is_made_again_at_the_next(tmp_path: Path) -> None:
    path, short = tmp_path / "a.db", {"grace_period": 0}
    async with AsyncExitStack() as stack:
        async with member(path, objects=[Account], **short):
            second = await stack.enter_async_context(member(path, objects=[Account]))
            group = await stack.enter_async_context(calls())
            plain = group.start(second.get(Account, "plain").add_slowly, 5)
            once = group.start(second.get(Account, "a", once="k").add_slowly, 5)
            await anyio.wait_all_tasks_blocked()
            assert began == [5, 5]
        go_on.set()
        await plain.wait()
        with pytest.raises(OwnerLost):
            _ = plain.value
        await once.wait()
        assert once.value == 5
        assert await second.get(Account, "a").read() == 5


async def test_a_message_is_sent_once_by_any_process(tmp_path: Path) -> None:
    async with (
        member(tmp_path / "a.db", objects=[Account]) as owner,
        member(tmp_path / "a.db", objects=[Account], cluster=CLIENT) as guest,
    ):
        ids = {
            await runtime.outgoing(once="k").send(Account.add, "a", 5)
            for runtime in (guest, owner, guest)
        }
        assert len(ids) == 1
        assert await guest.get(Account, "a", once="k").add(5) == 5
        assert await guest.get(Account, "a").read() == 5
        await guest.outgoing(after=5).send(Account.add, "a", 1)
        assert await guest.get(Account, "a").read() == 5
        await anyio.sleep(6)
        await guest.settled(Account, "a")
        assert await guest.get(Account, "a").read() == 6
