"""Messages between members that divide the objects: hints, lost ones, and lanes that move."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar, cast

import anyio
import attrs
import pytest
from support.clock import settle

from trio_durable import DurableObject, ObjectKey, PersistenceError, Retry, handler
from trio_durable._outbox.inbox import DEPTH
from trio_durable._outbox.outbox import Outbox
from trio_durable.storage import (
    Commit,
    MessageChanges,
    NewMessage,
    StorageFault,
    StoredMessage,
    new_token,
)

from .shared_memory import Node, Rows, node, nodes
from .test_members import balanced, id_of

pytestmark = pytest.mark.anyio

T = TypeVar("T")

NOW = 1_700_000_000_000_000


class Post(DurableObject, name="MembersPost"):
    texts: list[str] = attrs.field(factory=list)

    @handler
    def send(self, to: str, texts: list[str]) -> None:
        for text in texts:
            self.ctx.send(Post.add, to, text)

    @handler
    def add(self, text: str) -> None:
        begun.append(text)
        self.texts.append(text)

    @handler
    def send_slow(self, to: str, texts: list[str]) -> None:
        for text in texts:
            self.ctx.send(Post.add_slowly, to, text)

    @handler
    async def add_slowly(self, text: str) -> None:
        begun.append(text)
        await anyio.sleep(0.2)
        self.texts.append(text)

    @handler(retry=Retry(initial=5))
    def add_later(self, text: str) -> None:
        message = self.ctx.message
        assert message is not None
        if message.attempt == 1:
            raise ValueError("not at the first attempt")
        self.texts.append(text)

    @handler
    def send_later(self, to: str, text: str) -> None:
        self.ctx.send(Post.add_later, to, text)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.texts


class Refused(Exception):
    """No message is taken."""


class Box(DurableObject, name="MembersBox"):
    """Takes messages only when it is open."""

    is_open: bool = False
    taken: list[str] = attrs.field(factory=list)

    @handler(expected=(Refused,))
    def take(self, text: str) -> None:
        if not self.is_open:
            raise Refused
        self.taken.append(text)

    @handler
    def open(self) -> None:
        self.is_open = True

    @handler(readonly=True)
    def look(self) -> list[str]:
        return self.taken


begun: list[str] = []
"""The texts of the turns that have begun, at any member."""


@pytest.fixture(autouse=True)
def none_begun() -> Iterator[None]:
    begun.clear()
    yield
    begun.clear()


def outbox_of(of: Node) -> Outbox:
    outbox = of.runtime._open().outbox
    assert outbox is not None
    return outbox


def lose_hints(of: Node) -> None:
    """Let a member's hints to others get lost."""

    async def lost(to: ObjectKey) -> None:
        await anyio.sleep_forever()

    outbox_of(of)._hint = lost


async def test_a_message_to_an_object_of_another_member_arrives_by_a_hint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with nodes(2, objects=[Post]) as [one, other]:
        await balanced(one, other)
        await anyio.sleep(10)  # past all scans
        monkeypatch.setattr(outbox_of(other)._feed, "rescan", None)
        here, there = id_of(one), id_of(other)
        await one.runtime.get(Post, here).send(there, ["a", "b"])
        await one.runtime.send(Post.add, there, "from outside")
        await settle()
        texts = await one.runtime.get(Post, there).read()
        assert sorted(texts) == ["a", "b", "from outside"]
        assert texts.index("a") < texts.index("b")


async def test_hints_come_while_an_inbox_is_delivered() -> None:
    async with nodes(2, objects=[Post]) as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        senders = [id_of(one), id_of(one, but=id_of(one))]
        for round_ in range(6):
            for sender in senders:
                texts = [f"{sender} {round_ * 10 + n}" for n in range(10)]
                await one.runtime.get(Post, sender).send_slow(there, texts)
            await anyio.sleep(0.3)
        await one.runtime.settled(Post, there)
        texts = await other.runtime.get(Post, there).read()
        for sender in senders:
            expected = [f"{sender} {n}" for n in range(60)]
            assert [each for each in texts if each.startswith(f"{sender} ")] == expected
        assert begun == texts  # none was handled twice


async def test_hints_during_each_read_keep_no_message_back() -> None:
    async with nodes(2, objects=[Post]) as [one, other]:
        await balanced(one, other)
        here, there = id_of(one), id_of(other)
        key, feed = ObjectKey("MembersPost", there), outbox_of(other)._feed
        reads = 0
        runner = feed._runner

        class Hinted:
            """Gives a hint while each of the first reads is made."""

            async def run(self, job: Callable[[], T]) -> T:
                nonlocal reads
                found = await runner.run(job)
                if not begun:
                    reads += 1
                    assert reads < 10
                    outbox_of(other).hinted(key)
                return found

        feed._runner = cast("Any", Hinted())
        await one.runtime.get(Post, here).send_slow(there, ["a", "b"])
        await anyio.sleep(5)
        assert await one.runtime.get(Post, there).read() == ["a", "b"]


async def test_a_message_with_a_lower_number_may_become_visible_later() -> None:
    async with nodes(2, objects=[Post]) as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        key, reader = ObjectKey("MembersPost", there), outbox_of(other)._reader
        sent = [
            NewMessage(key, "", new_token(), "add_slowly", b'[{"text":"%d"}]' % n, NOW)
            for n in range(40)
        ]
        hidden = {sent[3].token}

        def visible(read: Callable[..., list[StoredMessage]]) -> Callable[..., list[StoredMessage]]:
            def read_visible(*args: Any) -> list[StoredMessage]:
                *rest, limit = args
                found = [each for each in read(*rest, 99) if each.key.token not in hidden]
                return found[:limit]

            return read_visible

        for name in ("read_mail", "read_lane"):
            setattr(reader, name, visible(getattr(reader, name)))
        changes = MessageChanges(sent=sent)
        assert not one.membership.rows.writer.commit([Commit(key, None, messages=changes)], NOW)
        outbox_of(other).hinted(key)
        await anyio.sleep(4)
        assert len(begun) > DEPTH
        hidden.clear()
        outbox_of(other).hinted(key)
        await anyio.sleep(10)
        await one.runtime.settled(Post, there)
        assert sorted(begun, key=int) == [str(n) for n in range(40)]


async def test_a_lost_hint_is_made_up_for_when_the_shard_is_acquired() -> None:
    async with nodes(2, objects=[Post]) as [one, other]:
        await balanced(one, other)
        here, there = id_of(one), id_of(other)
        lose_hints(one)
        await one.runtime.get(Post, here).send(there, ["a"])
        await anyio.sleep(100)
        assert begun == []
        other.membership.lose()
        await anyio.sleep(10)
        assert await one.runtime.get(Post, there).read() == ["a"]


async def test_a_message_whose_commit_is_in_doubt_arrives_too() -> None:
    async with nodes(2, objects=[Post]) as [one, other]:
        await balanced(one, other)
        here, there = id_of(one), id_of(other)
        writer = one.membership.rows.writer
        commit = writer.commit

        def in_doubt(batch: Sequence[Commit], now: int) -> Collection[int]:
            setattr(writer, "commit", commit)  # noqa: B010
            commit(batch, now)
            raise StorageFault("the connection broke")

        setattr(writer, "commit", in_doubt)  # noqa: B010
        with pytest.raises(PersistenceError, match="the connection broke"):
            await one.runtime.get(Post, here).send(there, ["a"])
        await settle()
        assert begun == ["a"]


async def test_a_sender_that_dies_without_a_hint_leaves_nothing_behind() -> None:
    async with nodes(3, objects=[Post]) as [one, other, third]:
        await balanced(one, other, third)
        here, there = id_of(one), id_of(other)
        lose_hints(one)
        await one.runtime.get(Post, here).send(there, ["a"])
        await anyio.sleep(100)
        assert begun == []
        # The receiver's owner acquires no shard, and so has no other reason to look.
        third.membership.is_held = one.membership.is_held = True
        other.membership.member = attrs.evolve(other.membership.member, serves=False)
        one.membership.expire()
        one.membership.rows.remove(one.membership.current.holder)
        other.membership.look()
        await settle()
        assert begun == ["a"]
        third.membership.is_held = one.membership.is_held = False
        assert one.membership._lost is not None
        one.membership._lost(one.membership.current, "on purpose")
        await settle()


async def test_a_lane_moves_with_its_receiver() -> None:
    rows = Rows()
    async with node(rows, objects=[Post]) as one:
        await settle()
        here = "o0"
        receivers = [f"o{n}" for n in range(1, 9)]
        texts = [str(n) for n in range(3 * DEPTH)]
        for to in receivers:
            await one.runtime.get(Post, here).send_slow(to, [f"{to} {text}" for text in texts])
        await anyio.sleep(1)
        assert begun
        async with node(rows, objects=[Post]) as other:
            await balanced(one, other)
            assert len({rows.owners[one.membership.shard_of(to)] for to in receivers}) == 2
            await anyio.sleep(3)
            for to in receivers:  # both go on, and more is sent from the first
                await one.runtime.get(Post, here).send_slow(to, [f"{to} last"])
            await anyio.sleep(1)
        # And all of them move back.
        for to in receivers:
            await one.runtime.settled(Post, to)
            found = await one.runtime.get(Post, to).read()
            assert found == [f"{to} {text}" for text in (*texts, "last")]


async def test_an_object_that_comes_back_is_read_again() -> None:
    rows = Rows()
    async with node(rows, objects=[Post]) as one, node(rows, objects=[Post]) as other:
        await balanced(one, other)
        there = id_of(other)
        shard, sender = other.membership.shard_of(there), id_of(other, but=there)
        assert other.membership.shard_of(sender) != shard
        post = other.runtime.get(Post, sender)
        await post.send_later(there, "a")  # the lane sleeps there
        await settle()
        other.membership.give({shard: rows.terms[shard]}, one.membership.current.holder)
        await settle()
        await post.send(there, ["b"])
        await settle()
        one.membership.give({shard: rows.terms[shard]}, other.membership.current.holder)
        await settle()
        await post.send(there, ["c"])
        await anyio.sleep(10)
        assert await one.runtime.get(Post, there).read() == ["a", "b", "c"]


async def test_a_deposed_owner_acknowledges_nothing() -> None:
    async with nodes(2, objects=[Post]) as [one, other]:
        await balanced(one, other)
        here, there = id_of(one), id_of(other)
        texts = [str(n) for n in range(5)]
        await one.runtime.get(Post, here).send_slow(there, texts)
        await anyio.sleep(0.5)
        assert begun == ["0", "1", "2"]
        shard = other.membership.shard_of(there)
        other.membership.lose()  # in the middle of a turn
        assert one.membership.rows.owners[shard] != other.membership.current.holder
        await anyio.sleep(10)
        await one.runtime.settled(Post, there)
        assert await one.runtime.get(Post, there).read() == texts
        assert begun == ["0", "1", "2", "2", "3", "4"]


# --- dead letters, whose receivers are at another member -----------------------------------------


async def bury(at: Node, *texts: tuple[str, str]) -> list[str]:
    """Let messages to boxes die. Returns their ids, oldest first."""
    for to, text in texts:
        await at.runtime.send(Box.take, to, text)
        await settle()
    dead = await at.runtime.list_dead_messages(Box)
    assert len(dead) == len(texts)
    return [each.id for each in dead]


async def test_a_dead_letter_is_retried_by_the_member_that_has_its_receiver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with nodes(2, objects=[Box]) as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        ids = await bury(one, (there, "a"), (there, "b"))
        await one.runtime.get(Box, there).open()
        await anyio.sleep(10)  # past all scans
        monkeypatch.setattr(outbox_of(other)._feed, "rescan", None)
        assert await one.runtime.retry_message(ids[1]) is True
        await settle()
        assert await one.runtime.get(Box, there).look() == ["b"]
        assert await one.runtime.retry_message(ids[1]) is False
        assert [each.id for each in await other.runtime.list_dead_messages()] == ids[:1]


async def test_all_dead_letters_of_a_type_are_retried_wherever_their_receivers_are() -> None:
    async with nodes(2, objects=[Box]) as [one, other]:
        await balanced(one, other)
        here, there = id_of(one), id_of(other)
        await bury(one, (here, "a"), (there, "b"), (here, "c"), (there, "d"))
        for to in (here, there):
            await other.runtime.get(Box, to).open()
        assert await one.runtime.retry_messages(Box) == 4
        await settle()
        assert await one.runtime.get(Box, here).look() == ["a", "c"]
        assert await one.runtime.get(Box, there).look() == ["b", "d"]
        assert await other.runtime.list_dead_messages() == []
        assert await one.runtime.retry_messages(Box) == 0


async def test_a_dead_letter_is_dropped_from_any_member() -> None:
    async with nodes(2, objects=[Box]) as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        ids = await bury(one, (there, "a"), (there, "b"))
        assert await one.runtime.drop_message(ids[0]) is True
        assert await one.runtime.drop_message(ids[0]) is False
        assert await other.runtime.drop_message(ids[1]) is True
        await one.runtime.get(Box, there).open()
        assert await one.runtime.retry_messages(Box) == 0
        assert await one.runtime.get(Box, there).look() == []
