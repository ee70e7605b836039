"""Tests of how waiting messages are read, deferred and counted: conditions 13 and 14."""

from __future__ import annotations

import attrs
import pytest

from ..._keys import ObjectKey
from ...storage import (
    Deferral,
    DueMessage,
    MessageKey,
    NewMessage,
    Reader,
    Receiver,
    Storage,
    Writer,
    lane_of,
)
from ._builders import key, message
from ._message_tests import LANE, MessageTests
from ._values import ERRORS, FOREVER, NOW, TIMES


def deferral(new: NewMessage, wake_at: int | None, failures: int = 1, crashes: int = 0) -> Deferral:
    return Deferral(new.key, wake_at, failures, "no", crashes)


class MailTests(MessageTests):
    """Lanes, receivers, the feed of sleeping messages, deferrals, and crashes."""

    @staticmethod
    def mail(
        reader: Reader, object_id: str, after: str | None = None, lanes: int = 16, limit: int = 16
    ) -> list[int]:
        """The tokens of the mail of an object."""
        found = reader.read_mail(key(object_id), after, lanes, limit)
        return [one.key.token for one in found]

    @staticmethod
    def sleeping(reader: Reader, before: int = FOREVER) -> list[tuple[int, int]]:
        """The feed as one page of (wake_at, token)."""
        return [(d.wake_at, d.key.token) for d in reader.due_messages(before, None, 10_000, ())]

    # --- lanes -----------------------------------------------------------------------------------

    def test_mail_is_the_head_of_each_lane(self, writer: Writer, reader: Reader) -> None:
        lanes = {
            one: [message("b", sender=key(one)) for _ in range(5)]
            for one in ("z", "a", "é", "👾", "\uffff")
        }
        for n in range(5):
            self.send(writer, *(sent[n] for sent in lanes.values()))
        self.send(writer, message("c"), message("b", type_name="cart"))
        names = sorted(lanes, key=str.encode)
        first = [new.token for one in names for new in lanes[one][:2]]
        assert self.mail(reader, "b", limit=2) == first
        assert self.mail(reader, "b", limit=2, lanes=3) == first[:6]
        after = lane_of(key(names[2]))
        assert self.mail(reader, "b", after, limit=2) == first[6:]
        assert self.mail(reader, "b", after, limit=2, lanes=1) == first[6:8]
        assert self.mail(reader, "b", lane_of(key(names[-1]))) == []
        assert len(self.mail(reader, "b")) == 25
        assert self.mail(reader, "none") == []

    def test_messages_without_a_lane_come_first_as_one_lane(
        self, writer: Writer, reader: Reader
    ) -> None:
        own = [message("b", sender=None, lane="") for _ in range(4)]
        laned = [message("b"), message("b", sender=key("c"))]
        self.send(writer, *laned, *own)
        tokens = [new.token for new in own]
        assert self.mail(reader, "b", limit=3) == [*tokens[:3], *(new.token for new in laned)]
        assert self.mail(reader, "b", limit=3, lanes=2) == [*tokens[:3], laned[0].token]
        assert self.mail(reader, "b", limit=3, lanes=1) == tokens[:3]
        assert self.mail(reader, "b", "", limit=3) == [new.token for new in laned]
        assert self.lane(reader, "b", "") == tokens

    def test_a_lane_is_read_in_pages(self, writer: Writer, reader: Reader) -> None:
        sent = [message("b") for _ in range(20)]
        self.send(writer, *sent, message("b", sender=key("c")), message("c"))
        for lane_page in (1, 7, 20, 100):
            found: list[int] = []
            after = 0
            while page := reader.read_lane(key("b"), LANE, after, lane_page):
                assert len(page) <= lane_page
                found += [one.key.token for one in page]
                after = page[-1].key.seq
            assert found == [new.token for new in sent]

    def test_messages_are_loaded_by_their_keys(self, writer: Writer, reader: Reader) -> None:
        sent = [message("b", tenant=tenant) for tenant in ("", "acme", "a-b")]
        for new in sent:
            self.send(writer, new)
        keys = [sent[1].key, sent[0].key, sent[1].key._replace(token=5), sent[2].key]
        found = [None if one is None else one.key for one in reader.load_messages(keys)]
        assert found == [keys[0], keys[1], None, keys[3]]
        assert reader.load_messages([]) == []

    def test_sleeping_messages_without_a_lane_are_no_mail(
        self, writer: Writer, reader: Reader
    ) -> None:
        asleep = [message("b", sender=None, lane="", wake_at=NOW + n) for n in range(3)]
        awake = message("b", sender=None, lane="")
        self.send(writer, *asleep, awake)
        assert self.mail(reader, "b") == [awake.token]
        assert self.lane(reader, "b", "") == [awake.token]
        assert self.sleeping(reader) == [(new.wake_at, new.token) for new in asleep]

    def test_the_mail_of_a_crowded_receiver_is_read_in_pages(
        self, writer: Writer, reader: Reader
    ) -> None:
        senders = [f"{n:04}" for n in range(500)]
        self.send(writer, *(message("b", sender=key(one)) for one in senders))
        found: list[str] = []
        after: str | None = None
        while page := reader.read_mail(key("b"), after, 16, 16):
            after = page[-1].key.lane
            found += [one.key.lane for one in page]
        self.check_all(found, [lane_of(key(one)) for one in senders])

    # --- receivers -------------------------------------------------------------------------------

    def test_receivers_are_listed_once_in_pages(self, writer: Writer, reader: Reader) -> None:
        keys = [
            ObjectKey(kind, one)
            for kind in ("Cart", "cart", "é")
            for one in ("a", "👾", "\uffff", "'")
        ]
        sent = [
            message(one.object_id, type_name=one.type_name, sender=key(of))
            for of in ("x", "y")
            for one in keys
        ]
        self.send(writer, *sent, message("t", tenant="", sender=None, lane="", type_name="Z"))
        keys.append(ObjectKey("Z", "t"))
        whole = reader.list_receivers(None, 100)
        assert len(whole) == len(keys)
        assert {each.key for each in whole} == set(keys)
        assert all(each.is_awake for each in whole)
        for limit in (1, 5, 100):
            found: list[Receiver] = []
            while page := reader.list_receivers(found[-1].key if found else None, limit):
                assert len(page) <= limit
                found += page
                assert len(found) <= len(keys)
            assert found == whole

    def test_a_receiver_of_sleeping_messages_alone_is_not_awake(
        self, writer: Writer, reader: Reader
    ) -> None:
        reminder = message("a", sender=None, lane="", wake_at=NOW)
        own, laned = message("b", sender=None, lane=""), message("c")
        self.send(writer, reminder, own, laned)
        writer.defer_messages([deferral(laned, NOW)])
        expected = {"a": False, "b": True, "c": True}
        found = reader.list_receivers(None, 10)
        assert {each.key.object_id: each.is_awake for each in found} == expected
        writer.defer_messages([deferral(own, NOW), deferral(reminder, None)])
        expected = {"a": True, "b": False, "c": True}
        found = reader.list_receivers(None, 10)
        assert {each.key.object_id: each.is_awake for each in found} == expected

    # --- the feed --------------------------------------------------------------------------------

    @pytest.mark.parametrize("wake_at", TIMES)
    def test_times_of_waking_are_exact(self, writer: Writer, reader: Reader, wake_at: int) -> None:
        new = message("b", sender=None, lane="", wake_at=wake_at)
        self.send(writer, new)
        assert self.sleeping(reader, wake_at) == []
        assert self.sleeping(reader, wake_at + 1) == [(wake_at, new.token)]

    def test_the_feed_is_in_order_and_in_pages(self, writer: Writer, reader: Reader) -> None:
        sent = [
            message(f"{n}", sender=None, lane="", wake_at=NOW + n % 3, type_name=kind)
            for n in range(10)
            for kind in ("Cart", "cart")
        ]
        self.send(writer, *sent)
        for excepted in ((), ("cart",), ("Cart", "cart")):
            expected = sorted(
                (
                    DueMessage(new.wake_at or 0, new.key)
                    for new in sent
                    if new.to.type_name not in excepted and (new.wake_at or 0) < NOW + 2
                ),
                key=lambda each: (each.wake_at, each.key.seq),
            )
            for limit in (1, 3, 100):
                found: list[DueMessage] = []
                while page := reader.due_messages(
                    NOW + 2, found[-1] if found else None, limit, excepted
                ):
                    assert len(page) <= limit
                    found += page
                assert found == expected

    # --- deferrals -------------------------------------------------------------------------------

    def test_a_deferred_message_holds_back_its_lane_alone(
        self, writer: Writer, reader: Reader
    ) -> None:
        head, second, other = message("b"), message("b"), message("b", sender=key("c"))
        self.send(writer, head, second, other)
        writer.defer_messages([Deferral(head.key, NOW + 9, 3, 'it\'s "é"', 2)])
        found = reader.read_mail(key("b"), None, 16, 16)
        assert [one.wake_at for one in found] == [NOW + 9, None, None]
        assert [one.key.token for one in found] == [head.token, second.token, other.token]
        assert (found[0].failures, found[0].last_error, found[0].crashes) == (3, 'it\'s "é"', 2)
        assert (found[1].failures, found[1].last_error, found[1].crashes) == (0, None, 0)
        assert self.sleeping(reader) == [(NOW + 9, head.token)]
        writer.defer_messages([Deferral(head.key, None, 4, None)])
        assert self.sleeping(reader) == []
        assert self.lane(reader, "b") == [head.token, second.token]

    @pytest.mark.parametrize("error", ERRORS)
    def test_errors_are_exact(self, writer: Writer, reader: Reader, error: str) -> None:
        new = message("b")
        self.send(writer, new)
        writer.defer_messages([Deferral(new.key, NOW, 1, error)])
        (found,) = reader.load_messages([new.key])
        assert found is not None
        assert found.last_error == error

    @pytest.mark.parametrize("field", ["seq", "token", "lane", "to"])
    def test_what_does_not_wait_is_not_deferred(
        self, writer: Writer, reader: Reader, field: str
    ) -> None:
        new = message("b")
        self.send(writer, new)
        wrong = self.another(new.key, field)
        writer.defer_messages([Deferral(wrong, NOW, 1, "no", 1)])
        writer.defer_messages([])
        assert writer.mark_message(wrong) is False
        (found,) = reader.load_messages([new.key])
        assert found is not None
        assert (found.wake_at, found.failures) == (None, 0)

    @pytest.mark.parametrize("size", [2, 1000, 5000])
    def test_many_are_deferred_at_once(self, writer: Writer, reader: Reader, size: int) -> None:
        sent = [message(f"{n}") for n in range(size)]
        self.send(writer, *sent)
        writer.defer_messages([deferral(new, NOW + n) for n, new in enumerate(sent)])
        self.check_all(self.sleeping(reader), [(NOW + n, new.token) for n, new in enumerate(sent)])

    # --- crashes ---------------------------------------------------------------------------------

    def message_crashes(self, reader: Reader, *sent: NewMessage) -> list[int | None]:
        found = reader.load_messages([new.key for new in sent])
        return [None if one is None else one.crashes for one in found]

    def test_opening_counts_the_marked_alone(self, storage: Storage) -> None:
        self.needs_one_writer()
        poison, innocent, handed = message("b"), message("c"), message("d")
        writer = storage.open_writer()
        self.send(writer, poison, innocent, handed)
        for n in range(1, 4):
            assert writer.mark_message(poison.key) is True
            writer.close()
            writer, reader = storage.open_writer(), storage.open_reader()
            assert self.message_crashes(reader, poison, innocent, handed) == [n, 0, 0]
            reader.close()
        # What was counted once isn't counted again.
        writer.close()
        writer, reader = storage.open_writer(), storage.open_reader()
        assert self.message_crashes(reader, poison, innocent, handed) == [3, 0, 0]
        reader.close()
        writer.close()

    @pytest.mark.parametrize("tenant", ["", "acme"])
    def test_a_deferral_ends_the_mark(self, storage: Storage, tenant: str) -> None:
        self.needs_one_writer()
        new = message("b", tenant=tenant)
        writer = storage.open_writer()
        self.send(writer, new)
        for crashes in (0, 2):
            assert writer.mark_message(new.key) is True
            writer.defer_messages([deferral(new, None, crashes=crashes)])
            writer.close()
            writer, reader = storage.open_writer(), storage.open_reader()
            assert self.message_crashes(reader, new) == [crashes]
            reader.close()
        writer.mark_message(new.key)
        writer.close()
        writer, reader = storage.open_writer(), storage.open_reader()
        assert self.message_crashes(reader, new) == [3]
        reader.close()
        writer.close()

    def test_a_dead_letter_keeps_its_crashes_until_it_is_retried(
        self, writer: Writer, reader: Reader
    ) -> None:
        new = message("b", hops=9)
        self.send(writer, new)
        writer.defer_messages([Deferral(new.key, NOW, 4, "no", 5)])
        self.bury(writer, new)
        (dead,) = reader.load_dead_messages([new.token])
        assert dead is not None
        assert (dead.message.crashes, dead.message.failures, dead.message.hops) == (5, 3, 9)
        (retried,) = writer.retry_messages([new.token])
        (found,) = reader.load_messages([retried.key])
        assert found is not None
        assert (found.crashes, found.failures, found.hops, found.wake_at) == (0, 0, 0, None)
        expected = attrs.evolve(
            dead.message, key=retried.key, crashes=0, failures=0, hops=0, wake_at=None
        )
        assert found == expected
        assert isinstance(retried.key, MessageKey)
