"""Tests of suspects and the counting of crashes: condition 12."""

from __future__ import annotations

import attrs
import pytest

from ...storage import Commit, Postponement, Reader, Storage, StoredAlarm, Writer
from ._builders import alarm_key, changes, key, outside, postponed
from ._tests import StorageTests
from ._values import ANY_TIME, NOW, SECOND


class CrashTests(StorageTests):
    """Alarms whose claims have outlived the process that held them."""

    @pytest.fixture(autouse=True)
    def counting(self, request: pytest.FixtureRequest) -> None:
        """Skip all tests of this group if the storage doesn't count crashes."""
        if self.group_of(request) is CrashTests:
            self.needs_crashes()

    @staticmethod
    def crashes(reader: Reader, object_id: str = "a") -> dict[str, int | None]:
        """The crashes of an object's alarms, by name."""
        return {alarm.key.name: alarm.crashes for alarm in reader.list_alarms(key(object_id))}

    def crash(self, writer: Writer, claim: int, name: str, *, marked: bool) -> int | None:
        """Claim an alarm and let the claim run out; return the crashes that the next claim finds.

        That claim is held until `NOW`, so that it runs out at once.
        """
        x = alarm_key(name)
        writer.claim([x], claim, NOW, NOW)
        if marked:
            assert writer.mark(x, claim) is True
        (found,) = writer.claim([x], claim + 1, NOW, NOW)
        return found.crashes

    # --- who is a suspect ------------------------------------------------------------------------

    def test_an_alarm_that_was_never_claimed_before_is_no_suspect(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.schedule(writer, "x")
        (claimed,) = writer.claim([alarm_key("x")], 1, NOW, NOW + SECOND)
        assert claimed.crashes is None
        assert self.crashes(reader) == {"x": None}

    def test_a_claim_that_ran_out_makes_a_suspect(self, writer: Writer, reader: Reader) -> None:
        self.schedule(writer, "x", "y")
        # Even if it was marked: only a suspect's crashes are counted.
        assert self.crash(writer, 1, "x", marked=False) == 0
        assert self.crash(writer, 3, "y", marked=True) == 0
        assert self.crashes(reader) == {"x": 0, "y": 0}

    def test_opening_makes_suspects_of_what_was_claimed(self, storage: Storage) -> None:
        self.needs_one_writer()
        writer = storage.open_writer()
        self.schedule(writer, "claimed", "free", "postponed")
        self.claim(writer, 1, alarm_key("claimed"), alarm_key("postponed"))
        writer.postpone([postponed(alarm_key("postponed"), 1, NOW)])
        writer.close()
        writer = storage.open_writer()
        reader = storage.open_reader()
        assert self.crashes(reader) == {"claimed": 0, "free": None, "postponed": None}
        reader.close()
        writer.close()

    def test_opening_counts_only_the_marked(self, storage: Storage) -> None:
        self.needs_one_writer()
        names = ["innocent", "poison"]
        writer = storage.open_writer()
        self.schedule(writer, *names)
        writer.close()
        for claim in range(1, 5):
            writer = storage.open_writer()
            self.claim(writer, claim, *map(alarm_key, names))
            assert writer.mark(alarm_key("poison"), claim) is True
            writer.close()
        writer = storage.open_writer()
        reader = storage.open_reader()
        assert self.crashes(reader) == {"innocent": 0, "poison": 3}
        # What was counted once isn't counted again.
        writer.close()
        writer = storage.open_writer()
        assert self.crashes(reader) == {"innocent": 0, "poison": 3}
        reader.close()
        writer.close()

    def test_a_claim_for_any_time_makes_no_suspect(self, writer: Writer, reader: Reader) -> None:
        x = alarm_key("x")
        self.schedule(writer, "x")
        self.claim(writer, 1, x, until=NOW)
        self.claim(writer, 2, x, now=ANY_TIME, until=NOW)
        assert self.crashes(reader) == {"x": None}
        assert self.crash(writer, 3, "x", marked=False) == 0
        writer.claim([x], 5, NOW, NOW)
        writer.mark(x, 5)
        (taken,) = writer.claim([x], 6, ANY_TIME, NOW + SECOND)
        assert taken.crashes == 0

    # --- counting --------------------------------------------------------------------------------

    def test_crashes_of_marked_suspects_are_counted(self, writer: Writer, reader: Reader) -> None:
        self.schedule(writer, "x")
        assert self.crash(writer, 1, "x", marked=True) == 0
        for n in range(1, 30):
            assert self.crash(writer, 2 * n + 1, "x", marked=True) == n
        assert self.crashes(reader) == {"x": 29}

    def test_a_crash_while_another_alarm_was_marked_is_not_counted(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.schedule(writer, "x", "y")
        keys = [alarm_key("x"), alarm_key("y")]
        for claim in range(1, 6):
            self.claim(writer, claim, *keys, until=NOW)
            assert writer.mark(keys[1], claim) is True
        writer.claim(keys, 6, NOW, NOW + SECOND)
        assert self.crashes(reader) == {"x": 0, "y": 4}

    def test_a_mark_counts_for_its_claim_alone(self, writer: Writer) -> None:
        self.schedule(writer, "x")
        self.crash(writer, 1, "x", marked=False)
        assert self.crash(writer, 3, "x", marked=True) == 1
        for n in range(3):
            assert self.crash(writer, 5 + 2 * n, "x", marked=False) == 1

    def test_only_a_held_claim_marks_and_acquits(self, writer: Writer, reader: Reader) -> None:
        x = alarm_key("x")
        self.schedule(writer, "x")
        for change in (writer.mark, writer.acquit):
            assert change(x, 1) is False
            assert change(alarm_key("unknown"), 1) is False
            assert change(alarm_key("x", tenant="unknown"), 1) is False
        self.crash(writer, 1, "x", marked=False)
        assert writer.mark(x, 1) is False
        assert writer.acquit(x, 1) is False
        (claimed,) = writer.claim([x], 3, NOW, NOW + SECOND)
        assert claimed.crashes == 0
        writer.postpone([Postponement(x, 3, NOW, 0, None, 0)])
        assert writer.mark(x, 3) is False
        assert writer.acquit(x, 3) is False
        assert self.crashes(reader) == {"x": 0}

    def test_a_mark_changes_nothing_but_the_count(self, writer: Writer, reader: Reader) -> None:
        x = alarm_key("x")
        self.commit(writer, outside("a", changes({"x": NOW - 5}, payload=b"[1]")))
        self.claim(writer, 1, x)
        writer.postpone([postponed(x, 1, NOW, 2, "no")])
        self.claim(writer, 2, x, until=NOW + 10)
        before, due = reader.list_alarms(key("a")), self.due(reader)
        assert writer.mark(x, 2) is True
        assert writer.acquit(x, 2) is True
        assert reader.list_alarms(key("a")) == before
        assert self.due(reader) == due
        assert self.acknowledge(writer, "x", 2)

    # --- the end of suspicion --------------------------------------------------------------------

    def test_an_acquitted_alarm_is_no_suspect(self, writer: Writer, reader: Reader) -> None:
        x = alarm_key("x")
        self.schedule(writer, "x")
        self.crash(writer, 1, "x", marked=False)
        self.crash(writer, 3, "x", marked=True)
        self.claim(writer, 5, x)
        writer.mark(x, 5)
        assert writer.acquit(x, 5) is True
        assert self.crashes(reader) == {"x": None}
        # The next crash begins at 0, although the claim was marked before.
        (claimed,) = writer.claim([x], 6, NOW + SECOND, NOW + 2 * SECOND)
        assert claimed.crashes == 0

    def test_a_postponement_says_the_crashes(self, writer: Writer, reader: Reader) -> None:
        names = ["ended", "left", "dead"]
        self.schedule(writer, *names)
        for n, name in enumerate(names):
            self.crash(writer, 10 * n + 1, name, marked=False)
            self.crash(writer, 10 * n + 3, name, marked=True)
        ended, left, dead = map(alarm_key, names)
        self.claim(writer, 99, ended, left, dead)
        for one in (ended, left, dead):
            writer.mark(one, 99)
        writer.postpone(
            [
                Postponement(ended, 99, NOW, 1, "no"),
                Postponement(left, 99, NOW, 0, None, 1),
                Postponement(dead, 99, None, 0, "no", 7),
            ]
        )
        assert self.crashes(reader) == {"ended": None, "left": 1}
        (letter,) = reader.list_dead_letters("Cart", None, 10)
        assert letter == StoredAlarm(dead, NOW, None, 0, "no", 7)
        # The postponement has ended the marked claim.
        assert self.crash(writer, 100, "left", marked=False) == 1

    def test_an_alarm_that_is_set_again_is_no_suspect(self, writer: Writer, reader: Reader) -> None:
        self.schedule(writer, "outside", "inside")
        for n, name in enumerate(("outside", "inside")):
            self.crash(writer, 10 * n + 1, name, marked=False)
        self.schedule(writer, "outside")
        self.commit(writer, Commit(key("a"), 0, b"1", alarms=changes({"inside": NOW})))
        assert self.crashes(reader) == {"outside": None, "inside": None}
        assert self.crash(writer, 90, "outside", marked=True) == 0

    def test_an_acknowledged_alarm_leaves_no_crashes(self, writer: Writer, reader: Reader) -> None:
        x = alarm_key("x")
        self.schedule(writer, "x")
        self.crash(writer, 1, "x", marked=False)
        self.claim(writer, 3, x)
        writer.mark(x, 3)
        again = changes({"x": NOW}, acknowledged={"x": 3})
        assert self.commit(writer, outside("a", again)) == []
        assert self.crashes(reader) == {"x": None}
        assert writer.mark(x, 3) is False

    def test_a_revived_suspect_has_no_crashes_and_stays_one(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.schedule(writer, "crashed", "failed")
        crashed, failed = alarm_key("crashed"), alarm_key("failed")
        self.claim(writer, 1, crashed, failed)
        writer.postpone([Postponement(crashed, 1, None, 0, "no", 5), postponed(failed, 1, None)])
        assert writer.revive(crashed, NOW)
        assert writer.revive(failed, NOW)
        assert self.crashes(reader) == {"crashed": 0, "failed": None}

    # --- elsewhere -------------------------------------------------------------------------------

    def test_crashes_are_durable(self, storage: Storage) -> None:
        writer = storage.open_writer()
        self.schedule(writer, "x")
        self.crash(writer, 1, "x", marked=True)
        self.claim(writer, 3, alarm_key("x"), until=NOW)
        writer.mark(alarm_key("x"), 3)
        writer.close()
        writer = storage.open_writer()
        (claimed,) = writer.claim([alarm_key("x")], 4, NOW, NOW + SECOND)
        assert claimed.crashes == 1
        writer.close()

    def test_crashes_of_tenants_are_apart(self, writer: Writer, reader: Reader) -> None:
        keys = [alarm_key("x", tenant=tenant) for tenant in ("", "acme", "a-b")]
        for one in keys:
            commit = Commit(one.object_key, None, alarms=changes({"x": NOW}))
            assert self.commit(writer, commit) == []
        for claim in (1, 2, 3):
            self.claim(writer, claim, *keys, until=NOW)
            assert writer.mark(keys[1], claim) is True
        assert writer.acquit(keys[2], 3) is True
        found = {one: reader.list_alarms(one.object_key) for one in keys}
        assert [found[one][0].crashes for one in keys] == [0, 1, None]

    def test_browsing_shows_crashes(self, writer: Writer, reader: Reader) -> None:
        self.schedule(writer, "x")
        self.crash(writer, 1, "x", marked=False)
        self.crash(writer, 3, "x", marked=True)
        (row,) = reader.browse_alarms(None, NOW, None, None, 10)
        assert row.alarm == attrs.evolve(reader.list_alarms(key("a"))[0])
        assert row.alarm.crashes == 1
