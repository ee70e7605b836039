"""Tests of once-keys: condition 15."""

from __future__ import annotations

import pytest

from ...storage import Commit, MessageChanges, OnceKey, OnceReply, Reader, Writer
from ._builders import key, message, save
from ._message_tests import MessageTests
from ._values import NOW, STATES


class OnceTests(MessageTests):
    """Replies are recorded with their turns, found until they expire, and removed."""

    def test_a_reply_is_recorded_with_its_turn(self, writer: Writer, reader: Reader) -> None:
        reply = OnceReply(OnceKey(key("a"), "k"), "add", "d1", "s1", b"[1]", NOW + 5)
        commit = Commit(key("a"), 0, b"1", messages=MessageChanges(recorded=[reply]))
        assert self.commit(writer, commit) == []
        assert self.once(reader, "a", "k") == reply
        assert self.once(reader, "a", "z") is None
        assert self.once(reader, "b", "k") is None

    def test_a_turn_that_changes_nothing_records_its_reply_at_its_revision(
        self, writer: Writer, reader: Reader
    ) -> None:
        stale = self.recording("a", "k")
        assert self.commit(writer, Commit(key("a"), 1, messages=stale)) == [0]
        assert self.once(reader, "a", "k") is None
        assert self.commit(writer, Commit(key("a"), 0, messages=stale)) == []
        assert self.once(reader, "a", "k") == stale.recorded[0]

    def test_a_key_that_is_there_makes_a_commit_stale(self, writer: Writer, reader: Reader) -> None:
        first = self.recording("a", "k", expires_at=NOW + 1)
        self.commit(writer, Commit(key("a"), 0, b"1", messages=first))
        second = self.recording("a", "k")
        batch = [Commit(key("a"), 1, b"2", messages=second), save("b", 0, b"1")]
        assert self.commit(writer, *batch) == [0]
        assert self.load(reader, "a", "b") == [(1, b"1"), (1, b"1")]
        assert self.once(reader, "a", "k") == first.recorded[0]

    def test_the_promise_of_a_reply_is_kept_by_its_message(
        self, writer: Writer, reader: Reader
    ) -> None:
        new, other = message("b", sender=None, lane=""), message("b", sender=None, lane="")
        promise = self.recording("b", "k", reply=None, token=new.token)
        promise.sent = [new]
        assert self.commit(writer, Commit(key("b"), None, messages=promise)) == []
        found = self.once(reader, "b", "k")
        assert found is not None
        assert found.is_pending
        for token in (None, other.token):
            wrong = self.recording("b", "k", token=token)
            assert self.commit(writer, Commit(key("b"), 0, messages=wrong)) == [0]
        kept = self.recording("b", "k", token=new.token)
        kept.acknowledged = [new.key]
        assert self.commit(writer, Commit(key("b"), 0, messages=kept)) == []
        assert self.once(reader, "b", "k") == kept.recorded[0]
        again = self.recording("b", "k", token=new.token)
        assert self.commit(writer, Commit(key("b"), 0, messages=again)) == [0]

    def test_an_expired_key_is_absent(self, writer: Writer, reader: Reader) -> None:
        first = self.recording("a", "k", expires_at=NOW)
        self.commit(writer, Commit(key("a"), 0, b"1", messages=first))
        assert reader.find_once([OnceKey(key("a"), "k")], NOW - 1) == first.recorded
        assert self.once(reader, "a", "k") is None
        second = self.recording("a", "k")
        assert self.commit(writer, Commit(key("a"), 1, b"2", messages=second)) == []
        assert self.once(reader, "a", "k") == second.recorded[0]

    def test_a_key_survives_its_object(self, writer: Writer, reader: Reader) -> None:
        recorded = self.recording("a", "k")
        self.commit(writer, Commit(key("a"), 0, b"1", messages=recorded))
        assert self.commit(writer, Commit(key("a"), 1, delete=True)) == []
        assert self.once(reader, "a", "k") == recorded.recorded[0]
        again = self.recording("a", "k")
        assert self.commit(writer, Commit(key("a"), 0, b"2", messages=again)) == [0]

    def test_two_turns_with_one_key_in_a_batch_have_one_effect(
        self, writer: Writer, reader: Reader
    ) -> None:
        batch = [Commit(key(one), 0, b"1", messages=self.recording("x", "k")) for one in ("a", "b")]
        assert self.commit(writer, *batch) == [1]
        assert self.load(reader, "a", "b") == [(1, b"1"), None]

    @pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
    def test_replies_are_exact(self, writer: Writer, reader: Reader, state: bytes) -> None:
        recorded = self.recording("a", "k", reply=state)
        self.commit(writer, Commit(key("a"), 0, messages=recorded))
        found = self.once(reader, "a", "k")
        assert found is not None
        self.check_exact(found.reply, state)

    def test_expired_keys_are_removed_in_passes(self, writer: Writer, reader: Reader) -> None:
        replies = [
            OnceReply(OnceKey(key(f"{n:03}"), "k"), "f", "", "", b"1", NOW + n % 2)
            for n in range(200)
        ]
        self.commit(writer, Commit(key("a"), 0, messages=MessageChanges(recorded=replies)))
        assert writer.clean_once(NOW - 1, 1000) == 0
        passes = [writer.clean_once(NOW, 30) for _ in range(5)]
        assert passes == [30, 30, 30, 10, 0]
        assert reader.list_once(None, 1000) == replies[1::2]

    def test_keys_are_listed_in_pages(self, writer: Writer, reader: Reader) -> None:
        replies = [
            OnceReply(OnceKey(key(one, kind), name), "f", "d", "s", b"[]", NOW)
            for kind in ("Cart", "cart")
            for one in ("'", "a", "é", "👾")
            for name in ("0", "k", "\uffff")
        ]
        recorded = MessageChanges(recorded=list(reversed(replies)))
        self.commit(writer, Commit(key("a"), 0, messages=recorded))
        for limit in (1, 5, 100):
            found: list[OnceReply] = []
            while page := reader.list_once(found[-1].key if found else None, limit):
                assert len(page) <= limit
                found += page
            assert found == replies
