"""Messages in a cluster on one SQLite file: any process sends, the owner delivers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import pytest

from trio_durable import DurableObject, handler

from .files import CLIENT, member

pytestmark = pytest.mark.anyio


class Mail(DurableObject, name="ClusterMail"):
    texts: list[str] = attrs.field(factory=list)

    @handler
    def add(self, text: str) -> None:
        if text == "refused":
            raise ValueError(text)
        self.texts.append(text)

    @handler
    def forward(self, to: str, text: str) -> None:
        self.ctx.send(Mail.add, to, text)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.texts


async def test_a_process_without_the_objects_sends_and_waits(tmp_path: Path) -> None:
    async with (
        member(tmp_path / "a.db", objects=[Mail]),
        member(tmp_path / "a.db", objects=[Mail], cluster=CLIENT) as guest,
    ):
        await guest.send(Mail.add, "ada", "from outside")
        await guest.settled(Mail, "ada")
        await guest.get(Mail, "bob").forward("ada", "from a turn")
        await guest.settled(Mail, "ada")
        assert await guest.get(Mail, "ada").read() == ["from outside", "from a turn"]


async def test_a_process_that_takes_over_delivers_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with AsyncExitStack() as stack:
        async with member(path, objects=[Mail]) as first:
            second = await stack.enter_async_context(member(path, objects=[Mail]))
            await first.send(Mail.add, "ada", "refused")
            await first.settled(Mail, "ada")
            await second.send(Mail.add, "ada", "read")
            await first.settled(Mail, "ada")
        await second.send(Mail.add, "ada", "later")
        await second.settled(Mail, "ada")
        assert await second.get(Mail, "ada").read() == ["read", "later"]
        [waiting] = await second.list_messages(Mail)
        assert (waiting.arguments, waiting.failures) == ({"text": "refused"}, 1)
