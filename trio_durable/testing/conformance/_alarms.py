"""Tests of setting, cancelling and acknowledging alarms in commits: condition 8."""

from __future__ import annotations

import attrs
import pytest

from ...storage import AlarmChanges, Commit, Reader, StoredAlarm, Writer
from ._builders import alarm_key, changes, key, outside, postponed, save
from ._tests import StorageTests
from ._values import NOW, SECOND


class AlarmTests(StorageTests):
    """State and alarms of a commit apply together or not at all."""

    def test_state_and_alarms_are_applied_together(self, writer: Writer, reader: Reader) -> None:
        commit = Commit(key("a"), 0, b"1", alarms=changes({"x": NOW, "y": NOW + 1}))
        assert self.commit(writer, commit) == []
        assert self.load(reader, "a") == [(1, b"1")]
        assert self.alarms(reader) == {"x": NOW, "y": NOW + 1}
        commit = Commit(key("a"), 1, b"2", alarms=changes({"x": None, "y": NOW + 5, "z": NOW}))
        assert self.commit(writer, commit) == []
        assert self.load(reader, "a") == [(2, b"2")]
        assert self.alarms(reader) == {"z": NOW, "y": NOW + 5}

    def test_alarms_need_no_row(self, writer: Writer, reader: Reader) -> None:
        assert self.commit(writer, Commit(key("a"), 0, alarms=changes({"x": NOW}))) == []
        assert self.load(reader, "a") == [None]
        assert reader.list_ids("Cart", None, 10) == []
        assert self.alarms(reader) == {"x": NOW}

    @pytest.mark.parametrize("others", [0, 3])
    def test_a_stale_revision_leaves_the_alarms(
        self, writer: Writer, reader: Reader, others: int
    ) -> None:
        self.commit(writer, save("a", 0, b"1"))
        self.schedule(writer, "old", "claimed")
        assert self.claim(writer, 1, alarm_key("claimed"))
        ids = [f"{n}" for n in range(others)]
        for attempt, changed in enumerate(
            [
                changes({"new": NOW}),
                changes({"old": NOW + 9}),
                changes({"old": None}),
                changes(clear=True),
                changes(acknowledged={"claimed": 1}),
            ]
        ):
            for stale in (
                Commit(key("a"), 0, alarms=changed),
                Commit(key("a"), 2, alarms=changed),
                Commit(key("a"), 2, b"2", alarms=changed),
                Commit(key("a"), 2, delete=True, alarms=changed),
                Commit(key("a"), 0, delete=True, alarms=changed),
            ):
                other = changes({f"{attempt}": NOW})
                batch = [stale, *(Commit(key(one), 0, alarms=other) for one in ids)]
                assert self.commit(writer, *batch) == [0]
                assert self.load(reader, "a") == [(1, b"1")]
                assert self.alarms(reader) == {"claimed": NOW, "old": NOW}
                # The rest of the batch applies all the same.
                for one in ids:
                    assert f"{attempt}" in self.alarms(reader, one)
                    self.commit(writer, outside(one, changes(clear=True)))
        assert self.acknowledge(writer, "claimed", 1)

    @pytest.mark.parametrize(
        "how",
        [
            "never set",
            "never claimed",
            "another claim",
            "set again",
            "cancelled",
            "cleared",
            "acknowledged",
            "postponed",
            "dead",
            "revived",
            "claimed by another",
            "of another object",
        ],
    )
    def test_a_lost_claim_makes_a_commit_stale(
        self, writer: Writer, reader: Reader, how: str
    ) -> None:
        x = alarm_key("x")
        self.commit(writer, save("a", 0, b"1"), save("b", 0, b"1"))
        self.schedule(writer, "other")
        if how != "never set":
            self.schedule(writer, "x")
        if how not in ("never set", "never claimed", "another claim"):
            assert self.claim(writer, 1, x) == {x}
        if how == "another claim":
            assert self.claim(writer, 2, x) == {x}
        elif how == "set again":
            self.schedule(writer, "x")
        elif how == "cancelled":
            self.commit(writer, outside("a", changes({"x": None})))
        elif how == "cleared":
            self.commit(writer, outside("a", changes({"other": NOW}, clear=True)))
        elif how == "acknowledged":
            assert self.acknowledge(writer, "x", 1)
        elif how == "postponed":
            writer.postpone([postponed(x, 1, NOW + 5)])
        elif how in ("dead", "revived"):
            writer.postpone([postponed(x, 1, None)])
            if how == "revived":
                assert writer.revive(x, NOW)
        elif how == "claimed by another":
            assert self.claim(writer, 2, x, now=NOW + SECOND, until=NOW + 2 * SECOND) == {x}
        elif how == "of another object":
            self.schedule(writer, "x", object_id="b")
            assert self.claim(writer, 2, alarm_key("x", "b")) == {alarm_key("x", "b")}
        before = (self.alarms(reader), self.due(reader), self.dead(reader))

        claim = 2 if how == "of another object" else 1
        changed = changes({"new": NOW, "other": None}, acknowledged={"x": claim})
        for revision, commit in enumerate(
            [
                Commit(key("a"), 1, b"2", alarms=changed),
                Commit(key("a"), 1, alarms=changed),
                Commit(key("a"), 1, delete=True, alarms=attrs.evolve(changed, clear=True)),
                outside("a", changed),
            ]
        ):
            # Alone, and together with other commits, which apply all the same.
            assert self.commit(writer, commit) == [0]
            fresh = Commit(key("c"), revision, b"3", alarms=changes({"x": NOW}))
            assert self.commit(writer, save("d", revision, b"2"), commit, fresh) == [1]
            assert self.load(reader, "a", "c", "d") == [
                (1, b"1"),
                (revision + 1, b"3"),
                (revision + 1, b"2"),
            ]
            assert self.alarms(reader, "c") == {"x": NOW}
            self.commit(writer, outside("c", changes(clear=True)))
            assert (self.alarms(reader), self.due(reader), self.dead(reader)) == before

    def test_all_claims_of_a_commit_must_be_held(self, writer: Writer, reader: Reader) -> None:
        self.schedule(writer, "x", "y", "z")
        self.claim(writer, 1, alarm_key("x"), alarm_key("y"))
        changed = changes(acknowledged={"x": 1, "y": 1, "z": 1})
        assert self.commit(writer, Commit(key("a"), 0, b"1", alarms=changed)) == [0]
        assert self.load(reader, "a") == [None]
        assert self.alarms(reader) == {"x": NOW, "y": NOW, "z": NOW}
        self.claim(writer, 2, alarm_key("z"))
        changed = changes(acknowledged={"x": 1, "y": 1, "z": 2})
        assert self.commit(writer, Commit(key("a"), 0, b"1", alarms=changed)) == []
        assert self.load(reader, "a") == [(1, b"1")]
        assert self.alarms(reader) == {}
        assert self.due(reader) == []

    def test_an_acknowledged_alarm_is_gone_with_the_state_that_came_of_it(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.schedule(writer, "x", "y")
        self.claim(writer, 1, alarm_key("x"))
        commit = Commit(key("a"), 0, b"1", alarms=changes(acknowledged={"x": 1}))
        assert self.commit(writer, commit) == []
        assert self.alarms(reader) == {"y": NOW}
        # A second time it has no effect.
        commit = Commit(key("a"), 1, b"2", alarms=changes(acknowledged={"x": 1}))
        assert self.commit(writer, commit) == [0]
        assert self.load(reader, "a") == [(1, b"1")]

    @pytest.mark.parametrize(
        ("changed", "left"),
        [
            (changes({"x": NOW + 5}, acknowledged={"x": 1}), {"old": NOW, "x": NOW + 5}),
            (changes({"x": None}, acknowledged={"x": 1}), {"old": NOW}),
            (changes(acknowledged={"x": 1}, clear=True), {}),
            (changes({"x": NOW + 5}, acknowledged={"x": 1}, clear=True), {"x": NOW + 5}),
            (changes({"old": NOW + 5, "new": NOW}, clear=True), {"new": NOW, "old": NOW + 5}),
            (changes({"old": None, "new": NOW}, clear=True), {"new": NOW}),
            (changes({"none": None}), {"old": NOW, "x": NOW}),
            (changes(), {"old": NOW, "x": NOW}),
        ],
        ids=[
            "acknowledged and set",
            "acknowledged and cancelled",
            "acknowledged and cleared",
            "acknowledged, cleared and set",
            "cleared and set",
            "cleared and cancelled",
            "cancelled a missing alarm",
            "nothing",
        ],
    )
    def test_changes_are_applied_in_the_order_of_their_fields(
        self, writer: Writer, reader: Reader, changed: AlarmChanges, left: dict[str, int]
    ) -> None:
        for object_id in ("a", "b", "c"):
            self.schedule(writer, "old", "x", object_id=object_id)
            self.claim(writer, 1, alarm_key("x", object_id))
        # As a commit from outside, and as part of a turn.
        for object_id, revision in (("a", None), ("b", 0)):
            assert self.commit(writer, Commit(key(object_id), revision, alarms=changed)) == []
            assert self.alarms(reader, object_id) == left
            if "x" in changed.changed:
                assert not self.acknowledge(writer, "x", 1, object_id)
        # Alarms of other objects are left alone.
        assert self.alarms(reader, "c") == {"old": NOW, "x": NOW}
        assert self.acknowledge(writer, "x", 1, "c")

    @pytest.mark.parametrize("stored", [0, 1, 3])
    def test_changes_from_outside_apply_at_any_revision(
        self, writer: Writer, reader: Reader, stored: int
    ) -> None:
        for revision in range(stored):
            self.commit(writer, save("a", revision, b"1"))
        row = self.load(reader, "a")
        self.schedule(writer, "x", "y")
        assert self.commit(writer, outside("a", changes({"x": None, "z": NOW}))) == []
        assert self.alarms(reader) == {"y": NOW, "z": NOW}
        assert self.commit(writer, outside("a", changes(clear=True))) == []
        assert self.alarms(reader) == {}
        # Neither the state nor the revision changed.
        assert self.load(reader, "a") == row
        assert self.commit(writer, save("a", stored, b"2")) == []

    @pytest.mark.parametrize("stale", [False, True])
    def test_changes_from_outside_go_along_with_others(
        self, writer: Writer, reader: Reader, stale: bool
    ) -> None:
        self.commit(writer, save("a", 0, b"1"), save("b", 0, b"1"), save("c", 0, b"1"))
        self.schedule(writer, "x", "y", object_id="b")
        batch = [
            Commit(key("a"), 1, b"2"),
            outside("b", changes({"x": None})),
            Commit(key("c"), 1, delete=True),
            outside("d", changes({"x": NOW})),
            Commit(key("e"), 5 if stale else 0, b"1"),
        ]
        assert self.commit(writer, *batch) == ([4] if stale else [])
        assert self.load(reader, *"abcd") == [(2, b"2"), (1, b"1"), None, None]
        assert self.alarms(reader, "b") == {"y": NOW}
        assert self.alarms(reader, "d") == {"x": NOW}

    def test_a_deletion_with_its_alarms(self, writer: Writer, reader: Reader) -> None:
        for name in "abc":
            self.commit(writer, save(name, 0, b"1"))
            self.schedule(writer, "x", "y", object_id=name)
        self.make_dead(writer, "dead")
        gone = Commit(key("a"), 1, delete=True, alarms=changes(clear=True))
        fresh = Commit(key("b"), 1, delete=True, alarms=changes({"z": NOW}, clear=True))
        stale = Commit(key("c"), 2, delete=True, alarms=changes(clear=True))
        assert self.commit(writer, gone, fresh, stale) == [2]
        assert self.load(reader, *"abc") == [None, None, (1, b"1")]
        assert self.alarms(reader, "a") == {}
        assert self.alarms(reader, "b") == {"z": NOW}
        assert self.alarms(reader, "c") == {"x": NOW, "y": NOW}
        assert self.dead(reader) == []

    @pytest.mark.parametrize("is_deletion", [True, False])
    def test_an_object_that_is_not_stored_loses_its_alarms(
        self, writer: Writer, reader: Reader, is_deletion: bool
    ) -> None:
        self.schedule(writer, "x", "y")
        self.make_dead(writer, "dead")
        stale = Commit(key("a"), 1, delete=is_deletion, alarms=changes(clear=True))
        assert self.commit(writer, stale) == [0]
        assert self.alarms(reader) == {"x": NOW, "y": NOW}
        assert self.dead(reader) == [("a", "dead")]
        commit = Commit(key("a"), 0, delete=is_deletion, alarms=changes(clear=True))
        assert self.commit(writer, commit) == []
        assert self.alarms(reader) == {}
        assert self.dead(reader) == []
        assert self.due(reader) == []

    def test_an_alarm_set_anew_has_no_trace_of_the_old(
        self, writer: Writer, reader: Reader
    ) -> None:
        names = ["claimed", "failed", "dead", "revived"]
        self.schedule(writer, *names)
        keys = [alarm_key(name) for name in names]
        self.claim(writer, 1, *keys)
        writer.postpone([postponed(alarm_key("failed"), 1, NOW + 50, 2, "no")])
        writer.postpone([postponed(alarm_key(name), 1, None, 9, "no") for name in names[2:]])
        assert writer.revive(alarm_key("revived"), NOW)
        changed = changes(dict.fromkeys(names, NOW + 7), payload=b"[1]")
        assert self.commit(writer, Commit(key("a"), 0, alarms=changed)) == []
        fresh = {one: StoredAlarm(one, NOW + 7, b"[1]", 0, None) for one in keys}
        assert {alarm.key: alarm for alarm in reader.list_alarms(key("a"))} == fresh
        assert self.due(reader) == [(NOW + 7, "a", name) for name in sorted(names)]
        assert self.dead(reader) == []
        assert not self.acknowledge(writer, "claimed", 1)
        claimed = writer.claim(keys, 2, NOW + 7, NOW + SECOND)
        assert {alarm.key: alarm for alarm in claimed} == fresh

    def test_an_alarm_set_anew_forgets_its_payload(self, writer: Writer, reader: Reader) -> None:
        for payload in (b"1", None, b"2"):
            changed = changes({"x": NOW}, payload=payload)
            self.commit(writer, outside("a", changed))
            assert [alarm.payload for alarm in reader.list_alarms(key("a"))] == [payload]
