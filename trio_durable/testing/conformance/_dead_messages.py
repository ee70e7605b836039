"""Tests of dead letters, of counts, and of moving all messages: condition 13."""

from __future__ import annotations

import attrs
import pytest

from ..._keys import ObjectKey
from ...storage import (
    Burial,
    Commit,
    DeadMessage,
    MessageChanges,
    MessageSummary,
    OnceKey,
    OnceReply,
    Reader,
    StoredMessage,
    Writer,
    lane_of,
)
from ._builders import key, message, save
from ._message_tests import LANE, MessageTests
from ._values import NOW, TENANTS


class DeadMessageTests(MessageTests):
    """Dead letters are listed, retried and dropped; all of a tenant is restored and renamed."""

    # --- listing and dropping --------------------------------------------------------------------

    def test_dead_letters_are_listed_in_pages(self, writer: Writer, reader: Reader) -> None:
        sent = [message(f"{9 - n}", type_name=kind) for n in range(9) for kind in ("Cart", "cart")]
        self.send(writer, *sent)
        self.bury(writer, *reversed(sent))
        for kind in (None, "Cart", "cart", "none"):
            expected = [new.token for new in sent if kind in (None, new.to.type_name)]
            for limit in (1, 4, 100):
                found: list[DeadMessage] = []
                while page := reader.list_dead_messages(
                    kind, found[-1].message.key.seq if found else 0, limit
                ):
                    assert len(page) <= limit
                    found += page
                assert [each.message.key.token for each in found] == expected

    def test_dead_letters_are_found_by_token(self, writer: Writer, reader: Reader) -> None:
        dead, waiting = message("b"), message("b")
        self.send(writer, dead, waiting)
        self.bury(writer, dead)
        found = reader.load_dead_messages([5, dead.token, waiting.token])
        assert [each and each.message.key for each in found] == [None, dead.key, None]
        assert reader.load_dead_messages([dead.token], "acme") == [None]

    def test_only_dead_letters_are_dropped(self, writer: Writer, reader: Reader) -> None:
        sent = [message("b") for _ in range(3)]
        self.send(writer, *sent)
        self.bury(writer, *sent[:2])
        tokens = [sent[0].token, sent[2].token, 5]
        assert writer.drop_messages(tokens) == [sent[0].token]
        assert self.dead_tokens(reader) == [sent[1].token]
        assert self.lane(reader, "b") == [sent[2].token]
        assert writer.drop_messages(tokens) == []

    # --- retrying --------------------------------------------------------------------------------

    def test_a_retried_letter_is_at_the_end_of_its_lane(
        self, writer: Writer, reader: Reader
    ) -> None:
        dead, second, third = (message("b") for _ in range(3))
        self.send(writer, dead, second)
        self.bury(writer, dead)
        self.send(writer, third)
        (retried,) = writer.retry_messages([dead.token])
        assert retried.key.seq > third.seq
        assert (retried.key.token, retried.key.lane) == (dead.token, LANE)
        assert self.lane(reader, "b") == [second.token, third.token, dead.token]
        assert self.dead_tokens(reader) == []
        commit = Commit(key("b"), None, messages=MessageChanges(acknowledged=[retried.key]))
        assert self.commit(writer, commit) == []

    def test_many_are_retried_in_the_order_given(self, writer: Writer, reader: Reader) -> None:
        sent = [message("b") for _ in range(6)]
        self.send(writer, *sent)
        self.bury(writer, sent[4], sent[1], sent[0], sent[5])
        tokens = self.dead_tokens(reader)
        assert tokens == [sent[n].token for n in (0, 1, 4, 5)]
        retried = writer.retry_messages([*tokens[2:], 7, sent[2].token, *tokens[:2]])
        assert [each.key.token for each in retried] == [*tokens[2:], *tokens[:2]]
        order = [sent[n].token for n in (2, 3, 4, 5, 0, 1)]
        assert self.lane(reader, "b") == order
        assert writer.retry_messages(tokens) == []
        assert writer.retry_messages([]) == []

    def test_a_retry_says_whether_later_messages_have_run(
        self, writer: Writer, reader: Reader
    ) -> None:
        dead, second, third = (message("b") for _ in range(3))
        other = message("b", sender=key("c"))
        own, own_later = (message("b", sender=None, lane="") for _ in range(2))
        earlier = message("c")
        self.send(writer, earlier, dead, own, second, third, other, own_later)
        self.bury(writer, dead, own)
        # Neither what waits, nor what dies, nor what is of another lane has run.
        self.bury(writer, second)
        for new in (other, earlier, own_later):
            assert self.acknowledge_message(writer, new)
        assert [each.is_overtaken for each in reader.list_dead_messages(None, 0, 9)] == [False] * 3
        (retried,) = writer.retry_messages([dead.token])
        assert retried.is_overtaken is False
        commit = MessageChanges(buried=[Burial(retried.key, 1, "no")])
        assert self.commit(writer, Commit(key("b"), None, messages=commit)) == []
        assert self.acknowledge_message(writer, third)
        overtaken = {
            each.message.key.token: each.is_overtaken
            for each in reader.list_dead_messages(None, 0, 9)
        }
        # `dead` has been retried, behind `third`.
        assert overtaken == {own.token: False, second.token: True, dead.token: False}
        assert writer.retry_messages([second.token])[0].is_overtaken is True

    # --- listing what waits, and counts ----------------------------------------------------------

    def test_waiting_messages_are_listed_in_pages(self, writer: Writer, reader: Reader) -> None:
        sent = [
            message(to, sender=key(of), type_name=kind)
            for _ in range(2)
            for kind in ("cart", "Cart")
            for to in ("b", "a")
            for of in ("y", "x")
        ]
        sent += [message(to, lane="", wake_at=NOW) for to in ("b", "a")]
        self.send(writer, *sent)
        places = sorted((n.to.type_name, n.to.object_id, n.lane, n.seq, n.token) for n in sent)
        for kind, one in ((None, None), ("Cart", None), ("cart", "a"), ("none", None)):
            expected = [p for p in places if kind in (None, p[0]) and one in (None, p[1])]
            whole = reader.list_messages(kind, one, None, 100)
            receivers = list(dict.fromkeys(each.key.to for each in whole))
            # Those of a receiver are together, by lane and number.
            by_receiver = sorted(
                expected, key=lambda p: (receivers.index(ObjectKey(p[0], p[1])), p[2:])
            )
            assert [each.key.token for each in whole] == [p[4] for p in by_receiver]
            for limit in (1, 5, 100):
                found: list[StoredMessage] = []
                while page := reader.list_messages(
                    kind, one, found[-1].key if found else None, limit
                ):
                    assert len(page) <= limit
                    found += page
                assert found == whole

    def test_a_summary_counts_by_type(self, writer: Writer, reader: Reader) -> None:
        assert reader.summarize_messages() == []
        sent = [message("b", type_name=kind) for kind in ("Cart", "Cart", "cart", "Order")]
        sent[0].sent_at, sent[1].sent_at = NOW - 5, NOW - 9
        self.send(writer, *sent)
        self.bury(writer, sent[1], sent[3])
        assert reader.summarize_messages() == [
            MessageSummary("Cart", 1, NOW - 5, 1),
            MessageSummary("Order", 0, None, 1),
            MessageSummary("cart", 1, NOW, 0),
        ]

    # --- tenants ---------------------------------------------------------------------------------

    def fill_with_messages(self, writer: Writer, tenant: str) -> list[int]:
        """Send two messages, of which one dies, and record a key; return the tokens."""
        sent = [message("b", tenant=tenant) for _ in range(2)]
        self.send(writer, *sent)
        self.bury(writer, sent[1])
        recorded = self.recording("b", "k", tenant=tenant)
        commit = Commit(key("b", tenant=tenant), None, messages=recorded)
        assert self.commit(writer, commit) == []
        return [new.token for new in sent]

    def test_messages_of_one_tenant_are_seen_there_alone(
        self, writer: Writer, reader: Reader
    ) -> None:
        tokens = {tenant: self.fill_with_messages(writer, tenant) for tenant in TENANTS}
        assert reader.list_tenants(None, 10) == TENANTS[1:]
        for tenant in TENANTS:
            assert self.waiting_tokens(reader, tenant) == {tokens[tenant][0]}
            assert self.dead_tokens(reader, tenant) == [tokens[tenant][1]]
            assert len(reader.list_once(None, 10, tenant)) == 1
            assert [each.key.tenant for each in reader.list_receivers(None, 10, tenant)] == [tenant]
            assert reader.summarize_messages(tenant) == [MessageSummary("Cart", 1, NOW, 1)]
        assert writer.drop_messages([tokens["acme"][1]], "a-b") == []
        assert writer.drop_tenant("acme") is True
        assert self.waiting_tokens(reader, "acme") == set()
        assert self.dead_tokens(reader, "acme") == []
        assert reader.list_once(None, 10, "acme") == []
        assert self.waiting_tokens(reader, "a-b") == {tokens["a-b"][0]}
        # Nothing of it comes back with the tenant.
        assert self.commit(writer, Commit(key("x", tenant="acme"), 0, b"1")) == []
        assert self.waiting_tokens(reader, "acme") == set()

    def test_a_tenant_that_is_not_there_has_no_messages(
        self, writer: Writer, reader: Reader
    ) -> None:
        new = message("b", tenant="none")
        commit = Commit(new.to, None, messages=self.acknowledging(new))
        assert self.commit(writer, commit) == [0]
        cancel = MessageChanges(cancelled=["k"])
        assert self.commit(writer, Commit(new.to, None, messages=cancel)) == []
        assert cancel.taken_back == set()
        assert writer.mark_message(new.key) is False
        writer.rename_messages("Cart", "cart", "none")
        assert writer.retry_messages([1], "none") == []
        assert writer.drop_messages([1], "none") == []
        assert writer.clean_once(NOW, 10, "none") == 0
        assert reader.load_messages([new.key]) == [None]
        assert reader.read_mail(new.to, None, 16, 16) == []
        assert reader.read_lane(new.to, LANE, 0, 16) == []
        assert reader.due_messages(NOW, None, 10, (), "none") == []
        assert reader.find_sent(new.to, "k") is None
        assert reader.load_dead_messages([1], "none") == [None]
        assert reader.find_once([OnceKey(new.to, "k")], NOW) == [None]
        assert reader.summarize_messages("none") == []
        assert reader.list_tenants(None, 10) == []

    def test_a_stale_commit_creates_no_tenant(self, writer: Writer, reader: Reader) -> None:
        for commit in (
            Commit(key("a", tenant="acme"), 1, messages=self.sending(message("b", tenant="acme"))),
            Commit(
                key("a", tenant="acme"),
                None,
                messages=self.changing("withdrawn", message("b", tenant="acme").key),
            ),
        ):
            assert self.commit(writer, commit, save("b", 0, b"1")) == [0]
            self.commit(writer, Commit(key("b"), 1, delete=True))
        assert reader.list_tenants(None, 10) == []

    # --- moving ----------------------------------------------------------------------------------

    def everything(
        self, reader: Reader, tenant: str = ""
    ) -> tuple[list[StoredMessage], list[DeadMessage], list[OnceReply]]:
        return (
            reader.list_messages(None, None, None, 1000, tenant),
            reader.list_dead_messages(None, 0, 1000, tenant),
            reader.list_once(None, 1000, tenant),
        )

    @staticmethod
    def moved(one: StoredMessage, tenant: str, seq: int = 0) -> StoredMessage:
        to = attrs.evolve(one.key.to, tenant=tenant)
        sender = one.sender and attrs.evolve(one.sender, tenant=tenant)
        return attrs.evolve(one, key=one.key._replace(to=to, seq=seq), sender=sender)

    def test_all_is_restored_with_other_numbers(self, writer: Writer, reader: Reader) -> None:
        sent = [message("b", sender=key(of), hops=2) for of in "xxyy"]
        sent[0].reply_to, sent[0].failed_to, sent[0].once_key = "r", "f", "o"
        sent.append(self.reminder())
        self.send(writer, *sent)
        self.bury(writer, sent[1])
        writer.defer_messages([])
        self.acknowledge_message(writer, sent[2])
        recorded = self.recording("b", "k", reply=None, token=sent[0].token)
        self.commit(writer, Commit(key("b"), None, messages=recorded))
        waiting, dead, once = self.everything(reader)
        there = [self.moved(one, "acme", one.key.seq) for one in waiting]
        dead_there = [
            attrs.evolve(each, message=self.moved(each.message, "acme", 1), is_overtaken=True)
            for each in dead
        ]
        once_there = [
            attrs.evolve(each, key=each.key._replace(to=key("b", tenant="acme"))) for each in once
        ]
        restored = writer.restore_messages(there, dead_there, once_there, NOW)
        assert restored == ([], [])
        new_waiting, new_dead, new_once = self.everything(reader, "acme")
        assert [self.moved(one, "acme") for one in new_waiting] == [
            self.moved(one, "acme") for one in waiting
        ]
        assert [self.moved(each.message, "acme") for each in new_dead] == [
            self.moved(each.message, "acme") for each in dead
        ]
        assert [(each.died_at, each.is_overtaken) for each in new_dead] == [(NOW, True)]
        assert new_once == once_there
        numbers = [one.key.seq for one in new_waiting]
        assert numbers == sorted(numbers)
        assert new_dead[0].message.key.seq < numbers[0]
        assert reader.list_tenants(None, 10) == ["acme"]

    def test_what_is_there_is_not_restored(self, writer: Writer, reader: Reader) -> None:
        waiting_token, dead_token = self.fill_with_messages(writer, "")
        waiting, dead, once = before = self.everything(reader)
        other = attrs.evolve(waiting[0], key=waiting[0].key._replace(token=77))
        changed = attrs.evolve(once[0], reply=b"2")
        tokens, keys = writer.restore_messages([*waiting, other], dead, [changed], NOW)
        assert sorted(tokens) == sorted([waiting_token, dead_token])
        assert keys == [once[0].key]
        after = self.everything(reader)
        assert (after[0][0], after[1], after[2]) == (before[0][0], dead, once)
        assert [one.key.token for one in after[0]] == [waiting_token, 77]
        # A dead letter that waits there now, and the other way round.
        letter = DeadMessage(waiting[0], NOW, is_overtaken=False)
        tokens, _ = writer.restore_messages([dead[0].message], [letter], [], NOW)
        assert sorted(tokens) == sorted([waiting_token, dead_token])
        assert self.everything(reader) == after

    def test_an_expired_key_is_restored_over(self, writer: Writer, reader: Reader) -> None:
        recorded = self.recording("b", "k", expires_at=NOW)
        self.commit(writer, Commit(key("b"), 0, messages=recorded))
        newer = attrs.evolve(recorded.recorded[0], reply=b"2", expires_at=NOW + 9)
        assert writer.restore_messages([], [], [newer], NOW) == ([], [])
        assert reader.list_once(None, 10) == [newer]

    def test_a_type_is_renamed_everywhere(self, writer: Writer, reader: Reader) -> None:
        old = key("s", "Old")
        to_old = message("b", type_name="Old", sender=old)
        from_old = message("b", sender=old)
        dead = message("b", type_name="Old", sender=old)
        new = message("b", type_name="New", sender=key("s", "New"))
        own = message("b", sender=old, lane="", wake_at=NOW)
        own.sender_key = "k"
        other = message("b", type_name="Older", sender=key("s", "Older"))
        foreign = message("b", type_name="Old", sender=key("s", "Older"))
        self.send(writer, new, to_old, from_old, dead, own, other, foreign)
        self.bury(writer, dead)
        replies = [
            OnceReply(OnceKey(key("a", kind), name), kind, "", "", b"1", NOW + 9)
            for kind, name in (("Old", "x"), ("Old", "y"), ("New", "x"), ("Older", "x"))
        ]
        self.commit(writer, Commit(key("a"), 0, messages=MessageChanges(recorded=replies)))
        writer.rename_messages("Old", "New")
        renamed = key("s", "New")
        lane = lane_of(renamed)
        found = reader.read_lane(key("b", "New"), lane, 0, 10)
        assert [one.key.token for one in found] == [new.token, to_old.token]
        assert [one.sender for one in found] == [renamed, renamed]
        assert self.lane(reader, "b", lane) == [from_old.token]
        assert self.lane(reader, "b", LANE) == []
        letters = reader.list_dead_messages("New", 0, 10)
        assert [(each.message.key.token, each.message.sender) for each in letters] == [
            (dead.token, renamed)
        ]
        assert letters[0].message.key.lane == lane
        assert reader.find_sent(renamed, "k") == own.key
        stays = reader.read_lane(key("b", "Older"), lane_of(key("s", "Older")), 0, 10)
        assert [one.key.token for one in stays] == [other.token]
        kept = reader.read_lane(key("b", "New"), lane_of(key("s", "Older")), 0, 10)
        assert [one.key.token for one in kept] == [foreign.token]
        assert reader.list_messages("Old", None, None, 10) == []
        keys = [(r.key.to.type_name, r.key.key, r.handler) for r in reader.list_once(None, 10)]
        assert keys == [("New", "x", "New"), ("New", "y", "Old"), ("Older", "x", "Older")]

    @pytest.mark.parametrize("tenant", ["", "acme"])
    def test_all_reads_of_a_snapshot_see_one_state(
        self, writer: Writer, reader: Reader, tenant: str
    ) -> None:
        new = message("b", tenant=tenant)
        self.send(writer, new)
        with reader.snapshot():
            assert reader.load([new.to]) == [None]
            done = Commit(new.to, 0, b"1", messages=self.acknowledging(new))
            assert self.commit(writer, done) == []
            assert reader.load([new.to]) == [None]
            assert self.waiting_tokens(reader, tenant) == {new.token}
            assert len(reader.browse_objects(None, None, 10, tenant)) == 0
        assert self.waiting_tokens(reader, tenant) == set()
        assert len(reader.browse_objects(None, None, 10, tenant)) == 1
