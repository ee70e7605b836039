"""Base class of the tests of messages: short forms of frequent calls."""

from __future__ import annotations

import pytest

from ...storage import (
    Burial,
    Commit,
    MessageChanges,
    MessageKey,
    NewMessage,
    OnceKey,
    OnceReply,
    Reader,
    Storage,
    Writer,
    lane_of,
)
from ._builders import key, message
from ._tests import StorageTests
from ._values import NOW, SECOND

LANE = lane_of(key("a"))


class MessageTests(StorageTests):
    """Helpers for the tests of messages, which are skipped if the storage keeps none."""

    @pytest.fixture(autouse=True)
    def keeping_messages(self, request: pytest.FixtureRequest) -> None:
        """Skip the tests of messages if the storage keeps none."""
        if not issubclass(self.group_of(request), MessageTests):
            return
        storage: Storage = request.getfixturevalue("storage")
        if not storage.keeps_messages:
            pytest.skip("this storage keeps no messages")

    @staticmethod
    def sending(*sent: NewMessage) -> MessageChanges:
        return MessageChanges(sent=list(sent))

    @staticmethod
    def acknowledging(*sent: NewMessage) -> MessageChanges:
        return MessageChanges(acknowledged=[new.key for new in sent])

    @staticmethod
    def changing(kind: str, one: MessageKey) -> MessageChanges:
        """Changes that use up a message, by one of the fields."""
        if kind == "buried":
            return MessageChanges(buried=[Burial(one, 1, "no")])
        if kind == "withdrawn":
            return MessageChanges(withdrawn=[one])
        return MessageChanges(acknowledged=[one])

    @staticmethod
    def another(one: MessageKey, field: str) -> MessageKey:
        """A key that differs in one field."""
        return {
            "to": one._replace(to=key("c")),
            "lane": one._replace(lane="Cart/z"),
            "seq": one._replace(seq=one.seq + 1),
            "token": one._replace(token=1),
        }[field]

    @staticmethod
    def recording(
        object_id: str,
        name: str,
        *,
        reply: bytes | None = b"1",
        expires_at: int = NOW + SECOND,
        token: int | None = None,
        tenant: str = "",
    ) -> MessageChanges:
        once_key = OnceKey(key(object_id, tenant=tenant), name)
        recorded = OnceReply(once_key, "add", "d", "s", reply, expires_at, token)
        return MessageChanges(recorded=[recorded])

    def outside(self, *sent: NewMessage) -> Commit:
        """A commit that sends from outside of any object."""
        return Commit(sent[0].to, None, messages=self.sending(*sent))

    def send(self, writer: Writer, *sent: NewMessage) -> None:
        """Send messages from outside, in one commit."""
        assert self.commit(writer, self.outside(*sent)) == []

    def acknowledge_message(self, writer: Writer, new: NewMessage) -> bool:
        """Acknowledge a message. Returns whether it was waiting."""
        commit = Commit(new.to, None, messages=self.acknowledging(new))
        return self.commit(writer, commit) == []

    def bury(self, writer: Writer, *sent: NewMessage) -> None:
        """Turn messages into dead letters."""
        for new in sent:
            burial = MessageChanges(buried=[Burial(new.key, 3, "dead")])
            assert self.commit(writer, Commit(new.to, None, messages=burial)) == []

    @staticmethod
    def reminder(name: str = "k", *, sender: str = "a", to: str = "b") -> NewMessage:
        """A delayed message with a sender key."""
        new = message(to, sender=key(sender), lane="", wake_at=NOW + 50)
        new.sender_key = name
        return new

    @staticmethod
    def lane(reader: Reader, object_id: str, lane: str = LANE) -> list[int]:
        """The tokens of the messages of a lane."""
        return [one.key.token for one in reader.read_lane(key(object_id), lane, 0, 10_000)]

    @staticmethod
    def waiting_tokens(reader: Reader, tenant: str = "") -> set[int]:
        """The tokens of all waiting messages."""
        return {one.key.token for one in reader.list_messages(None, None, None, 10_000, tenant)}

    @staticmethod
    def dead_tokens(reader: Reader, tenant: str = "") -> list[int]:
        """The tokens of all dead letters, by number."""
        dead = reader.list_dead_messages(None, 0, 10_000, tenant)
        return [each.message.key.token for each in dead]

    @staticmethod
    def once(reader: Reader, object_id: str, name: str) -> OnceReply | None:
        """A once-key, as of now."""
        (found,) = reader.find_once([OnceKey(key(object_id), name)], NOW)
        return found
