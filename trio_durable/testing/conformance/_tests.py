"""Base class of the conformance tests: fixtures, and short forms of frequent calls."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from operator import ne
from typing import ClassVar

import pytest

from ..._keys import AlarmKey
from ...storage import Commit, Reader, Storage, Writer
from ._builders import alarm_key, changes, key, outside, postponed
from ._values import FOREVER, NOW, SECOND, TENANTS


class StorageTests:
    """Fixtures for the storage under test and its two sides, and helpers for tests.

    Groups of tests inherit from this class, and `StorageConformance` from them.
    """

    opens_for_one: ClassVar[bool] = True
    """True if the storage refuses a second writer, and so releases claims when it opens.

    If False, the tests of condition 10 are skipped.
    """

    thoroughness: ClassVar[int] = 1
    """So many times as many examples are drawn. See `StorageConformance`."""
    counts_crashes: ClassVar[bool] = True
    """True if the storage counts crashes. If False, the tests of condition 12 are skipped."""

    @classmethod
    def group_of(cls, request: pytest.FixtureRequest) -> type:
        """The group that defines the running test. All groups are bases of one class."""
        name = request.function.__name__
        return next(group for group in cls.__mro__ if name in vars(group))

    def needs_crashes(self) -> None:
        """Skip the test if the storage doesn't count crashes."""
        if not self.counts_crashes:
            pytest.skip("this storage doesn't count crashes")

    def needs_one_writer(self) -> None:
        """Skip the test if the storage opens for several writers at the same time."""
        if not self.opens_for_one:
            pytest.skip("this storage opens for several writers at the same time")

    @pytest.fixture
    def storage(self) -> Storage:
        """The storage to test, empty and not open; a subclass overrides this fixture."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture named `storage`")

    @pytest.fixture
    def writer(self, storage: Storage) -> Iterator[Writer]:
        """The writer, open during the test."""
        writer = storage.open_writer()
        yield writer
        writer.close()

    @pytest.fixture
    def reader(self, storage: Storage, writer: Writer) -> Iterator[Reader]:
        """A reader, open during the test together with the writer."""
        reader = storage.open_reader()
        yield reader
        reader.close()

    @staticmethod
    def commit(writer: Writer, *batch: Commit) -> list[int]:
        """Commit a batch. Returns the positions of the stale commits, in order."""
        return sorted(writer.commit(batch, NOW))

    @staticmethod
    def load(reader: Reader, *object_ids: str) -> list[tuple[int, bytes] | None]:
        """Load objects. Returns revisions and states, in the order of the ids."""
        rows = reader.load([key(object_id) for object_id in object_ids])
        assert len(rows) == len(object_ids)
        return [None if row is None else (row.revision, row.state) for row in rows]

    # For values that differ pytest shows a diff by line, which takes minutes for thousands of rows
    # or a megabyte. Tests of large values compare by these two methods instead.

    @staticmethod
    def check_all(found: Sequence[object], expected: Sequence[object]) -> None:
        """Raise an `AssertionError` with the first difference, unless the sequences are equal."""
        wrong = [n for n, pair in enumerate(zip(found, expected, strict=False)) if ne(*pair)]
        if wrong:
            n = wrong[0]
            raise AssertionError(
                f"{len(wrong)} of {len(expected)} are wrong, the first at {n}: "
                f"{found[n]!r} instead of {expected[n]!r}"
            )
        assert len(found) == len(expected)

    @staticmethod
    def check_exact(found: bytes | None, written: bytes | None) -> None:
        """Raise an `AssertionError` with the first difference, unless the bytes are equal."""
        assert type(found) is type(written)
        if found is None or written is None or found == written:
            return
        pairs = enumerate(zip(found, written, strict=False))
        length = min(len(found), len(written))
        place = next((n for n, (one, other) in pairs if one != other), length)
        part = slice(max(place - 10, 0), place + 30)
        raise AssertionError(
            f"{len(written)} bytes were written and {len(found)} read; from byte {part.start} on "
            f"{found[part]!r} instead of {written[part]!r}"
        )

    # --- alarms ----------------------------------------------------------------------------------

    @staticmethod
    def alarms(reader: Reader, object_id: str = "a") -> dict[str, int]:
        """Due times of an object's alarms without dead letters, by name, in the reader's order."""
        return {alarm.key.name: alarm.due_at for alarm in reader.list_alarms(key(object_id))}

    @staticmethod
    def due(
        reader: Reader, before: int = FOREVER, except_types: Collection[str] = ()
    ) -> list[tuple[int, str, str]]:
        """The horizon feed as one page of (available_at, object id, name)."""
        page = reader.due_alarms(before, None, 10_000, except_types)
        return [(each.available_at, each.key.object_id, each.key.name) for each in page]

    @staticmethod
    def dead(reader: Reader) -> list[tuple[str, str]]:
        """The dead letters as one page of (object id, name)."""
        found = reader.list_dead_letters("Cart", None, 10_000)
        return [(alarm.key.object_id, alarm.key.name) for alarm in found]

    @staticmethod
    def claim(
        writer: Writer, claim: int, *alarms: AlarmKey, now: int = NOW, until: int = NOW + SECOND
    ) -> set[AlarmKey]:
        """Claim alarms. Returns the keys of the claimed ones."""
        claimed = writer.claim(alarms, claim, now, until)
        assert len({alarm.key for alarm in claimed}) == len(claimed)
        return {alarm.key for alarm in claimed}

    def acknowledge(self, writer: Writer, name: str, claim: int, object_id: str = "a") -> bool:
        """Acknowledge an alarm. Returns whether the claim was held, and the alarm is removed."""
        commit = outside(object_id, changes(acknowledged={name: claim}))
        return self.commit(writer, commit) == []

    def schedule(
        self, writer: Writer, *names: str, object_id: str = "a", due_at: int = NOW
    ) -> None:
        """Set alarms that are due."""
        changed = changes(dict.fromkeys(names, due_at))
        assert self.commit(writer, outside(object_id, changed)) == []

    def make_dead(self, writer: Writer, *names: str, object_id: str = "a") -> None:
        """Set alarms and turn them into dead letters."""
        self.schedule(writer, *names, object_id=object_id)
        keys = [alarm_key(name, object_id) for name in names]
        assert self.claim(writer, 999, *keys) == set(keys)
        writer.postpone([postponed(one, 999, None, 3, "dead") for one in keys])

    def fill_tenants(self, writer: Writer) -> None:
        """Save an object with a due alarm and a dead letter, under each tenant."""
        for n, tenant in enumerate(TENANTS):
            k = key("a", tenant=tenant)
            alarms = changes({"due": NOW, "dead": NOW})
            assert self.commit(writer, Commit(k, 0, f"{n}".encode(), alarms=alarms)) == []
            dead = k.alarm("dead")
            assert self.claim(writer, 900 + n, dead) == {dead}
            writer.postpone([postponed(dead, 900 + n, None, 1, tenant)])
