"""Tests of messages in commits, and of the commits' conditions: condition 13."""

from __future__ import annotations

import pytest

from ...storage import (
    RECEIVER_DELETED,
    Burial,
    Commit,
    MessageChanges,
    MessageKey,
    Reader,
    Storage,
    Writer,
    lane_of,
)
from ._builders import changes, key, message, save
from ._message_tests import MessageTests
from ._values import NOW, ODD_IDS, STATES


class MessageCommitTests(MessageTests):
    """Sending, acknowledging, burying, withdrawing and cancelling, as parts of commits."""

    # --- sending ---------------------------------------------------------------------------------

    def test_a_message_is_read_as_it_was_sent(self, writer: Writer, reader: Reader) -> None:
        new = message("b", arguments=b'{"n": [1]}', wake_at=NOW + 5, lane="", hops=7)
        new.sender, new.sender_key, new.once_key = key("s"), "reminder", "k"
        new.reply_to, new.failed_to = "done", "refused"
        self.send(writer, new)
        (found,) = reader.load_messages([new.key])
        assert found is not None
        assert found.key == MessageKey(key("b"), "", new.seq, new.token)
        assert (found.handler, found.arguments) == ("handle", b'{"n": [1]}')
        assert (found.sent_at, found.wake_at) == (NOW, NOW + 5)
        assert (found.failures, found.crashes, found.hops) == (0, 0, 7)
        assert (found.sender, found.reply_to, found.failed_to) == (key("s"), "done", "refused")
        assert (found.sender_key, found.once_key, found.last_error) == ("reminder", "k", None)

    def test_optional_fields_stay_absent(self, writer: Writer, reader: Reader) -> None:
        new = message("b", sender=None, lane="")
        self.send(writer, new)
        (found,) = reader.load_messages([new.key])
        assert found is not None
        assert (found.wake_at, found.sender, found.reply_to) == (None, None, None)
        assert (found.failed_to, found.sender_key, found.once_key) == (None, None, None)

    @pytest.mark.parametrize("arguments", STATES.values(), ids=STATES.keys())
    def test_arguments_are_exact(self, writer: Writer, reader: Reader, arguments: bytes) -> None:
        new = message("b", arguments=arguments)
        self.send(writer, new)
        (found,) = reader.read_lane(key("b"), new.lane, 0, 10)
        self.check_exact(found.arguments, arguments)

    def test_odd_ids_are_receivers_senders_and_lanes(self, writer: Writer, reader: Reader) -> None:
        sent = [message(to, sender=key(of)) for to in ODD_IDS for of in ODD_IDS[:5]]
        self.send(writer, *sent)
        for new in sent:
            (found,) = reader.read_lane(new.to, new.lane, 0, 2)
            assert (found.key, found.sender) == (new.key, new.sender)
        found_ids = [each.key.object_id for each in reader.list_receivers(None, 1000)]
        assert sorted(found_ids) == sorted(ODD_IDS)

    def test_tokens_of_62_bits_are_exact(self, writer: Writer, reader: Reader) -> None:
        new = message("b")
        new.token = 2**62 - 1
        self.send(writer, new)
        assert self.lane(reader, "b") == [2**62 - 1]

    def test_messages_are_in_the_order_of_their_commits(
        self, writer: Writer, reader: Reader
    ) -> None:
        sent = [message("b") for _ in range(12)]
        # In one commit, in two of a batch, and in a batch each; never by their times.
        for n, new in enumerate(sent):
            new.sent_at = NOW - n
        self.send(writer, *sent[:3])
        batch = [self.outside(sent[3]), self.outside(sent[4]), self.outside(sent[5])]
        assert self.commit(writer, *batch) == []
        for new in sent[6:]:
            self.send(writer, new)
        assert [new.seq for new in sent] == sorted({new.seq for new in sent})
        assert self.lane(reader, "b") == [new.token for new in sent]

    def test_a_number_is_not_given_again_while_the_writer_is_open(
        self, writer: Writer, reader: Reader
    ) -> None:
        first = message("b")
        self.send(writer, first)
        assert self.acknowledge_message(writer, first)
        second = message("b")
        self.send(writer, second)
        assert second.seq > first.seq
        assert self.lane(reader, "b") == [second.token]

    def test_numbers_go_on_after_opening_again(self, storage: Storage) -> None:
        writer = storage.open_writer()
        first, dead = message("b"), message("b")
        self.send(writer, first, dead)
        self.bury(writer, dead)
        writer.close()
        writer = storage.open_writer()
        second = message("b")
        self.send(writer, second)
        assert first.seq < dead.seq < second.seq
        writer.close()

    def test_a_commit_that_only_sends_is_conditional(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("a", 0, b"1"))
        for revision in (0, 2):
            new = message("b")
            commit = Commit(key("a"), revision, messages=MessageChanges(sent=[new]))
            assert self.commit(writer, commit) == [0]
            assert new.seq == 0
        assert self.lane(reader, "b") == []
        new = message("b")
        assert self.commit(writer, Commit(key("a"), 1, messages=MessageChanges(sent=[new]))) == []
        assert self.lane(reader, "b") == [new.token]
        assert self.load(reader, "a") == [(1, b"1")]

    def test_a_stale_commit_sends_nothing(self, writer: Writer, reader: Reader) -> None:
        sent = [message("b") for _ in range(3)]
        batch = [
            Commit(key(one), revision, b"1", messages=MessageChanges(sent=[new]))
            for one, revision, new in zip("axc", (0, 1, 0), sent, strict=True)
        ]
        assert self.commit(writer, *batch) == [1]
        assert self.lane(reader, "b") == [sent[0].token, sent[2].token]
        assert sent[0].seq
        assert sent[1].seq == 0
        assert sent[2].seq > sent[0].seq
        assert self.load(reader, *"axc") == [(1, b"1"), None, (1, b"1")]

    def test_a_lost_claim_sends_nothing(self, writer: Writer, reader: Reader) -> None:
        commit = Commit(
            key("a"),
            0,
            b"1",
            alarms=changes(acknowledged={"x": 1}),
            messages=MessageChanges(sent=[message("b")]),
        )
        assert self.commit(writer, commit) == [0]
        assert self.lane(reader, "b") == []
        assert self.load(reader, "a") == [None]

    def test_state_alarms_and_messages_apply_together(self, writer: Writer, reader: Reader) -> None:
        new = message("b")
        alarms = changes({"x": NOW})
        commit = Commit(key("a"), 0, b"1", alarms=alarms, messages=MessageChanges(sent=[new]))
        assert self.commit(writer, commit) == []
        assert self.load(reader, "a") == [(1, b"1")]
        assert self.alarms(reader) == {"x": NOW}
        assert self.lane(reader, "b") == [new.token]

    def test_sending_from_outside_may_repeat_a_key(self, writer: Writer, reader: Reader) -> None:
        sent = [message("b", sender=None, lane="") for _ in range(3)]
        batch = [self.outside(sent[0]), save("b", 0, b"1"), self.outside(sent[1])]
        assert self.commit(writer, *batch, self.outside(sent[2])) == []
        assert self.lane(reader, "b", "") == [new.token for new in sent]
        assert self.load(reader, "b") == [(1, b"1")]

    @pytest.mark.parametrize("size", [1, 2, 3, 64, 65, 1000, 1100])
    def test_batches_of_messages_of_all_sizes(
        self, writer: Writer, reader: Reader, size: int
    ) -> None:
        ids = [f"{n:04}" for n in range(size)]
        sent = [message(one, sender=key("a")) for one in ids]
        self.check_all(
            self.commit(
                writer,
                *(
                    Commit(key(f"s{new.to.object_id}"), 0, b"1", messages=self.sending(new))
                    for new in sent
                ),
            ),
            [],
        )
        assert [new.seq for new in sent] == sorted({new.seq for new in sent})
        done = [
            Commit(new.to, 0, b"2", messages=MessageChanges(acknowledged=[new.key])) for new in sent
        ]
        assert self.commit(writer, *done) == []
        assert reader.list_messages(None, None, None, 10) == []
        self.check_all(self.load(reader, *ids), [(1, b"2")] * size)
        self.check_all(self.commit(writer, *done), list(range(size)))

    def test_more_messages_in_a_commit_than_a_statement_has_room_for(
        self, writer: Writer, reader: Reader
    ) -> None:
        sent = [message("b") for _ in range(5000)]
        self.send(writer, *sent)
        found = reader.read_lane(key("b"), sent[0].lane, 0, 10_000)
        self.check_all([one.key for one in found], [new.key for new in sent])
        done = MessageChanges(acknowledged=[new.key for new in sent[:4999]])
        wrong = done.acknowledged[-1]._replace(token=1)
        lost = MessageChanges(acknowledged=[*done.acknowledged[:-1], wrong])
        assert self.commit(writer, Commit(key("b"), 0, b"1", messages=lost)) == [0]
        assert len(reader.list_messages(None, None, None, 10_000)) == 5000
        assert self.commit(writer, Commit(key("b"), 0, b"1", messages=done)) == []
        assert self.lane(reader, "b") == [sent[-1].token]

    # --- acknowledging ---------------------------------------------------------------------------

    def test_an_acknowledged_message_is_gone(self, writer: Writer, reader: Reader) -> None:
        sent = [message("b") for _ in range(2)]
        self.send(writer, *sent)
        commit = Commit(key("b"), 0, b"1", messages=self.acknowledging(sent[0]))
        assert self.commit(writer, commit) == []
        assert self.lane(reader, "b") == [sent[1].token]
        assert reader.load_messages([sent[0].key, sent[1].key])[0] is None
        assert self.load(reader, "b") == [(1, b"1")]

    def test_an_acknowledgement_alone_is_conditional(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("b", 0, b"1"))
        new = message("b")
        self.send(writer, new)
        for revision in (0, 2):
            commit = Commit(key("b"), revision, messages=self.acknowledging(new))
            assert self.commit(writer, commit) == [0]
        assert self.lane(reader, "b") == [new.token]
        assert self.commit(writer, Commit(key("b"), 1, messages=self.acknowledging(new))) == []
        assert self.lane(reader, "b") == []

    @pytest.mark.parametrize("field", ["seq", "token", "lane", "to"])
    @pytest.mark.parametrize("kind", ["acknowledged", "buried", "withdrawn"])
    def test_another_message_than_the_one_that_waits_makes_a_commit_stale(
        self, writer: Writer, reader: Reader, field: str, kind: str
    ) -> None:
        new = message("b")
        self.send(writer, new)
        wrong = self.another(new.key, field)
        commit = Commit(key("b"), 0, b"1", messages=self.changing(kind, wrong))
        assert self.commit(writer, commit, save("d", 0, b"1")) == [0]
        assert self.lane(reader, "b") == [new.token]
        assert self.load(reader, "b", "d") == [None, (1, b"1")]
        assert reader.list_dead_messages(None, 0, 10) == []

    @pytest.mark.parametrize("kind", ["acknowledged", "buried", "withdrawn"])
    def test_a_message_can_be_used_up_once(self, writer: Writer, reader: Reader, kind: str) -> None:
        sent = [message("b") for _ in range(2)]
        self.send(writer, *sent)
        first = Commit(key("b"), 0, b"1", messages=self.changing(kind, sent[0].key))
        assert self.commit(writer, first) == []
        both = self.changing(kind, sent[1].key)
        both.acknowledged = [*both.acknowledged, sent[0].key]
        assert self.commit(writer, Commit(key("b"), 1, b"2", messages=both)) == [0]
        assert self.lane(reader, "b") == [sent[1].token]
        assert self.load(reader, "b") == [(1, b"1")]

    def test_commits_of_a_batch_apply_one_after_the_other(
        self, writer: Writer, reader: Reader
    ) -> None:
        new = message("b")
        self.send(writer, new)
        taken = Commit(key("a"), 0, b"1", messages=MessageChanges(withdrawn=[new.key]))
        done = Commit(key("b"), 0, b"1", messages=self.acknowledging(new))
        assert self.commit(writer, taken, done) == [1]
        assert self.load(reader, "a", "b") == [(1, b"1"), None]
        new = message("b")
        self.send(writer, new)
        taken = Commit(key("a"), 1, b"2", messages=MessageChanges(withdrawn=[new.key]))
        done = Commit(key("b"), 0, b"2", messages=self.acknowledging(new))
        assert self.commit(writer, done, taken) == [1]
        assert self.load(reader, "a", "b") == [(1, b"1"), (1, b"2")]

    def test_messages_from_outside_need_no_revision(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("b", 0, b"1"))
        sent = [message("b") for _ in range(2)]
        self.send(writer, *sent)
        both = MessageChanges([sent[0].key], [Burial(sent[1].key, 3, "no such handler")])
        assert self.commit(writer, Commit(key("b"), None, messages=both)) == []
        assert self.lane(reader, "b") == []
        assert self.dead_tokens(reader) == [sent[1].token]

    # --- burying ---------------------------------------------------------------------------------

    def test_a_buried_message_waits_no_more(self, writer: Writer, reader: Reader) -> None:
        poison, other = message("b"), message("b")
        self.send(writer, poison, other)
        failed = message("a", sender=key("b"))
        both = MessageChanges(buried=[Burial(poison.key, 5, 'it\'s "é"')], sent=[failed])
        (before,) = reader.load_messages([poison.key])
        assert before is not None
        writer.commit([Commit(key("b"), 0, messages=both)], NOW + 9)
        assert self.lane(reader, "b") == [other.token]
        assert self.lane(reader, "a", lane_of(key("b"))) == [failed.token]
        (dead,) = reader.list_dead_messages("Cart", 0, 10)
        assert (dead.died_at, dead.is_overtaken) == (NOW + 9, False)
        assert (dead.message.failures, dead.message.last_error) == (5, 'it\'s "é"')
        assert (dead.message.key, dead.message.arguments) == (before.key, before.arguments)
        assert (dead.message.sender, dead.message.handler) == (before.sender, before.handler)

    def test_a_stale_commit_buries_nothing(self, writer: Writer, reader: Reader) -> None:
        new = message("b")
        self.send(writer, new)
        burial = MessageChanges(buried=[Burial(new.key, 5, "no")], sent=[message("a")])
        assert self.commit(writer, Commit(key("b"), 1, messages=burial)) == [0]
        assert self.lane(reader, "b") == [new.token]
        assert self.dead_tokens(reader) == []
        assert self.lane(reader, "a") == []

    # --- deletion --------------------------------------------------------------------------------

    @pytest.mark.parametrize("stored", [False, True])
    def test_what_waits_for_a_deleted_object_becomes_dead(
        self, writer: Writer, reader: Reader, stored: bool
    ) -> None:
        if stored:
            self.commit(writer, save("b", 0, b"1"))
        waiting = [
            message("b"),
            message("b", sender=key("c")),
            message("b", sender=None, lane=""),
            message("b", sender=None, lane="", wake_at=NOW + 5),
        ]
        others = [message("bb"), message("b", type_name="cart")]
        self.send(writer, *waiting, *others)
        assert self.commit(writer, Commit(key("b"), 7, delete=True)) == [0]
        assert self.dead_tokens(reader) == []
        assert self.commit(writer, Commit(key("b"), int(stored), delete=True)) == []
        assert self.dead_tokens(reader) == [new.token for new in waiting]
        dead = reader.list_dead_messages(None, 0, 10)
        assert {each.message.last_error for each in dead} == {RECEIVER_DELETED}
        assert [each.message.wake_at for each in dead] == [None, None, None, NOW + 5]
        assert self.waiting_tokens(reader) == {new.token for new in others}
        assert reader.due_messages(NOW + 10, None, 10, ()) == []

    def test_a_turn_may_send_and_delete(self, writer: Writer, reader: Reader) -> None:
        handled, waiting = message("b"), message("b")
        self.send(writer, handled, waiting)
        later, other = message("b", sender=key("b")), message("a")
        both = MessageChanges([handled.key], sent=[later, other])
        commit = Commit(key("b"), 0, delete=True, messages=both)
        assert self.commit(writer, commit) == []
        assert self.dead_tokens(reader) == [waiting.token]
        assert self.lane(reader, "b", lane_of(key("b"))) == [later.token]
        assert self.lane(reader, "a") == [other.token]

    def test_what_is_sent_before_a_deletion_in_a_batch_dies_with_it(
        self, writer: Writer, reader: Reader
    ) -> None:
        before, after = (message("b", sender=None, lane="") for _ in range(2))
        batch = [self.outside(before), Commit(key("b"), 0, delete=True), self.outside(after)]
        assert self.commit(writer, *batch) == []
        assert self.dead_tokens(reader) == [before.token]
        assert self.lane(reader, "b", "") == [after.token]

    # --- withdrawing and cancelling --------------------------------------------------------------

    def test_a_cancelled_message_is_gone_and_the_answer_is_true(
        self, writer: Writer, reader: Reader
    ) -> None:
        new, others = self.reminder(), [self.reminder("z"), self.reminder(sender="c")]
        self.send(writer, new, *others)
        cancel = MessageChanges(cancelled=["k", "none"])
        assert self.commit(writer, Commit(key("a"), 0, b"1", messages=cancel)) == []
        assert cancel.taken_back == {"k"}
        assert self.waiting_tokens(reader) == {each.token for each in others}
        assert reader.due_messages(NOW + 100, None, 10, ())[0].key.token == others[0].token

    def test_what_was_handled_is_not_taken_back(self, writer: Writer, reader: Reader) -> None:
        new = self.reminder()
        self.send(writer, new)
        assert self.acknowledge_message(writer, new)
        cancel = MessageChanges(cancelled=["k"])
        assert self.commit(writer, Commit(key("a"), 0, messages=cancel)) == []
        assert cancel.taken_back == set()

    @pytest.mark.parametrize("kind", ["acknowledged", "buried", "withdrawn"])
    def test_a_commit_uses_a_message_up_and_cancels_or_renews_its_key(
        self, writer: Writer, reader: Reader, kind: str
    ) -> None:
        first, second = self.reminder("k", to="a"), self.reminder("k", to="a")
        self.send(writer, first)
        renewal = self.changing(kind, first.key)
        renewal.send(second)
        assert self.commit(writer, Commit(key("a"), 0, b"1", messages=renewal)) == []
        assert renewal.taken_back == set()
        assert self.waiting_tokens(reader) == {second.token}
        cancel = self.changing(kind, second.key)
        cancel.cancelled = ["k"]
        assert self.commit(writer, Commit(key("a"), 1, b"2", messages=cancel)) == []
        assert cancel.taken_back == set()
        assert self.waiting_tokens(reader) == set()

    @pytest.mark.parametrize("first", ["cancel", "handle"])
    def test_of_a_cancellation_and_a_turn_in_one_batch_the_first_has_it(
        self, writer: Writer, reader: Reader, first: str
    ) -> None:
        new = self.reminder()
        self.send(writer, new)
        cancel = MessageChanges(cancelled=["k"])
        batch = [
            Commit(key("a"), 0, b"1", messages=cancel),
            Commit(key("b"), 0, b"1", messages=self.acknowledging(new)),
        ]
        if first == "handle":
            batch.reverse()
        assert self.commit(writer, *batch) == ([1] if first == "cancel" else [])
        assert cancel.taken_back == ({"k"} if first == "cancel" else set())
        assert self.waiting_tokens(reader) == set()

    def test_a_message_replaces_what_waits_under_its_key(
        self, writer: Writer, reader: Reader
    ) -> None:
        first, second = self.reminder(), self.reminder(to="c")
        once = MessageChanges(sent=[first])
        assert self.commit(writer, Commit(key("a"), 0, messages=once)) == []
        assert once.taken_back == set()
        again = MessageChanges(sent=[second])
        assert self.commit(writer, Commit(key("a"), 0, messages=again)) == []
        assert again.taken_back == {"k"}
        assert self.waiting_tokens(reader) == {second.token}
        assert reader.find_sent(key("a"), "k") == second.key
        assert reader.find_sent(key("a"), "z") is None
        assert reader.find_sent(key("c"), "k") is None

    def test_a_stale_commit_cancels_nothing(self, writer: Writer, reader: Reader) -> None:
        new = self.reminder()
        self.send(writer, new)
        cancel = MessageChanges(cancelled=["k"])
        assert self.commit(writer, Commit(key("a"), 3, messages=cancel)) == [0]
        assert cancel.taken_back == set()
        assert self.waiting_tokens(reader) == {new.token}

    def test_a_dead_letter_is_not_cancelled(self, writer: Writer, reader: Reader) -> None:
        new = self.reminder()
        self.send(writer, new)
        self.bury(writer, new)
        cancel = MessageChanges(cancelled=["k"])
        assert self.commit(writer, Commit(key("a"), 0, messages=cancel)) == []
        assert cancel.taken_back == set()
        writer.retry_messages([new.token])
        assert self.commit(writer, Commit(key("a"), 0, messages=cancel)) == []
        assert cancel.taken_back == set()
        assert self.waiting_tokens(reader) == {new.token}
