"""Tests of claims, retries and dead letters: conditions 9 and 10."""

from __future__ import annotations

from ..._keys import AlarmKey
from ...storage import Commit, Postponement, Reader, Storage, StoredAlarm, Writer
from ._builders import alarm_key, changes, key, outside, postponed
from ._tests import StorageTests
from ._values import FOREVER, NOW, SECOND


class ClaimTests(StorageTests):
    """Exclusive claims and their expiry, postponements and dead letters."""

    # --- claims, condition 9 ---------------------------------------------------------------------

    def test_only_what_is_available_is_claimed(self, writer: Writer, reader: Reader) -> None:
        self.schedule(writer, "past", due_at=NOW - 1)
        self.schedule(writer, "now", due_at=NOW)
        self.schedule(writer, "future", due_at=NOW + 1)
        self.make_dead(writer, "dead")
        names = ["past", "now", "future", "dead", "unknown"]
        assert self.claim(writer, 1, *map(alarm_key, names)) == {
            alarm_key("past"),
            alarm_key("now"),
        }
        assert (
            self.claim(writer, 2, alarm_key("unknown", "missing"), alarm_key("x", "a", "T"))
            == set()
        )
        assert self.claim(writer, 3) == set()

    def test_a_claim_is_exclusive_until_it_runs_out(self, writer: Writer, reader: Reader) -> None:
        x = alarm_key("x")
        self.schedule(writer, "x")
        assert self.claim(writer, 1, x, until=NOW + 10) == {x}
        assert self.claim(writer, 2, x, until=NOW + 10) == set()
        assert self.claim(writer, 3, x, now=NOW + 9, until=NOW + 20) == set()
        # The claim is still held, since no other claim has replaced it.
        writer.renew([(x, 1)], NOW + 11)
        assert self.claim(writer, 4, x, now=NOW + 10, until=NOW + 20) == set()
        assert self.claim(writer, 5, x, now=NOW + 11, until=NOW + 20) == {x}
        writer.renew([(x, 1)], NOW + 99)
        assert self.due(reader) == [(NOW + 20, "a", "x")]
        assert not self.acknowledge(writer, "x", 1)
        assert self.acknowledge(writer, "x", 5)

    def test_a_claim_that_ran_out_unnoticed_is_still_held(self, writer: Writer) -> None:
        self.schedule(writer, "x")
        self.claim(writer, 1, alarm_key("x"), until=NOW)
        assert self.acknowledge(writer, "x", 1)

    def test_the_largest_claim_is_held_as_any_other(self, writer: Writer) -> None:
        self.schedule(writer, "x", "y")
        assert self.claim(writer, 2**63 - 1, alarm_key("x"))
        assert self.claim(writer, 2**63 - 2, alarm_key("y"))
        assert not self.acknowledge(writer, "x", 2**63 - 2)
        assert self.commit(
            writer, outside("a", changes(acknowledged={"x": 2**63 - 1, "y": 2**63 - 1}))
        ) == [0]
        writer.renew([(alarm_key("x"), 2**63 - 1)], NOW)
        writer.postpone([postponed(alarm_key("y"), 2**63 - 2, NOW)])
        assert self.acknowledge(writer, "x", 2**63 - 1)

    def test_what_is_claimed_is_told_in_full(self, writer: Writer, reader: Reader) -> None:
        x, y = alarm_key("x"), alarm_key("y")
        self.commit(writer, outside("a", changes({"x": NOW - 5}, payload=b'{"n":1}')))
        self.commit(writer, outside("a", changes({"y": NOW})))
        self.claim(writer, 1, x)
        writer.postpone([postponed(x, 1, NOW, 4, "it failed")])
        claimed = {alarm.key: alarm for alarm in writer.claim([y, x], 2, NOW, NOW + SECOND)}
        assert claimed == {
            x: StoredAlarm(x, NOW - 5, b'{"n":1}', 4, "it failed"),
            y: StoredAlarm(y, NOW, None, 0, None),
        }
        # A claim doesn't change the alarms themselves.
        assert reader.list_alarms(key("a")) == [claimed[x], claimed[y]]

    def test_one_claim_in_two_parts(self, writer: Writer, reader: Reader) -> None:
        """Claim many alarms in one call, some of which another claim holds."""
        keys = [alarm_key(f"{n:03}") for n in range(100)]
        self.schedule(writer, *(one.name for one in keys))
        assert self.claim(writer, 1, *keys[::2]) == set(keys[::2])
        assert self.claim(writer, 2, *keys) == set(keys[1::2])
        for n, one in enumerate(keys):
            assert not self.acknowledge(writer, one.name, 2 - n % 2)
            assert self.acknowledge(writer, one.name, 1 + n % 2)

    def test_claims_do_not_mix_objects_and_types(self, writer: Writer) -> None:
        keys = [
            AlarmKey(type_name, object_id, name)
            for type_name in ("Cart", "cart")
            for object_id in ("a", "b")
            for name in ("x", "y")
        ]
        for one in keys:
            commit = Commit(one.object_key, None, alarms=changes({one.name: NOW}))
            assert self.commit(writer, commit) == []
        asked = {keys[0], keys[3], keys[6]}
        assert self.claim(writer, 1, *asked) == asked
        assert self.claim(writer, 2, *keys) == set(keys) - asked

    def test_only_held_claims_are_renewed(self, writer: Writer, reader: Reader) -> None:
        names = ["held", "lost", "set again", "dead", "free"]
        self.schedule(writer, *names)
        held, lost, set_anew, dead, free = map(alarm_key, names)
        self.claim(writer, 1, held, lost, set_anew, dead, until=NOW + 10)
        self.claim(writer, 2, lost, now=NOW + 10, until=NOW + 20)
        self.schedule(writer, "set again")
        writer.postpone([postponed(dead, 1, None)])
        writer.renew([(one, 1) for one in (held, lost, set_anew, dead, free)], NOW + 50)
        writer.renew([(alarm_key("unknown"), 1), (held, 3)], NOW + 60)
        writer.renew([], NOW + 70)
        assert self.due(reader) == [
            (NOW, "a", "free"),
            (NOW, "a", "set again"),
            (NOW + 20, "a", "lost"),
            (NOW + 50, "a", "held"),
        ]
        assert self.dead(reader) == [("a", "dead")]
        # An earlier time is allowed as well.
        writer.renew([(held, 1), (lost, 2)], NOW + 5)
        assert self.due(reader)[2:] == [(NOW + 5, "a", "held"), (NOW + 5, "a", "lost")]

    def test_only_held_claims_are_postponed(self, writer: Writer, reader: Reader) -> None:
        names = ["held", "lost", "set again", "free"]
        self.schedule(writer, *names)
        keys = [alarm_key(name) for name in names]
        self.claim(writer, 1, *keys[:3], until=NOW + 10)
        self.claim(writer, 2, keys[1], now=NOW + 10, until=NOW + 20)
        self.schedule(writer, "set again")
        writer.postpone([postponed(one, 1, NOW + 50, 2, "no") for one in keys])
        writer.postpone([postponed(alarm_key("unknown"), 1, NOW)])
        writer.postpone([])
        assert self.due(reader) == [
            (NOW, "a", "free"),
            (NOW, "a", "set again"),
            (NOW + 20, "a", "lost"),
            (NOW + 50, "a", "held"),
        ]
        found = {alarm.key.name: alarm for alarm in reader.list_alarms(key("a"))}
        assert found["held"] == StoredAlarm(keys[0], NOW, None, 2, "no")
        assert all(
            (found[name].failures, found[name].last_error) == (0, None) for name in names[1:]
        )

    def test_a_postponed_alarm_can_be_claimed_when_it_is_due_again(
        self, writer: Writer, reader: Reader
    ) -> None:
        x = alarm_key("x")
        self.schedule(writer, "x")
        self.claim(writer, 1, x)
        writer.postpone([postponed(x, 1, NOW + 10)])
        # The claim is released.
        assert not self.acknowledge(writer, "x", 1)
        writer.postpone([postponed(x, 1, NOW, 7)])
        writer.renew([(x, 1)], NOW)
        assert self.claim(writer, 2, x, now=NOW + 9) == set()
        assert self.claim(writer, 3, x, now=NOW + 10) == {x}
        assert self.alarms(reader) == {"x": NOW}  # the due time stays the same
        # Without a failure, as a runtime releases an alarm that it hasn't begun to deliver.
        writer.postpone([Postponement(x, 3, NOW, 0, None)])
        assert reader.list_alarms(key("a")) == [StoredAlarm(x, NOW, None, 0, None)]

    def test_postponements_of_one_call_have_each_its_own_time(
        self, writer: Writer, reader: Reader
    ) -> None:
        keys = [alarm_key(f"{n:02}") for n in range(50)]
        self.schedule(writer, *(one.name for one in keys))
        self.claim(writer, 1, *keys)
        writer.postpone(
            [
                postponed(one, 1, None if n % 5 == 0 else NOW + n, n, f"error {n}")
                for n, one in enumerate(keys)
            ]
        )
        assert self.due(reader) == [(NOW + n, "a", f"{n:02}") for n in range(50) if n % 5]
        assert [(a.key.name, a.failures, a.last_error) for a in reader.list_alarms(key("a"))] == [
            (f"{n:02}", n, f"error {n}") for n in range(50) if n % 5
        ]
        assert self.dead(reader) == [("a", f"{n:02}") for n in range(0, 50, 5)]

    def test_a_dead_letter_is_kept_but_never_due(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, outside("a", changes({"x": NOW}, payload=b"[1]")))
        self.claim(writer, 1, alarm_key("x"))
        writer.postpone([postponed(alarm_key("x"), 1, None, 5, "the last error")])
        assert self.alarms(reader) == {}
        assert self.due(reader) == []
        assert self.claim(writer, 2, alarm_key("x"), now=FOREVER, until=FOREVER) == set()
        letter = StoredAlarm(alarm_key("x"), NOW, b"[1]", 5, "the last error")
        assert reader.list_dead_letters("Cart", None, 10) == [letter]

    def test_a_dead_letter_is_revived_once(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, outside("a", changes({"x": NOW - 5}, payload=b"[1]")))
        x = alarm_key("x")
        self.claim(writer, 1, x)
        writer.postpone([postponed(x, 1, None, 5, "the last error")])
        assert writer.revive(x, NOW + 100) is True
        assert writer.revive(x, NOW + 200) is False
        assert self.dead(reader) == []
        assert self.due(reader) == [(NOW + 100, "a", "x")]
        (alarm,) = reader.list_alarms(key("a"))
        assert (alarm.due_at, alarm.payload, alarm.failures) == (NOW - 5, b"[1]", 0)
        assert not self.acknowledge(writer, "x", 1)
        assert self.claim(writer, 2, x, now=NOW + 100) == {x}
        assert self.acknowledge(writer, "x", 2)

    def test_nothing_but_dead_letters_is_revived(self, writer: Writer, reader: Reader) -> None:
        self.schedule(writer, "free", "claimed", "failed", due_at=NOW)
        self.make_dead(writer, "dead")
        self.claim(writer, 1, alarm_key("claimed"), alarm_key("failed"), until=NOW + 10)
        writer.postpone([postponed(alarm_key("failed"), 1, NOW + 20)])
        before = self.due(reader)
        for name in ("free", "claimed", "failed", "unknown"):
            assert writer.revive(alarm_key(name), NOW + 99) is False
        assert writer.revive(alarm_key("dead", "b"), NOW) is False
        assert writer.revive(alarm_key("dead", "a", "cart"), NOW) is False
        assert self.due(reader) == before
        assert self.acknowledge(writer, "claimed", 1)
        assert self.dead(reader) == [("a", "dead")]

    def test_dead_letters_go_by_cancelling_and_clearing(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.make_dead(writer, "x", "y")
        self.make_dead(writer, "x", object_id="b")
        self.commit(writer, outside("a", changes({"x": None})))
        assert self.dead(reader) == [("a", "y"), ("b", "x")]
        self.commit(writer, outside("b", changes(clear=True)))
        assert self.dead(reader) == [("a", "y")]

    # --- claims after opening, condition 10 ------------------------------------------------------

    def test_opening_gives_claims_back(self, storage: Storage) -> None:
        self.needs_one_writer()
        writer = storage.open_writer()
        # One alarm of an object, many of an object, claimed or not.
        for object_id, names in {"a": "x", "b": "xyz", "c": "x", "d": "xy", "e": "x"}.items():
            self.schedule(writer, *names, object_id=object_id, due_at=NOW - 5)
        self.schedule(writer, "future", due_at=NOW + 5)
        self.schedule(writer, "failed")
        self.make_dead(writer, "dead")
        keys = [alarm_key("x", "a"), alarm_key("x", "b"), alarm_key("y", "b"), alarm_key("x", "c")]
        keys += [alarm_key("x", "d"), alarm_key("x", "e")]
        self.claim(writer, 1, *keys, until=FOREVER)
        self.claim(writer, 2, alarm_key("failed"), until=FOREVER)
        writer.postpone([postponed(alarm_key("failed"), 2, NOW + 20, 2, "no")])
        writer.close()

        writer = storage.open_writer()
        reader = storage.open_reader()
        assert self.due(reader) == [
            (NOW - 5, "a", "x"),
            (NOW - 5, "b", "x"),
            (NOW - 5, "b", "y"),
            (NOW - 5, "b", "z"),
            (NOW - 5, "c", "x"),
            (NOW - 5, "d", "x"),
            (NOW - 5, "d", "y"),
            (NOW - 5, "e", "x"),
            (NOW + 5, "a", "future"),
            (NOW + 20, "a", "failed"),
        ]
        assert self.dead(reader) == [("a", "dead")]
        for one in keys:
            assert not self.acknowledge(writer, one.name, 1, one.object_id)
        assert self.claim(writer, 3, *keys) == set(keys)
        for one in keys:
            assert self.acknowledge(writer, one.name, 3, one.object_id)
        reader.close()
        writer.close()

    def test_claims_given_back_keep_failures(self, storage: Storage) -> None:
        self.needs_one_writer()
        writer = storage.open_writer()
        self.schedule(writer, "x", "y")
        self.claim(writer, 1, alarm_key("x"))
        writer.postpone([postponed(alarm_key("x"), 1, NOW, 3, "no")])
        self.claim(writer, 2, alarm_key("x"))
        writer.close()
        writer = storage.open_writer()
        reader = storage.open_reader()
        assert reader.list_alarms(key("a")) == [
            StoredAlarm(alarm_key("x"), NOW, None, 3, "no", 0 if self.counts_crashes else None),
            StoredAlarm(alarm_key("y"), NOW, None, 0, None),
        ]
        assert self.claim(writer, 3, alarm_key("x")) == {alarm_key("x")}
        reader.close()
        writer.close()

    def test_many_claims_given_back(self, storage: Storage) -> None:
        self.needs_one_writer()
        keys = [alarm_key("x", f"{n:03}") for n in range(300)]
        writer = storage.open_writer()
        self.commit(writer, *(outside(one.object_id, changes({"x": NOW})) for one in keys))
        assert self.claim(writer, 1, *keys, until=FOREVER) == set(keys)
        writer.close()
        writer = storage.open_writer()
        assert self.claim(writer, 2, *keys) == set(keys)
        writer.close()

    def test_alarms_are_durable(self, storage: Storage) -> None:
        writer = storage.open_writer()
        changed = changes({"x": NOW + 1, "y": NOW}, payload=b'"p"')
        self.commit(writer, Commit(key("a"), 0, b"1", alarms=changed))
        writer.close()
        writer = storage.open_writer()
        reader = storage.open_reader()
        assert reader.list_alarms(key("a")) == [
            StoredAlarm(alarm_key("y"), NOW, b'"p"', 0, None),
            StoredAlarm(alarm_key("x"), NOW + 1, b'"p"', 0, None),
        ]
        reader.close()
        writer.close()
