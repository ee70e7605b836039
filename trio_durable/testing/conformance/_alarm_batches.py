"""Tests of alarms in batches of all sizes, where a storage may have to split statements.

Conditions 2 and 8.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ...storage import AlarmChanges, Commit, Reader, Writer
from ._builders import alarm_key, changes, key, outside, save
from ._tests import StorageTests
from ._values import NOW, SECOND


class AlarmBatchTests(StorageTests):
    """Batches of many objects and alarms."""

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 65, 1000, 5000])
    def test_batches_of_alarms_of_all_sizes(
        self, writer: Writer, reader: Reader, size: int
    ) -> None:
        """Keys of ``count`` alarms, spread over at most a thousand objects, as in real batches."""
        objects = [f"{n:04}" for n in range(min(size, 1000))]
        keys = [alarm_key(f"{n:04}", objects[n % len(objects)]) for n in range(size)]
        names = {one: [k.name for k in keys if k.object_id == one] for one in objects[:3]}

        def batch(change: Callable[[list[str]], AlarmChanges]) -> list[Commit]:
            mine: dict[str, list[str]] = {one: [] for one in objects}
            for one in keys:
                mine[one.object_id].append(one.name)
            return [outside(one, change(found)) for one, found in mine.items()]

        assert self.commit(writer, *batch(lambda mine: changes(dict.fromkeys(mine, NOW)))) == []
        assert len(self.due(reader)) == size
        for one, found in names.items():
            self.check_all(list(self.alarms(reader, one)), found)
        assert self.claim(writer, 1, *keys) == set(keys)
        assert self.due(reader, NOW + SECOND) == []
        done = batch(lambda mine: changes(acknowledged=dict.fromkeys(mine, 1)))
        assert self.commit(writer, *done) == []
        assert self.due(reader) == []
        assert self.commit(writer, *batch(lambda mine: changes(dict.fromkeys(mine, NOW)))) == []
        self.check_all(self.commit(writer, *done), list(range(len(objects))))
        assert len(self.due(reader)) == size
        assert self.commit(writer, *batch(lambda mine: changes(dict.fromkeys(mine)))) == []
        assert self.due(reader) == []

    def test_more_alarms_in_a_batch_than_a_statement_has_room_for(
        self, writer: Writer, reader: Reader
    ) -> None:
        """A storage hides its own limits, such as that on the parameters of a statement."""
        size = 33_000
        names = [f"{n:05}" for n in range(size)]
        keys = [alarm_key(name) for name in names]
        assert (
            self.commit(writer, Commit(key("a"), 0, alarms=changes(dict.fromkeys(names, NOW))))
            == []
        )
        assert len(reader.list_alarms(key("a"))) == size
        assert self.claim(writer, 1, *keys) == set(keys)
        done = changes(acknowledged=dict.fromkeys(names, 1))
        assert self.commit(writer, Commit(key("a"), 0, b"1", alarms=done)) == []
        assert reader.list_alarms(key("a")) == []

    @pytest.mark.parametrize("size", [3, 64, 1000])
    def test_a_batch_of_everything_with_alarms(
        self, writer: Writer, reader: Reader, size: int
    ) -> None:
        """Each kind of change to alarms with each kind of commit, both fresh and stale."""
        ids = [f"{n:04}" for n in range(size)]
        stored = [one for n, one in enumerate(ids) if n % 9 in (1, 2, 3, 4, 5, 6)]
        self.commit(writer, *(save(one, 0, b"1") for one in stored))
        for one in ids[:9]:
            assert self.alarms(reader, one) == {}
        old = changes({"c": NOW, "o": NOW})
        self.commit(writer, *(outside(one, old) for one in ids))
        claimed = [alarm_key("c", one) for one in ids]
        assert self.claim(writer, 1, *claimed) == set(claimed)
        both, later = {"c": NOW, "o": NOW}, NOW + 5
        batch: list[Commit] = []
        stale: list[int] = []
        rows: list[tuple[int, bytes] | None] = []
        left: list[dict[str, int]] = []
        for n, one in enumerate(ids):
            k = key(one)
            commit, row, alarms = [
                (Commit(k, 0, b"2", alarms=changes({"n": later})), (1, b"2"), {**both, "n": later}),
                (Commit(k, 1, b"2", alarms=changes(acknowledged={"c": 1})), (2, b"2"), {"o": NOW}),
                (Commit(k, 1, delete=True, alarms=changes(clear=True)), None, {}),
                (Commit(k, 1, b"2"), (2, b"2"), both),
                (
                    Commit(k, 1, b"2", alarms=changes({"o": None}, acknowledged={"c": 2})),
                    "stale",
                    both,
                ),
                (Commit(k, 0, b"2", alarms=changes({"o": later, "c": None})), "stale", both),
                (Commit(k, 1, alarms=changes({"o": None, "c": later})), (1, b"1"), {"c": later}),
                (Commit(k, None, alarms=changes({"n": later}, clear=True)), None, {"n": later}),
                (Commit(k, 1, alarms=changes(acknowledged={"c": 1})), "stale none", both),
            ][n % 9]
            batch.append(commit)
            if isinstance(row, str):
                stale.append(n)
                row = (1, b"1") if row == "stale" else None
            rows.append(row)
            left.append(alarms)
        self.check_all(self.commit(writer, *batch), stale)
        self.check_all(self.load(reader, *ids), rows)
        self.check_all([self.alarms(reader, one) for one in ids], left)
