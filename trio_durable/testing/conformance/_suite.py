"""What every storage must do, as tests: one suite, run over each of them.

A subclass provides a ``storage`` fixture and inherits the tests. They are in the order of the
conditions that the contract of `trio_durable.storage` numbers, and go through nothing but that
contract. Condition 7, distinct keys, is the caller's to keep.

::

    class TestMyStorage(StorageConformance):
        @pytest.fixture
        def storage(self) -> Storage:
            return MyStorage()
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import ClassVar

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ..._errors import StorageInUse
from ..._keys import AlarmKey, ObjectKey
from ...storage import (
    AlarmChanges,
    AlarmRow,
    AlarmStatus,
    Commit,
    DueAlarm,
    NewAlarm,
    ObjectRow,
    Postponement,
    Reader,
    Storage,
    StoredAlarm,
    StoredObject,
    TypeSummary,
    Writer,
)

NOW = 1_767_225_600_000_000
SECOND = 1_000_000
LATEST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * SECOND + 999_999
EARLIEST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * SECOND
FOREVER = 2**63 - 1
TIMES = [EARLIEST, -(2**53) - 1, -(2**53), -1, 0, 1, NOW, 2**53, 2**53 + 1, LATEST - 1, LATEST]

ERRORS = ["", 'it\'s "quoted"\n\ttwice', "é 👾 \u2028", "null", "0", "x" * 10_000]

ODD_IDS = [
    " ",
    "'",
    '"',
    "\\",
    "%_*?[",
    "'; DROP TABLE durable_objects; --",
    '"]}, {"x": ["',
    "$[0]",
    "null",
    "0",
    "00",
    "1e3",
    "line\nbreak\r\ttab",
    "\x01\x1f\x7f",
    "\u00e9",
    "e\u0301",
    "\u2028\u2029",
    "\ufeffmark",
    "\uffff",
    "\U0001d54f",
    "👩‍👩‍👧",
    "x" * 512,
    "é" * 256,
    "👾" * 128,
]

STATES = {
    "empty object": b"{}",
    "empty text": b'""',
    "null": b"null",
    "scalar": b"0",
    "float": b"1.7976931348623157e308",
    "integer of 64 bits": b"-9223372036854775808",
    "spaces kept": b' { "a" : [ 1 ,\t2 ] }\n',
    "order and duplicates kept": b'{"b":1,"a":2,"b":3}',
    "quotes": b'{"\'":"\\"\'\'\\""}',
    "backslashes": b'"\\\\\\\\u0041\\/"',
    "escapes": b'"\\b\\f\\n\\r\\t"',
    "NUL escape": b'{"nul":"a\\u0000b"}',
    "NUL escape alone": b'"\\u0000"',
    "lone surrogate escape": b'"\\ud800"',
    "controls escaped": b'"\\u0001\\u001f"',
    "delete character": b'"\x7f"',
    "unicode": '{"é":"漢字 👾 \u2028 \uffff \U0010ffff"}'.encode(),
    "placeholders": b'"? ?1 :name @name $name"',
    "64 KiB": b'"' + b"x" * (64 * 1024 - 2) + b'"',
    "64 KiB and 1": b'"' + b"x" * (64 * 1024 - 1) + b'"',
    "64 KiB in characters of 3 bytes": ('"' + "漢" * 30_000 + '"').encode(),
    "1 MiB of quotes": json.dumps('"\\' * (1024 * 256)).encode(),
    "1 MiB": b'"' + b"x" * (1024 * 1024 - 2) + b'"',
    "16 MiB": ('"' + "é\\n" * (16 * 1024 * 1024 // 4 - 1) + '"').encode(),
}

_json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_states = st.builds(
    lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode(
        errors="surrogatepass"
    ),
    _json_values,
    st.booleans(),
).filter(lambda state: _is_utf8(state))


def _is_utf8(state: bytes) -> bool:
    try:
        state.decode()
    except UnicodeDecodeError:
        return False
    return True


TENANTS = ["", "a-b", "acme"]
"""In order; the first one is everybody's."""


def key(object_id: str, type_name: str = "Cart", tenant: str = "") -> ObjectKey:
    return ObjectKey(type_name, object_id, tenant)


def save(object_id: str, revision: int, state: bytes = b"{}") -> Commit:
    return Commit(key(object_id), revision, state)


def delete(object_id: str, revision: int) -> Commit:
    return Commit(key(object_id), revision, delete=True)


def alarm_key(
    name: str, object_id: str = "a", type_name: str = "Cart", tenant: str = ""
) -> AlarmKey:
    return AlarmKey(type_name, object_id, name, tenant)


def changes(
    changed: Mapping[str, int | None] | None = None,
    *,
    acknowledged: Mapping[str, int] | None = None,
    clear: bool = False,
    payload: bytes | None = None,
) -> AlarmChanges:
    """Set alarms for the times of ``changed``, or cancel them."""
    return AlarmChanges(
        dict(acknowledged or {}),
        clear,
        {
            name: None if due_at is None else NewAlarm(due_at, payload)
            for name, due_at in (changed or {}).items()
        },
    )


def outside(object_id: str, changed: AlarmChanges) -> Commit:
    """Changes that come from outside of the object, whatever its revision."""
    return Commit(key(object_id), None, alarms=changed)


def postponed(
    alarm: AlarmKey, claim: int, available_at: int | None, failures: int = 1, error: str = "no"
) -> Postponement:
    return Postponement(alarm, claim, available_at, failures, error)


class StorageConformance:
    """Subclasses provide ``storage``, empty and not open."""

    opens_for_one: ClassVar[bool] = True
    """Whether a second writer is refused, so that opening gives claims back."""

    def needs_one_writer(self) -> None:
        if not self.opens_for_one:
            pytest.skip("this storage opens for several writers at a time")

    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError

    @pytest.fixture
    def writer(self, storage: Storage) -> Iterator[Writer]:
        writer = storage.open_writer()
        yield writer
        writer.close()

    @pytest.fixture
    def reader(self, storage: Storage, writer: Writer) -> Iterator[Reader]:
        reader = storage.open_reader()
        yield reader
        reader.close()

    @staticmethod
    def commit(writer: Writer, *batch: Commit) -> list[int]:
        """The positions of the stale ones, in order."""
        return sorted(writer.commit(batch, NOW))

    @staticmethod
    def load(reader: Reader, *object_ids: str) -> list[tuple[int, bytes] | None]:
        rows = reader.load([key(object_id) for object_id in object_ids])
        assert len(rows) == len(object_ids)
        return [None if row is None else (row.revision, row.state) for row in rows]

    # --- 1: a commit is atomic -------------------------------------------------------------------

    def test_a_commit_stores_state_and_revision(self, writer: Writer, reader: Reader) -> None:
        assert self.commit(writer, save("a", 0, b'{"n":1}')) == []
        assert self.load(reader, "a") == [(1, b'{"n":1}')]
        assert self.commit(writer, save("a", 1, b'{"n":2}')) == []
        assert self.load(reader, "a") == [(2, b'{"n":2}')]

    def test_a_refused_commit_leaves_state_and_revision(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.commit(writer, save("a", 0, b"1"))
        assert self.commit(writer, save("a", 7, b"2")) == [0]
        assert self.load(reader, "a") == [(1, b"1")]

    def test_a_commit_without_state_keeps_row(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("a", 0, b"1"))
        assert self.commit(writer, Commit(key("a"), 1), Commit(key("b"), 0)) == []
        assert self.load(reader, "a", "b") == [(1, b"1"), None]

    def test_a_commit_without_state_is_conditional(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("a", 0, b"1"))
        assert self.commit(writer, Commit(key("a"), 0), Commit(key("b"), 1)) == [0, 1]
        assert self.load(reader, "a", "b") == [(1, b"1"), None]

    # --- 2: a batch is one transaction -----------------------------------------------------------

    def test_an_empty_batch_is_fine(self, writer: Writer, reader: Reader) -> None:
        assert self.commit(writer) == []
        assert reader.list_ids("Cart", None, 10) == []

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 63, 64, 65, 512, 1000, 1024, 1025, 1100])
    def test_batches_of_all_sizes(self, writer: Writer, reader: Reader, size: int) -> None:
        ids = [f"{n:04}" for n in range(size)]
        created = [save(one, 0, one.encode()) for one in ids]
        assert self.commit(writer, *created) == []
        assert self.load(reader, *ids) == [(1, one.encode()) for one in ids]
        changed = [save(one, 1, one.encode() + b"0") for one in ids]
        assert self.commit(writer, *changed) == []
        assert self.load(reader, *ids) == [(2, one.encode() + b"0") for one in ids]
        assert self.commit(writer, *(delete(one, 2) for one in ids)) == []
        assert self.load(reader, *ids) == [None] * size

    @pytest.mark.parametrize("size", [3, 64, 1000, 1100])
    def test_a_batch_of_everything(self, writer: Writer, reader: Reader, size: int) -> None:
        """Creations, changes, deletions and each kind of stale commit, mixed."""
        ids = [f"{n:04}" for n in range(size)]
        stored = [one for n, one in enumerate(ids) if n % 7 not in (0, 5)]
        self.commit(writer, *(save(one, 0, b"1") for one in stored))
        batch: list[Commit] = []
        stale: list[int] = []
        expected: list[tuple[int, bytes] | None] = []
        for n, one in enumerate(ids):
            commit, applies, row = [
                (save(one, 0, b"2"), True, (1, b"2")),
                (save(one, 1, b"2"), True, (2, b"2")),
                (delete(one, 1), True, None),
                (save(one, 0, b"2"), False, (1, b"1")),
                (delete(one, 2), False, (1, b"1")),
                (save(one, 1, b"2"), False, None),
                (Commit(key(one), 1), True, (1, b"1")),
            ][n % 7]
            batch.append(commit)
            expected.append(row)
            if not applies:
                stale.append(n)
        assert self.commit(writer, *batch) == stale
        assert self.load(reader, *ids) == expected

    # --- 3: a commit is conditional --------------------------------------------------------------

    @pytest.mark.parametrize("revision", [0, 1, 2, 4, 5, 2**40])
    def test_only_the_stored_revision_applies(
        self, writer: Writer, reader: Reader, revision: int
    ) -> None:
        for stored in range(3):
            self.commit(writer, save("a", stored, str(stored).encode()))
        assert self.commit(writer, save("a", revision, b"99")) == [0]
        assert self.load(reader, "a") == [(3, b"2")]
        assert self.commit(writer, save("a", 3, b"99")) == []
        assert self.load(reader, "a") == [(4, b"99")]

    def test_a_row_that_is_not_there_is_revision_0(self, writer: Writer, reader: Reader) -> None:
        assert self.commit(writer, save("a", 1), save("b", 2), delete("c", 1)) == [0, 1, 2]
        assert self.load(reader, "a", "b", "c") == [None, None, None]
        assert reader.list_ids("Cart", None, 10) == []

    def test_revision_0_does_not_overwrite(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("a", 0, b"1"), save("b", 0, b"1"))
        assert self.commit(writer, save("a", 0, b"2"), delete("b", 0)) == [0, 1]
        assert self.load(reader, "a", "b") == [(1, b"1"), (1, b"1")]

    def test_stale_ones_do_not_hold_back_the_others(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("a", 0, b"1"), save("b", 0, b"1"), save("c", 0, b"1"))
        stale = self.commit(
            writer, save("a", 1, b"2"), save("b", 2, b"2"), save("c", 1, b"2"), save("d", 0, b"2")
        )
        assert stale == [1]
        assert self.load(reader, *"abcd") == [(2, b"2"), (1, b"1"), (2, b"2"), (1, b"2")]

    def test_all_stale(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("a", 0, b"1"), save("b", 0, b"1"))
        assert self.commit(writer, save("a", 5, b"2"), save("b", 0, b"2")) == [0, 1]
        assert self.load(reader, "a", "b") == [(1, b"1"), (1, b"1")]

    def test_a_stale_commit_applied_anew(self, writer: Writer, reader: Reader) -> None:
        """A refusal leaves nothing behind that could refuse the next one."""
        self.commit(writer, save("a", 0, b"1"))
        assert self.commit(writer, save("a", 0, b"2")) == [0]
        assert self.commit(writer, save("a", 1, b"2")) == []
        assert self.load(reader, "a") == [(2, b"2")]

    def test_a_deletion_is_conditional(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("a", 0, b"1"), save("b", 0, b"1"))
        self.commit(writer, save("b", 1, b"2"))
        assert self.commit(writer, delete("a", 1), delete("b", 1)) == [1]
        assert self.load(reader, "a", "b") == [None, (2, b"2")]

    def test_deleting_what_is_not_there(self, writer: Writer, reader: Reader) -> None:
        assert self.commit(writer, delete("a", 0)) == []
        assert self.load(reader, "a") == [None]

    def test_deleted_then_stored_again(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("a", 0, b"1"))
        self.commit(writer, save("a", 1, b"2"))
        assert self.commit(writer, delete("a", 2)) == []
        assert self.commit(writer, save("a", 2, b"3")) == [0]
        assert self.commit(writer, save("a", 0, b"4")) == []
        rows = self.load(reader, "a")
        assert rows == [(1, b"4")]
        assert reader.list_ids("Cart", None, 10) == ["a"]

    # --- 4: durable, as far as closing and opening show ------------------------------------------

    def test_reopened(self, storage: Storage) -> None:
        for revision in range(3):
            writer = storage.open_writer()
            reader = storage.open_reader()
            stored = (revision, str(revision).encode()) if revision else None
            assert self.load(reader, "a") == [stored]
            self.commit(writer, save("a", revision, str(revision + 1).encode()))
            reader.close()
            writer.close()

    def test_one_writer_at_a_time(self, storage: Storage, writer: Writer) -> None:
        self.needs_one_writer()
        with pytest.raises(StorageInUse) as caught:
            storage.open_writer()
        assert caught.value.location == storage.location
        assert self.commit(writer, save("a", 0)) == []

    # --- 5: exact --------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
    def test_states_come_back_as_they_were(
        self, writer: Writer, reader: Reader, state: bytes
    ) -> None:
        self.commit(writer, save("a", 0, state))
        (row,) = reader.load([key("a")])
        assert row is not None
        assert type(row.state) is bytes
        assert row.state == state

    def test_states_do_not_mix_in_a_batch(self, writer: Writer, reader: Reader) -> None:
        ids = [f"{n:02}" for n in range(len(STATES))]
        batch = [save(one, 0, state) for one, state in zip(ids, STATES.values(), strict=True)]
        self.commit(writer, *batch)
        assert self.load(reader, *ids) == [(1, state) for state in STATES.values()]

    def test_a_state_that_shrinks_and_grows(self, writer: Writer, reader: Reader) -> None:
        for revision, state in enumerate([b"1", STATES["1 MiB"], b"2", STATES["1 MiB"]]):
            self.commit(writer, save("a", revision, state))
            assert self.load(reader, "a") == [(revision + 1, state)]

    # --- 6: what a reader sees -------------------------------------------------------------------

    def test_a_reader_sees_every_batch(self, storage: Storage, writer: Writer) -> None:
        early = storage.open_reader()
        for revision in range(5):
            self.commit(writer, save("a", revision, str(revision).encode()))
            late = storage.open_reader()
            for reader in (early, late):
                assert self.load(reader, "a") == [(revision + 1, str(revision).encode())]
                assert reader.list_ids("Cart", None, 10) == ["a"]
            late.close()
        early.close()

    def test_loads_answer_in_order(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("a", 0, b"1"), save("b", 0, b"2"))
        assert self.load(reader, "b", "none", "a") == [(1, b"2"), None, (1, b"1")]

    def test_loads_of_nothing_and_of_one_key_twice(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, save("a", 0, b"1"))
        assert list(reader.load([])) == []
        assert self.load(reader, "none", "none") == [None, None]
        assert self.load(reader, "a", "none", "a", "a") == [(1, b"1"), None, (1, b"1"), (1, b"1")]

    def test_a_large_load(self, writer: Writer, reader: Reader) -> None:
        ids = [f"{n:04}" for n in range(1100)]
        states = [json.dumps("x" * (n % 50) * 100).encode() for n in range(1100)]
        self.commit(writer, *(save(one, 0, state) for one, state in zip(ids, states, strict=True)))
        ids.reverse()
        assert self.load(reader, *ids) == [(1, state) for state in reversed(states)]

    # --- keys ------------------------------------------------------------------------------------

    def test_odd_ids(self, writer: Writer, reader: Reader) -> None:
        states = [json.dumps(one).encode() for one in ODD_IDS]
        created = [save(one, 0, state) for one, state in zip(ODD_IDS, states, strict=True)]
        assert self.commit(writer, *created) == []
        assert self.load(reader, *ODD_IDS) == [(1, state) for state in states]
        in_order = sorted(ODD_IDS, key=str.encode)
        assert reader.list_ids("Cart", None, 100) == in_order
        for place, one in enumerate(in_order):
            assert reader.list_ids("Cart", one, 2) == in_order[place + 1 : place + 3]
        stale = self.commit(writer, *(delete(one, n % 2 + 1) for n, one in enumerate(ODD_IDS)))
        assert stale == list(range(1, len(ODD_IDS), 2))
        assert self.load(reader, *ODD_IDS[::2]) == [None] * len(ODD_IDS[::2])

    @pytest.mark.parametrize("type_name", ODD_IDS)
    def test_odd_type_names(self, writer: Writer, reader: Reader, type_name: str) -> None:
        one, other = ObjectKey(type_name, "a"), ObjectKey(type_name + "x", "a")
        self.commit(writer, Commit(one, 0, b"1"), Commit(other, 0, b"2"))
        assert self.commit(writer, Commit(one, 1, b"3"), Commit(other, 0, b"4")) == [1]
        assert reader.load([one, other]) == [StoredObject(2, b"3"), StoredObject(1, b"2")]
        assert reader.list_ids(type_name, None, 10) == ["a"]

    def test_types_do_not_mix(self, writer: Writer, reader: Reader) -> None:
        self.commit(
            writer,
            Commit(key("a", "Cart"), 0, b"1"),
            Commit(key("a", "Order"), 0, b"2"),
            Commit(key("b", "Order"), 0, b"3"),
            Commit(key("a", "cart"), 0, b"4"),
        )
        assert reader.list_ids("Cart", None, 10) == ["a"]
        assert reader.list_ids("Order", None, 10) == ["a", "b"]
        assert reader.list_ids("cart", None, 10) == ["a"]
        assert reader.list_ids("Nothing", None, 10) == []
        assert reader.load([key("a", "Order"), key("b", "Cart"), key("a", "Cart")]) == [
            StoredObject(1, b"2"),
            None,
            StoredObject(1, b"1"),
        ]
        self.commit(writer, Commit(key("a", "Cart"), 1, delete=True))
        assert reader.load([key("a", "Order")]) == [StoredObject(1, b"2")]

    # --- lists -----------------------------------------------------------------------------------

    def test_lists_page_through_in_the_order_of_utf_8_bytes(
        self, writer: Writer, reader: Reader
    ) -> None:
        # By UTF-16 units U+1F47E would come before U+FFFF; by a locale's rules é before z.
        ids = ["B", "a", "aa", "ab", "z", "é", "\uffff", "👾", *(f"n{n}" for n in range(20))]
        in_order = sorted(ids, key=str.encode)
        self.commit(writer, *(save(one, 0) for one in ids))
        for limit in (1, 3, 7, 28, 1000):
            paged: list[str] = []
            after = None
            while page := reader.list_ids("Cart", after, limit):
                assert len(page) <= limit
                paged += page
                after = page[-1]
            assert paged == in_order

    def test_a_page_begins_behind_an_id_that_is_not_there(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.commit(writer, save("a", 0), save("c", 0))
        assert reader.list_ids("Cart", "b", 10) == ["c"]
        assert reader.list_ids("Cart", "c", 10) == []

    def test_deleted_ones_are_not_listed(self, writer: Writer, reader: Reader) -> None:
        self.commit(writer, *(save(one, 0) for one in "abc"))
        self.commit(writer, delete("b", 1))
        assert reader.list_ids("Cart", None, 10) == ["a", "c"]

    # --- alarms: what the tests below ask --------------------------------------------------------

    @staticmethod
    def alarms(reader: Reader, object_id: str = "a") -> dict[str, int]:
        """The times of an object's alarms, dead letters excepted, in the order they come in."""
        return {alarm.key.name: alarm.due_at for alarm in reader.list_alarms(key(object_id))}

    @staticmethod
    def due(
        reader: Reader, before: int = FOREVER, except_types: Collection[str] = ()
    ) -> list[tuple[int, str, str]]:
        """The feed, in one page."""
        page = reader.due_alarms(before, None, 10_000, except_types)
        return [(each.available_at, each.key.object_id, each.key.name) for each in page]

    @staticmethod
    def dead(reader: Reader) -> list[tuple[str, str]]:
        """The dead letters, in one page."""
        found = reader.list_dead_letters("Cart", None, 10_000)
        return [(alarm.key.object_id, alarm.key.name) for alarm in found]

    @staticmethod
    def claim(
        writer: Writer, claim: int, *alarms: AlarmKey, now: int = NOW, until: int = NOW + SECOND
    ) -> set[AlarmKey]:
        """What was claimed."""
        claimed = writer.claim(alarms, claim, now, until)
        assert len({alarm.key for alarm in claimed}) == len(claimed)
        return {alarm.key for alarm in claimed}

    def acknowledge(self, writer: Writer, name: str, claim: int, object_id: str = "a") -> bool:
        """Whether the claim was held. The alarm is gone then."""
        commit = outside(object_id, changes(acknowledged={name: claim}))
        return self.commit(writer, commit) == []

    def schedule(
        self, writer: Writer, *names: str, object_id: str = "a", due_at: int = NOW
    ) -> None:
        """Set alarms, which are due."""
        changed = changes(dict.fromkeys(names, due_at))
        assert self.commit(writer, outside(object_id, changed)) == []

    def make_dead(self, writer: Writer, *names: str, object_id: str = "a") -> None:
        """Make dead letters."""
        self.schedule(writer, *names, object_id=object_id)
        keys = [alarm_key(name, object_id) for name in names]
        assert self.claim(writer, 999, *keys) == set(keys)
        writer.postpone([postponed(one, 999, None, 3, "dead") for one in keys])

    # --- alarms in commits, condition 8 ----------------------------------------------------------

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
                # The others of the batch apply all the same.
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
            "set anew",
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
        elif how == "set anew":
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
            # Alone, and among others, which apply all the same.
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
            "cancelled what is not there",
            "nothing",
        ],
    )
    def test_changes_are_applied_in_the_order_of_their_fields(
        self, writer: Writer, reader: Reader, changed: AlarmChanges, left: dict[str, int]
    ) -> None:
        for object_id in ("a", "b", "c"):
            self.schedule(writer, "old", "x", object_id=object_id)
            self.claim(writer, 1, alarm_key("x", object_id))
        # On its own, and as part of a turn.
        for object_id, revision in (("a", None), ("b", 0)):
            assert self.commit(writer, Commit(key(object_id), revision, alarms=changed)) == []
            assert self.alarms(reader, object_id) == left
            if "x" in changed.changed:
                assert not self.acknowledge(writer, "x", 1, object_id)
        # Nobody else's are touched.
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
        # Neither state nor revision moved.
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
        anew = Commit(key("b"), 1, delete=True, alarms=changes({"z": NOW}, clear=True))
        stale = Commit(key("c"), 2, delete=True, alarms=changes(clear=True))
        assert self.commit(writer, gone, anew, stale) == [2]
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

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 65, 1000, 5000])
    def test_batches_of_alarms_of_all_sizes(
        self, writer: Writer, reader: Reader, size: int
    ) -> None:
        """Spread over objects, a thousand at most, as batches are."""
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
            assert list(self.alarms(reader, one)) == found
        assert self.claim(writer, 1, *keys) == set(keys)
        assert self.due(reader, NOW + SECOND) == []
        done = batch(lambda mine: changes(acknowledged=dict.fromkeys(mine, 1)))
        assert self.commit(writer, *done) == []
        assert self.due(reader) == []
        assert self.commit(writer, *batch(lambda mine: changes(dict.fromkeys(mine, NOW)))) == []
        assert self.commit(writer, *done) == list(range(len(objects)))
        assert len(self.due(reader)) == size
        assert self.commit(writer, *batch(lambda mine: changes(dict.fromkeys(mine)))) == []
        assert self.due(reader) == []

    def test_more_alarms_in_a_batch_than_a_statement_has_room_for(
        self, writer: Writer, reader: Reader
    ) -> None:
        """Whatever limits a storage has within, they are its own affair."""
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
        """Each kind of change to alarms, with each kind of commit, applying and stale."""
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
        assert self.commit(writer, *batch) == stale
        assert self.load(reader, *ids) == rows
        assert [self.alarms(reader, one) for one in ids] == left

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
            self.claim(writer, 2, alarm_key("unknown", "nobody"), alarm_key("x", "a", "T")) == set()
        )
        assert self.claim(writer, 3) == set()

    def test_a_claim_is_exclusive_until_it_runs_out(self, writer: Writer, reader: Reader) -> None:
        x = alarm_key("x")
        self.schedule(writer, "x")
        assert self.claim(writer, 1, x, until=NOW + 10) == {x}
        assert self.claim(writer, 2, x, until=NOW + 10) == set()
        assert self.claim(writer, 3, x, now=NOW + 9, until=NOW + 20) == set()
        # It is its holder's still, for nobody else has claimed it.
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
        # A claim changes nothing of what they are.
        assert reader.list_alarms(key("a")) == [claimed[x], claimed[y]]

    def test_one_claim_in_two_parts(self, writer: Writer, reader: Reader) -> None:
        """Many are claimed at once, some of them held by another."""
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
        names = ["held", "lost", "set anew", "dead", "free"]
        self.schedule(writer, *names)
        held, lost, set_anew, dead, free = map(alarm_key, names)
        self.claim(writer, 1, held, lost, set_anew, dead, until=NOW + 10)
        self.claim(writer, 2, lost, now=NOW + 10, until=NOW + 20)
        self.schedule(writer, "set anew")
        writer.postpone([postponed(dead, 1, None)])
        writer.renew([(one, 1) for one in (held, lost, set_anew, dead, free)], NOW + 50)
        writer.renew([(alarm_key("unknown"), 1), (held, 3)], NOW + 60)
        writer.renew([], NOW + 70)
        assert self.due(reader) == [
            (NOW, "a", "free"),
            (NOW, "a", "set anew"),
            (NOW + 20, "a", "lost"),
            (NOW + 50, "a", "held"),
        ]
        assert self.dead(reader) == [("a", "dead")]
        # To an earlier time as well.
        writer.renew([(held, 1), (lost, 2)], NOW + 5)
        assert self.due(reader)[2:] == [(NOW + 5, "a", "held"), (NOW + 5, "a", "lost")]

    def test_only_held_claims_are_postponed(self, writer: Writer, reader: Reader) -> None:
        names = ["held", "lost", "set anew", "free"]
        self.schedule(writer, *names)
        keys = [alarm_key(name) for name in names]
        self.claim(writer, 1, *keys[:3], until=NOW + 10)
        self.claim(writer, 2, keys[1], now=NOW + 10, until=NOW + 20)
        self.schedule(writer, "set anew")
        writer.postpone([postponed(one, 1, NOW + 50, 2, "no") for one in keys])
        writer.postpone([postponed(alarm_key("unknown"), 1, NOW)])
        writer.postpone([])
        assert self.due(reader) == [
            (NOW, "a", "free"),
            (NOW, "a", "set anew"),
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
        # The claim is given back.
        assert not self.acknowledge(writer, "x", 1)
        writer.postpone([postponed(x, 1, NOW, 7)])
        writer.renew([(x, 1)], NOW)
        assert self.claim(writer, 2, x, now=NOW + 9) == set()
        assert self.claim(writer, 3, x, now=NOW + 10) == {x}
        assert self.alarms(reader) == {"x": NOW}  # it was set for that time, whatever came after
        # As it was, with no failure, as one gives back what one doesn't begin.
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

    # --- giving claims back, condition 10 --------------------------------------------------------

    def test_opening_gives_claims_back(self, storage: Storage) -> None:
        self.needs_one_writer()
        writer = storage.open_writer()
        # One to an object, many to an object, claimed or not.
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
            StoredAlarm(alarm_key("x"), NOW, None, 3, "no"),
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

    # --- the horizon feed ------------------------------------------------------------------------

    def test_the_feed_is_in_the_order_of_time_and_key(self, writer: Writer, reader: Reader) -> None:
        keys = [
            AlarmKey(type_name, object_id, name)
            for type_name in ("Cart", "cart", "É")
            for object_id in ("B", "a", "\uffff", "👾")
            for name in ("x", "é", "z")
        ]
        times = {one: NOW + n * 7 % 4 for n, one in enumerate(keys)}
        by_object: dict[ObjectKey, dict[str, int | None]] = {}
        for one, time in times.items():
            by_object.setdefault(one.object_key, {})[one.name] = time
        self.commit(
            writer, *(Commit(one, None, alarms=changes(its)) for one, its in by_object.items())
        )

        def bytewise(each: DueAlarm) -> tuple[int, list[bytes]]:
            return each.available_at, [part.encode() for part in each.key]

        expected = sorted((DueAlarm(time, one) for one, time in times.items()), key=bytewise)
        assert reader.due_alarms(NOW + 4, None, 1000, ()) == expected
        assert reader.due_alarms(NOW + 2, None, 1000, ()) == [
            each for each in expected if each.available_at < NOW + 2
        ]
        for limit in (1, 2, 5, 36, 100):
            paged: list[DueAlarm] = []
            after = None
            while page := reader.due_alarms(NOW + 4, after, limit, ["cart"]):
                assert len(page) <= limit
                paged += page
                after = page[-1]
            assert paged == [each for each in expected if each.key.type_name != "cart"]
        # Behind one that isn't there, in every part of it.
        for each in (
            DueAlarm(NOW + 1, AlarmKey("", "", "")),
            DueAlarm(NOW + 1, AlarmKey("Cart", "a", "y")),
            DueAlarm(NOW + 1, AlarmKey("Cart", "b", "")),
            DueAlarm(NOW + 1, AlarmKey("D", "", "")),
            DueAlarm(NOW + 9, AlarmKey("Cart", "a", "x")),
        ):
            assert reader.due_alarms(NOW + 4, each, 1000, ()) == [
                other for other in expected if bytewise(other) > bytewise(each)
            ]

    def test_the_feed_ends_before_its_time(self, writer: Writer, reader: Reader) -> None:
        self.schedule(writer, "x")
        assert self.due(reader, NOW) == []
        assert self.due(reader, NOW + 1) == [(NOW, "a", "x")]

    def test_the_feed_shows_a_claimed_alarm_where_its_claim_runs_out(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.schedule(writer, "x", "y")
        self.claim(writer, 1, alarm_key("x"), until=NOW + 10)
        assert self.due(reader, NOW + 10) == [(NOW, "a", "y")]
        assert self.due(reader) == [(NOW, "a", "y"), (NOW + 10, "a", "x")]

    def test_the_feed_leaves_types_out(self, writer: Writer, reader: Reader) -> None:
        types = ["Cart", "cart", "'", "Order"]
        self.commit(
            writer,
            *(Commit(ObjectKey(t, "a"), None, alarms=changes({"x": NOW})) for t in types),
        )

        def left(*except_types: str) -> list[str]:
            page = reader.due_alarms(FOREVER, None, 2, except_types)
            return [each.key.type_name for each in page]

        assert left() == ["'", "Cart"]
        assert left("Cart", "none") == ["'", "Order"]
        assert left("'", "Cart", "Order") == ["cart"]
        assert left(*types) == []
        assert len(reader.due_alarms(FOREVER, None, 9, {"Cart"})) == 3
        assert len(reader.due_alarms(FOREVER, None, 9, frozenset(types))) == 0

    # --- lists of alarms -------------------------------------------------------------------------

    def test_alarms_are_listed_by_time_and_name(self, writer: Writer, reader: Reader) -> None:
        names = ["b", "a", "é", "\uffff", "👾", "A"]
        self.schedule(writer, *names)
        self.schedule(writer, "late", due_at=NOW + 1)
        self.schedule(writer, "early", due_at=NOW - 1)
        self.schedule(writer, "other", object_id="b")
        assert list(self.alarms(reader)) == ["early", *sorted(names, key=str.encode), "late"]
        # By the time they were set for, not by when they are available.
        self.claim(writer, 1, alarm_key("early"), until=NOW + 10)
        assert next(iter(self.alarms(reader))) == "early"
        assert self.alarms(reader, "none") == {}

    def test_dead_letters_page_through_in_the_order_of_id_and_name(
        self, writer: Writer, reader: Reader
    ) -> None:
        ids = ["B", "a", "aa", "é", "\uffff", "👾"]
        names = ["z", "Z", "zz", "é"]
        for object_id in ids:
            self.make_dead(writer, *names, object_id=object_id)
            self.schedule(writer, "alive", object_id=object_id)
        self.commit(writer, Commit(key("a", "Order"), None, alarms=changes({"x": NOW})))
        x = AlarmKey("Order", "a", "x")
        self.claim(writer, 1, x)
        writer.postpone([postponed(x, 1, None)])
        in_order = sorted(
            ((one, name) for one in ids for name in names),
            key=lambda pair: [part.encode() for part in pair],
        )
        for limit in (1, 3, 7, 24, 100):
            paged: list[tuple[str, str]] = []
            after = None
            while page := reader.list_dead_letters("Cart", after, limit):
                assert len(page) <= limit
                paged += [(letter.key.object_id, letter.key.name) for letter in page]
                after = page[-1].key
            assert paged == in_order
        after = alarm_key("a", "a")  # which isn't there
        found = reader.list_dead_letters("Cart", after, 100)
        assert [(letter.key.object_id, letter.key.name) for letter in found] == [
            pair for pair in in_order if pair > ("a", "a")
        ]
        assert [letter.key for letter in reader.list_dead_letters("Order", None, 9)] == [x]
        assert reader.list_dead_letters("order", None, 9) == []

    # --- exact and odd ---------------------------------------------------------------------------

    def test_payloads_come_back_as_they_were(self, writer: Writer, reader: Reader) -> None:
        payloads = [None, *(state for name, state in STATES.items() if name != "16 MiB")]
        keys = [alarm_key(f"{n:02}") for n in range(len(payloads))]
        for together in (True, False):
            news = [
                {one.name: NewAlarm(NOW, payload)}
                for one, payload in zip(keys, payloads, strict=True)
            ]
            if together:
                news = [{name: new for each in news for name, new in each.items()}]
            for new in news:
                self.commit(writer, outside("a", AlarmChanges(changed={**new})))
            listed = reader.list_alarms(key("a"))
            claimed = writer.claim(keys, 1 + together, NOW, NOW + 10)
            claimed.sort(key=lambda alarm: alarm.key)
            writer.postpone([postponed(one, 1 + together, None) for one in keys])
            dead = reader.list_dead_letters("Cart", None, 100)
            for alarms in (listed, claimed, dead):
                assert [alarm.key for alarm in alarms] == keys
                for alarm, payload in zip(alarms, payloads, strict=True):
                    assert type(alarm.payload) is (type(None) if payload is None else bytes)
                    assert alarm.payload == payload

    @pytest.mark.parametrize("part", ["type", "id", "name"])
    def test_odd_keys_of_alarms(self, writer: Writer, reader: Reader, part: str) -> None:
        """Each of them through everything that there is."""
        keys = [
            {"type": AlarmKey(odd, "a", "x"), "id": AlarmKey("Cart", odd, "x")}.get(
                part, AlarmKey("Cart", "a", odd)
            )
            for odd in ODD_IDS
        ]
        objects = list(dict.fromkeys(one.object_key for one in keys))

        def commit(change: Callable[[AlarmKey], AlarmChanges]) -> list[int]:
            merged: dict[ObjectKey, AlarmChanges] = {}
            for one in keys:
                merged.setdefault(one.object_key, AlarmChanges()).merge(change(one))
            return self.commit(
                writer, *(Commit(k, None, alarms=mine) for k, mine in merged.items())
            )

        def found() -> set[AlarmKey]:
            return {alarm.key for one in objects for alarm in reader.list_alarms(one)}

        assert commit(lambda one: changes({one.name: NOW})) == []
        assert found() == set(keys)
        in_order = sorted(keys, key=lambda one: [text.encode() for text in one])
        assert reader.due_alarms(FOREVER, None, 100, ()) == [DueAlarm(NOW, k) for k in in_order]
        for place, one in enumerate(in_order):
            assert [d.key for d in reader.due_alarms(FOREVER, DueAlarm(NOW, one), 2, ())] == (
                in_order[place + 1 : place + 3]
            )
        assert self.claim(writer, 1, *keys, until=NOW + 10) == set(keys)
        writer.renew([(one, 1) for one in keys], NOW + 20)
        assert [d.available_at for d in reader.due_alarms(FOREVER, None, 100, ())] == (
            [NOW + 20] * len(keys)
        )
        writer.postpone([postponed(one, 1, None, 1, one.name) for one in keys])
        assert found() == set()
        dead = [
            letter
            for type_name in sorted({one.type_name for one in keys}, key=str.encode)
            for letter in reader.list_dead_letters(type_name, None, 100)
        ]
        assert [letter.key for letter in dead] == in_order
        assert [letter.last_error for letter in dead] == [one.name for one in in_order]
        if part != "type":
            for place, one in enumerate(in_order):
                page = reader.list_dead_letters("Cart", one, 2)
                assert [letter.key for letter in page] == in_order[place + 1 : place + 3]
        assert all(writer.revive(one, NOW) for one in keys)
        assert self.claim(writer, 2, *keys) == set(keys)
        assert commit(lambda one: changes(acknowledged={one.name: 1})) == list(range(len(objects)))
        assert commit(lambda one: changes(acknowledged={one.name: 2})) == []
        assert found() == set()
        assert commit(lambda one: changes({one.name: NOW})) == []
        for one in keys[::2]:
            cancel = changes({one.name: None})
            self.commit(writer, Commit(one.object_key, None, alarms=cancel))
        assert found() == set(keys[1::2])
        for one in keys[1::2]:
            self.commit(writer, Commit(one.object_key, None, alarms=changes(clear=True)))
        assert found() == set()

    def test_errors_come_back_as_they_were(self, writer: Writer, reader: Reader) -> None:
        for n, error in enumerate(ERRORS):
            self.schedule(writer, "x", "dead")
            x, dead = alarm_key("x"), alarm_key("dead")
            self.claim(writer, 2 * n + 1, x, dead)
            writer.postpone(
                [
                    postponed(x, 2 * n + 1, NOW, 1, error),
                    postponed(dead, 2 * n + 1, None, 1, error),
                ]
            )
            assert [alarm.last_error for alarm in reader.list_alarms(key("a"))] == [error]
            letters = reader.list_dead_letters("Cart", None, 9)
            assert [letter.last_error for letter in letters] == [error]
            assert writer.claim([x], 2 * n + 2, NOW, NOW)[0].last_error == error

    def test_times_of_all_years(self, writer: Writer, reader: Reader) -> None:
        for n, time in enumerate(TIMES):
            claim = 3 * n + 1
            x = alarm_key("x")
            self.schedule(writer, "x", due_at=time)
            assert self.alarms(reader) == {"x": time}
            assert self.due(reader, time) == []
            assert self.due(reader, time + 1) == [(time, "a", "x")]
            assert self.claim(writer, claim, x, now=time - 1, until=time) == set()
            assert self.claim(writer, claim + 1, x, now=time, until=time + 1) == {x}
            assert self.due(reader, time + 1) == []
            writer.renew([(x, claim + 1)], time - 7)
            assert self.due(reader) == [(time - 7, "a", "x")]
            writer.postpone([postponed(x, claim + 1, time + 7)])
            assert self.due(reader) == [(time + 7, "a", "x")]
            assert self.alarms(reader) == {"x": time}
            self.claim(writer, claim + 2, x, now=time + 7, until=time + 8)
            writer.postpone([postponed(x, claim + 2, None)])
            assert writer.revive(x, time)
            assert self.due(reader) == [(time, "a", "x")]

    def test_times_of_all_years_in_order(self, writer: Writer, reader: Reader) -> None:
        times = TIMES
        # So that the names would give another order.
        changed = changes({f"{len(times) - n:02}": time for n, time in enumerate(times)})
        self.commit(writer, outside("a", changed))
        assert [time for time, _, _ in self.due(reader)] == times
        assert [alarm.due_at for alarm in reader.list_alarms(key("a"))] == times
        after = None
        for time in times:
            (after,) = reader.due_alarms(FOREVER, after, 1, ())
            assert after.available_at == time

    # --- alarms: what a reader sees --------------------------------------------------------------

    def test_a_reader_sees_every_change_of_alarms(self, storage: Storage, writer: Writer) -> None:
        early = storage.open_reader()
        x = alarm_key("x")

        def seen(alarms: list[str], due: list[int], dead: list[str]) -> None:
            late = storage.open_reader()
            for reader in (early, late):
                assert list(self.alarms(reader)) == alarms
                assert [time for time, _, _ in self.due(reader)] == due
                assert [name for _, name in self.dead(reader)] == dead
            late.close()

        seen([], [], [])
        self.schedule(writer, "x")
        seen(["x"], [NOW], [])
        self.claim(writer, 1, x, until=NOW + 5)
        seen(["x"], [NOW + 5], [])
        writer.renew([(x, 1)], NOW + 6)
        seen(["x"], [NOW + 6], [])
        writer.postpone([postponed(x, 1, None)])
        seen([], [], ["x"])
        writer.revive(x, NOW)
        seen(["x"], [NOW], [])
        self.commit(writer, outside("a", changes({"x": None})))
        seen([], [], [])
        early.close()

    def test_each_of_ten_thousand_objects_has_its_own_alarms(
        self, writer: Writer, reader: Reader
    ) -> None:
        ids = [f"{n:05}" for n in range(10_000)]
        for start in range(0, len(ids), 1000):
            batch = ids[start : start + 1000]
            self.commit(writer, *(outside(one, changes({"x": NOW + int(one)})) for one in batch))
        assert [
            (d.available_at, d.key.object_id) for d in reader.due_alarms(FOREVER, None, 3, ())
        ] == [(NOW + n, f"{n:05}") for n in range(3)]
        assert self.alarms(reader, "05000") == {"x": NOW + 5000}
        after = DueAlarm(NOW + 9000, alarm_key("x", "09000"))
        page = reader.due_alarms(NOW + 9003, after, 10, ())
        assert [d.key.object_id for d in page] == ["09001", "09002"]

    # --- tenants, condition 11 -------------------------------------------------------------------

    def fill_tenants(self, writer: Writer) -> None:
        """An object with alarms, a due one and a dead one, for everybody."""
        for n, tenant in enumerate(TENANTS):
            k = key("a", tenant=tenant)
            alarms = changes({"due": NOW, "dead": NOW})
            assert self.commit(writer, Commit(k, 0, f"{n}".encode(), alarms=alarms)) == []
            dead = k.alarm("dead")
            assert self.claim(writer, 900 + n, dead) == {dead}
            writer.postpone([postponed(dead, 900 + n, None, 1, tenant)])

    @staticmethod
    def seen_of(reader: Reader, tenant: str) -> object:
        """All that a reader says of a tenant."""
        return (
            reader.load([key("a", tenant=tenant)]),
            reader.list_ids("Cart", None, 10, tenant),
            reader.due_alarms(FOREVER, None, 10, (), tenant),
            reader.list_alarms(key("a", tenant=tenant)),
            reader.list_dead_letters("Cart", None, 10, tenant),
            reader.browse_objects(None, None, 10, tenant),
            reader.browse_alarms(None, NOW, None, None, 10, tenant),
            reader.summarize(NOW, tenant),
        )

    NOTHING: ClassVar[object] = ([None], [], [], [], [], [], [], [])

    def test_what_is_of_one_tenant_is_seen_there_alone(
        self, writer: Writer, reader: Reader
    ) -> None:
        self.fill_tenants(writer)
        for n, tenant in enumerate(TENANTS):
            k, state = key("a", tenant=tenant), f"{n}".encode()
            due = StoredAlarm(k.alarm("due"), NOW, None, 0, None)
            dead = StoredAlarm(k.alarm("dead"), NOW, None, 1, tenant)
            assert self.seen_of(reader, tenant) == (
                [StoredObject(1, state)],
                ["a"],
                [DueAlarm(NOW, due.key)],
                [due],
                [dead],
                [ObjectRow(k, 1, NOW, state)],
                [AlarmRow(dead, None, "dead"), AlarmRow(due, NOW, "overdue")],
                [TypeSummary("Cart", 1, 1, 0, 1, 1)],
            )
        keys = [key("a", tenant=tenant) for tenant in ("acme", "", "none", "a-b", "acme")]
        found = [row.state if row else None for row in reader.load(keys)]
        assert found == [b"2", b"0", None, b"1", b"2"]

    def test_a_tenant_that_is_not_there_is_empty(self, writer: Writer, reader: Reader) -> None:
        self.fill_tenants(writer)
        assert self.seen_of(reader, "none") == self.NOTHING
        alarm = alarm_key("due", tenant="none")
        assert writer.claim([alarm], 1, NOW, NOW) == []
        writer.renew([(alarm, 1)], NOW + 5)
        writer.postpone([postponed(alarm, 1, NOW)])
        assert writer.revive(alarm, NOW) is False
        assert writer.drop_tenant("none") is False
        assert self.seen_of(reader, "none") == self.NOTHING
        assert reader.list_tenants(None, 10) == TENANTS[1:]

    def test_a_tenant_comes_into_being_with_what_is_first_written(
        self, writer: Writer, reader: Reader
    ) -> None:
        def one(object_id: str = "a") -> ObjectKey:
            return key(object_id, tenant="acme")

        nothing = [
            Commit(one("a"), 0),
            Commit(one("b"), 0, delete=True, alarms=changes(clear=True)),
            Commit(one("c"), None, alarms=changes({"x": None})),
            Commit(one("d"), None, alarms=changes(clear=True)),
        ]
        assert self.commit(writer, *nothing) == []
        stale = [
            Commit(one("a"), 3, b"1"),
            Commit(one("b"), 1, delete=True),
            Commit(one("c"), 2),
            Commit(one("d"), None, alarms=changes({"y": NOW}, acknowledged={"x": 1})),
            Commit(one("e"), 1, b"1", alarms=changes({"y": NOW})),
        ]
        for commit in stale:
            assert self.commit(writer, commit) == [0]
        assert self.commit(writer, *stale) == [0, 1, 2, 3, 4]
        assert self.commit(writer, *nothing, save("a", 0)) == []
        assert reader.list_tenants(None, 10) == []
        for n, first in enumerate(
            [
                Commit(one(), 0, b"1"),
                Commit(one(), None, alarms=changes({"x": NOW})),
                Commit(one(), 0, alarms=changes({"x": NOW})),
            ]
        ):
            batch = [first] if n % 2 else [*stale[1:], first]
            assert self.commit(writer, *batch) == list(range(len(batch) - 1))
            assert reader.list_tenants(None, 10) == ["acme"]
            assert writer.drop_tenant("acme") is True

    @pytest.mark.parametrize("size", [2, 9, 1000])
    def test_a_batch_of_several_tenants(self, writer: Writer, reader: Reader, size: int) -> None:
        """Fresh commits beside stale ones, of tenants that are there and of one that isn't."""
        self.commit(writer, save("s", 0), Commit(key("s", tenant="a-b"), 0, b"0"))
        keys = [key(f"{n:04}", tenant=TENANTS[n % 3]) for n in range(size)]
        alarms = changes({"x": NOW})
        assert self.commit(writer, *(Commit(k, 0, b"1", alarms=alarms) for k in keys)) == []
        assert reader.load(keys) == [StoredObject(1, b"1")] * size
        for tenant in TENANTS:
            mine = [k.alarm("x") for k in keys if k.tenant == tenant]
            due = reader.due_alarms(FOREVER, None, size, (), tenant)
            assert [each.key for each in due] == mine
        claimed = [k.alarm("x") for k in keys]
        assert self.claim(writer, 1, *claimed) == set(claimed)
        done = changes({"y": NOW}, acknowledged={"x": 1})
        batch, stale, expected = [], [], []
        for n, k in enumerate(keys):
            commit, row = [
                (Commit(k, 1, b"2", alarms=done), StoredObject(2, b"2")),
                (Commit(k, 0, b"2", alarms=done), StoredObject(1, b"1")),
                (Commit(k, 1, delete=True, alarms=changes(clear=True)), None),
                (
                    Commit(k, 1, b"2", alarms=changes(acknowledged={"x": 2})),
                    StoredObject(1, b"1"),
                ),
            ][n % 4]
            batch.append(commit)
            expected.append(row)
            if n % 4 in (1, 3):
                stale.append(n)
        assert self.commit(writer, *batch) == stale
        assert reader.load(keys) == expected
        for n, k in enumerate(keys):
            left = {0: ["y"], 1: ["x"], 2: [], 3: ["x"]}[n % 4]
            if n < 50:
                assert [alarm.key for alarm in reader.list_alarms(k)] == [k.alarm(x) for x in left]

    @pytest.mark.parametrize("refused", TENANTS)
    def test_what_is_stale_of_one_tenant_does_not_hold_back_another(
        self, writer: Writer, reader: Reader, refused: str
    ) -> None:
        self.commit(writer, *(Commit(key("a", tenant=one), 0, b"1") for one in TENANTS))
        batch = [Commit(key("a", tenant=one), 7 if one == refused else 1, b"2") for one in TENANTS]
        assert self.commit(writer, *batch) == [TENANTS.index(refused)]
        rows = reader.load([key("a", tenant=one) for one in TENANTS])
        assert [row.state if row else None for row in rows] == [
            b"1" if one == refused else b"2" for one in TENANTS
        ]

    def test_alarms_of_several_tenants_in_one_call(self, writer: Writer, reader: Reader) -> None:
        names = ["x", "y", "z"]
        for tenant in TENANTS:
            k = key("a", tenant=tenant)
            self.commit(writer, Commit(k, None, alarms=changes(dict.fromkeys(names, NOW))))
        keys = [alarm_key(name, tenant=tenant) for name in names for tenant in (*TENANTS, "none")]
        there = [one for one in keys if one.tenant != "none"]
        mixed = [one for one in there if one.name != "z"]
        claimed = writer.claim([*mixed, alarm_key("x", tenant="none")], 1, NOW, NOW + 10)
        assert sorted(alarm.key for alarm in claimed) == sorted(mixed)
        assert writer.claim(mixed, 2, NOW, NOW + 10) == []
        writer.renew([(one, 1) for one in keys], NOW + 20)

        def available() -> dict[AlarmKey, int]:
            return {
                each.key: each.available_at
                for tenant in TENANTS
                for each in reader.due_alarms(FOREVER, None, 10, (), tenant)
            }

        assert available() == {one: NOW + 20 if one in mixed else NOW for one in there}
        # By another claim nothing moves.
        writer.renew([(one, 2) for one in keys], NOW + 30)
        writer.postpone([postponed(one, 2, NOW + 30) for one in keys])
        assert available() == {one: NOW + 20 if one in mixed else NOW for one in there}
        writer.postpone([postponed(one, 1, NOW + 5 if one.name == "x" else None) for one in keys])
        times = {"x": NOW + 5, "z": NOW}
        assert available() == {one: times[one.name] for one in there if one.name in times}
        for tenant in TENANTS:
            letters = reader.list_dead_letters("Cart", None, 10, tenant)
            assert [letter.key for letter in letters] == [alarm_key("y", tenant=tenant)]
            assert writer.revive(alarm_key("y", tenant=tenant), NOW + 7) is True
            assert reader.list_dead_letters("Cart", None, 10, tenant) == []
            assert available()[alarm_key("y", tenant=tenant)] == NOW + 7

    def test_a_claim_is_of_one_tenants_alarm(self, writer: Writer, reader: Reader) -> None:
        for tenant in TENANTS:
            commit = Commit(key("a", tenant=tenant), None, alarms=changes({"x": NOW}))
            self.commit(writer, commit)
        mine = alarm_key("x", tenant="acme")
        assert self.claim(writer, 1, mine) == {mine}
        done = changes(acknowledged={"x": 1})
        assert self.commit(writer, Commit(key("a"), None, alarms=done)) == [0]
        assert self.commit(writer, Commit(key("a", tenant="a-b"), None, alarms=done)) == [0]
        assert self.commit(writer, Commit(key("a", tenant="acme"), None, alarms=done)) == []
        assert len(reader.list_alarms(key("a"))) == len(reader.list_alarms(key("a", "Cart", "a-b")))
        assert reader.list_alarms(key("a", tenant="acme")) == []

    def test_claims_of_tenants_are_given_back_when_the_storage_is_opened(
        self, storage: Storage
    ) -> None:
        self.needs_one_writer()
        keys = [alarm_key("x", tenant=tenant) for tenant in TENANTS]
        with closing(storage.open_writer()) as writer:
            for one in keys:
                commit = Commit(one.object_key, None, alarms=changes({"x": NOW}))
                self.commit(writer, commit)
            assert self.claim(writer, 1, *keys, until=FOREVER) == set(keys)
        with closing(storage.open_writer()) as writer:
            assert self.claim(writer, 2, *keys) == set(keys)

    @pytest.mark.parametrize("dropped", TENANTS[1:])
    def test_a_dropped_tenant_leaves_the_others(
        self, writer: Writer, reader: Reader, dropped: str
    ) -> None:
        self.fill_tenants(writer)
        before = {tenant: self.seen_of(reader, tenant) for tenant in TENANTS}
        assert writer.drop_tenant(dropped) is True
        assert writer.drop_tenant(dropped) is False
        for tenant in TENANTS:
            expected = self.NOTHING if tenant == dropped else before[tenant]
            assert self.seen_of(reader, tenant) == expected
        assert reader.list_tenants(None, 10) == [one for one in TENANTS[1:] if one != dropped]
        # Nothing that was known of it counts any more, and it begins anew.
        stale = Commit(key("a", tenant=dropped), 1, b"2")
        assert self.commit(writer, stale) == [0]
        assert reader.list_tenants(None, 10) == [one for one in TENANTS[1:] if one != dropped]
        assert self.commit(writer, Commit(key("a", tenant=dropped), 0, b"3")) == []
        assert reader.load([key("a", tenant=dropped)]) == [StoredObject(1, b"3")]
        assert reader.list_dead_letters("Cart", None, 10, dropped) == []
        assert reader.list_tenants(None, 10) == TENANTS[1:]

    def test_a_dropped_tenant_stays_away(self, storage: Storage) -> None:
        with closing(storage.open_writer()) as writer:
            self.fill_tenants(writer)
            writer.drop_tenant("acme")
        for _ in range(2):
            with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
                assert reader.list_tenants(None, 10) == ["a-b"]
                assert self.seen_of(reader, "acme") == self.NOTHING
                assert self.commit(writer, Commit(key("a", tenant="acme"), 0, b"1")) == []
                assert writer.drop_tenant("acme") is True

    def test_lists_of_tenants_page_through_in_order(self, writer: Writer, reader: Reader) -> None:
        names = ["0", "9", "a", "a-", "a-0", "a0", "a_", "aa", "ab", "b", "zz", "x" * 48]
        self.commit(writer, *(Commit(key("a", tenant=one), 0, b"1") for one in names))
        for limit in (1, 3, 12, 100):
            paged: list[str] = []
            while page := reader.list_tenants(paged[-1] if paged else None, limit):
                assert len(page) <= limit
                paged += page
                assert len(paged) <= len(names)
            assert paged == sorted(names)
        assert reader.list_tenants("a1", 2) == ["a_", "aa"]

    # --- looking through -------------------------------------------------------------------------

    @pytest.mark.parametrize("tenant", TENANTS)
    def test_objects_are_looked_through_in_pages(
        self, writer: Writer, reader: Reader, tenant: str
    ) -> None:
        keys = [key(one, kind, tenant) for one in ODD_IDS for kind in ("Cart", "cart", "é", "Z")]
        self.commit(writer, *(Commit(k, 0, k.object_id.encode()) for k in keys))
        writer.commit([Commit(key("\uffff", "cart", tenant), 1, b"2")], NOW + 5)
        rows = [ObjectRow(k, 1, NOW, k.object_id.encode()) for k in sorted(keys, key=_in_order)]
        rows = [
            ObjectRow(row.key, 2, NOW + 5, b"2")
            if (row.key.object_id, row.key.type_name) == ("\uffff", "cart")
            else row
            for row in rows
        ]
        for type_name in (None, "Cart", "cart", "é", "none"):
            expected = [row for row in rows if type_name in (None, row.key.type_name)]
            for limit in (1, 7, 1000):
                paged: list[ObjectRow] = []
                while page := reader.browse_objects(
                    type_name, paged[-1].key if paged else None, limit, tenant
                ):
                    assert len(page) <= limit
                    paged += page
                    assert len(paged) <= len(expected)  # or it might never end
                assert paged == expected
        # From behind one that isn't there.
        found = reader.browse_objects(None, key("", "cart", tenant), 1, tenant)
        assert found[0].key.type_name == "cart"
        assert reader.browse_objects("Cart", key("👾" * 129, "Cart", tenant), 1, tenant) == []

    @pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
    def test_states_are_looked_at_as_they_were(
        self, writer: Writer, reader: Reader, state: bytes
    ) -> None:
        self.commit(writer, Commit(key("a", tenant="acme"), 0, state), save("b", 0, b"1"))
        (row,) = reader.browse_objects(None, None, 10, "acme")
        assert type(row.state) is bytes
        assert row.state == state
        (summary,) = reader.summarize(NOW, "acme")
        assert summary == TypeSummary("Cart", 1, len(state), 0, 0, 0)

    @pytest.mark.parametrize("tenant", TENANTS)
    def test_alarms_are_looked_through_in_pages(
        self, writer: Writer, reader: Reader, tenant: str
    ) -> None:
        keys = [
            alarm_key(name, one, kind, tenant)
            for name in ("x", "é", "'")
            for one in ("a", "👾", "\uffff")
            for kind in ("Cart", "cart")
        ]
        for n, one in enumerate(keys):
            alarms = changes({one.name: NOW + n}, payload=json.dumps(n).encode())
            self.commit(writer, Commit(one.object_key, None, alarms=alarms))
        later = NOW + len(keys)
        dead, claimed, retried = keys[::4], keys[1::4], keys[2::4]
        self.claim(writer, 1, *dead, *claimed, *retried, now=later, until=later + 50)
        writer.postpone([postponed(one, 1, None, 3, "no") for one in dead])
        writer.postpone([postponed(one, 1, later + 9, 1, "retry") for one in retried])
        now = NOW + 7
        rows = []
        for n, one in enumerate(keys):
            payload = json.dumps(n).encode()
            status: AlarmStatus = "overdue" if n <= 7 else "pending"
            if one in dead:
                stored, at = StoredAlarm(one, NOW + n, payload, 3, "no"), None
                status = "dead"
            elif one in retried:
                stored, at = StoredAlarm(one, NOW + n, payload, 1, "retry"), later + 9
            else:
                stored = StoredAlarm(one, NOW + n, payload, 0, None)
                at = later + 50 if one in claimed else NOW + n
            rows.append(AlarmRow(stored, at, status))
        rows.sort(key=lambda row: _bytewise(row.alarm.key))
        statuses: list[AlarmStatus | None] = [None, "pending", "overdue", "dead"]
        for status_asked in statuses:
            for type_name in (None, "Cart", "cart", "none"):
                expected = [
                    row
                    for row in rows
                    if type_name in (None, row.alarm.key.type_name)
                    and status_asked in (None, row.status)
                ]
                for limit in (1, 5, 100):
                    paged: list[AlarmRow] = []
                    while page := reader.browse_alarms(
                        status_asked,
                        now,
                        type_name,
                        paged[-1].alarm.key if paged else None,
                        limit,
                        tenant,
                    ):
                        assert len(page) <= limit
                        paged += page
                        assert len(paged) <= len(expected)
                    assert paged == expected
        assert reader.summarize(now, tenant) == [
            TypeSummary(
                type_name,
                0,
                0,
                *(
                    sum(
                        (row.alarm.key.type_name, row.status) == (type_name, status) for row in rows
                    )
                    for status in ("pending", "overdue", "dead")
                ),
            )
            for type_name in ("Cart", "cart")
        ]

    def test_a_summary_has_types_with_objects_or_alarms_or_both(
        self, writer: Writer, reader: Reader
    ) -> None:
        assert reader.summarize(NOW) == []
        self.commit(
            writer,
            Commit(key("a", "é"), 0, "é".encode()),
            Commit(key("b", "é"), 0, b"123"),
            Commit(key("a", "Both"), 0, b"1", alarms=changes({"x": NOW, "y": NOW + 1})),
            Commit(key("a", "Alarms"), None, alarms=changes({"x": NOW + 1})),
            Commit(key("a", "Theirs", "acme"), 0, b"1"),
        )
        assert reader.summarize(NOW) == [
            TypeSummary("Alarms", 0, 0, 1, 0, 0),
            TypeSummary("Both", 1, 1, 1, 1, 0),
            TypeSummary("é", 2, 5, 0, 0, 0),
        ]
        assert reader.summarize(NOW + 1)[0] == TypeSummary("Alarms", 0, 0, 0, 1, 0)

    def test_nothing_is_pending_of_what_was_opened(self, storage: Storage) -> None:
        with closing(storage.open_writer()) as writer:
            self.fill_tenants(writer)
            assert storage.pending_migrations() == []
        assert storage.pending_migrations() == []

    # --- everything against a model --------------------------------------------------------------

    def test_like_a_dictionary(self, storage: Storage) -> None:
        opens_for_one = self.opens_for_one

        class Machine(_StorageMachine):
            def __init__(self) -> None:
                super().__init__(storage, opens_for_one)

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=40,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


# Few, so that draws meet; some that differ only in what a careless encoding would drop.
_object_ids = st.sampled_from(["a", "A", "b", "0", "00", "é", "e\u0301", "\uffff", "👾", "'"])
_type_names = st.sampled_from(["Cart", "cart", "Order"])
_tenants = st.sampled_from(TENANTS)
_keys = st.builds(ObjectKey, _type_names, _object_ids, _tenants)
# Alarms are of fewer objects, so that claims meet changes.
_alarm_names = st.sampled_from(["x", "X", "é", "0"])
_alarm_keys = st.builds(
    AlarmKey,
    st.sampled_from(["Cart", "cart"]),
    st.sampled_from(["a", "👾"]),
    _alarm_names,
    _tenants,
)
_statuses = st.sampled_from([None, "pending", "overdue", "dead"])
_alarm_objects = _alarm_keys.map(lambda alarm: alarm.object_key)
_delays = st.integers(-5, 20)
_payloads = st.none() | st.just(b"null") | _states


@attrs.define
class _ModelAlarm:
    """An alarm as it should be."""

    due_at: int
    payload: bytes | None
    available_at: int | None
    claim: int | None = None
    failures: int = 0
    last_error: str | None = None

    def stored(self, one: AlarmKey) -> StoredAlarm:
        return StoredAlarm(one, self.due_at, self.payload, self.failures, self.last_error)

    def row(self, one: AlarmKey, now: int) -> AlarmRow:
        status: AlarmStatus = "overdue" if self.due_at <= now else "pending"
        if self.available_at is None:
            status = "dead"
        return AlarmRow(self.stored(one), self.available_at, status)


def _bytewise(one: AlarmKey) -> list[bytes]:
    return [part.encode() for part in one]


def _in_order(one: ObjectKey) -> tuple[bytes, bytes]:
    return one.type_name.encode(), one.object_id.encode()


class _StorageMachine(RuleBasedStateMachine):
    """Runs commits, claims, drops, reads and reopenings on a storage and on some dictionaries."""

    def __init__(self, storage: Storage, opens_for_one: bool) -> None:
        super().__init__()
        self.storage = storage
        self.opens_for_one = opens_for_one
        self.model: dict[ObjectKey, tuple[int, bytes]] = {}
        self.updated: dict[ObjectKey, int] = {}
        self.alarms: dict[AlarmKey, _ModelAlarm] = {}
        self.tenants: set[str] = set()
        self.now = NOW
        self.last_claim = 0
        self.claims: list[tuple[AlarmKey, int]] = []
        """All that were ever given, held or lost."""
        self.open()

    def open(self) -> None:
        self.writer = self.storage.open_writer()
        self.reader = self.storage.open_reader()

    def close(self) -> None:
        self.reader.close()
        self.writer.close()

    @initialize()
    def nothing_is_stored(self) -> None:
        for type_name in ("Cart", "cart", "Order"):
            assert self.reader.list_ids(type_name, None, 10) == []
            assert self.reader.list_dead_letters(type_name, None, 10) == []
        assert self.reader.due_alarms(FOREVER, None, 10, ()) == []
        assert self.reader.list_tenants(None, 10) == []

    # --- commits ---------------------------------------------------------------------------------

    @rule(data=st.data(), keys=st.lists(_keys, min_size=1, max_size=12, unique=True))
    def commit(self, data: st.DataObject, keys: list[ObjectKey]) -> None:
        self.run_batch(data, keys, with_alarms=False)

    @rule(data=st.data(), keys=st.lists(_alarm_objects, min_size=1, max_size=6, unique=True))
    def commit_with_alarms(self, data: st.DataObject, keys: list[ObjectKey]) -> None:
        self.run_batch(data, keys, with_alarms=True)

    @rule(data=st.data(), keys=st.lists(_alarm_objects, min_size=1, max_size=6, unique=True))
    def set_from_outside(self, data: st.DataObject, keys: list[ObjectKey]) -> None:
        """Mostly a statement of its own."""
        batch = []
        for one in keys:
            names = data.draw(st.lists(_alarm_names, min_size=1, max_size=3, unique=True))
            changed = AlarmChanges(changed={name: self.draw_alarm(data) for name in names})
            batch.append(Commit(one, None, alarms=changed))
        self.apply(batch)

    def run_batch(self, data: st.DataObject, keys: list[ObjectKey], *, with_alarms: bool) -> None:
        batch: list[Commit] = []
        for one in keys:
            stored = self.model[one][0] if one in self.model else 0
            # Mostly the right one, for otherwise little gets stored.
            revision: int | None = data.draw(st.just(stored) | st.just(stored) | st.integers(0, 5))
            action = data.draw(st.sampled_from(["save", "save", "save", "delete", "nothing"]))
            changed = None
            if with_alarms and data.draw(st.integers(0, 3)):
                changed = self.draw_changes(data, one)
                if action == "nothing" and data.draw(st.booleans()):
                    revision = None
            state = data.draw(_states) if action == "save" else None
            batch.append(Commit(one, revision, state, delete=action == "delete", alarms=changed))
        self.apply(batch)

    def draw_alarm(self, data: st.DataObject) -> NewAlarm:
        return NewAlarm(self.now + data.draw(_delays), data.draw(_payloads))

    def draw_changes(self, data: st.DataObject, one: ObjectKey) -> AlarmChanges:
        acknowledged: dict[str, int] = {}
        # Mostly one that is held, now and then one that was, or nobody's.
        mine = [pair for pair in self.claims if pair[0].object_key == one]
        held = [pair for pair in mine if self.holds(*pair)]
        for pairs in (held, held, mine):
            if data.draw(st.booleans()) and pairs:
                alarm, claim = data.draw(st.sampled_from(pairs))
                acknowledged[alarm.name] = claim
        if not data.draw(st.integers(0, 9)):
            acknowledged[data.draw(_alarm_names)] = self.last_claim + 1
        changed: dict[str, NewAlarm | None] = {}
        for name in data.draw(st.lists(_alarm_names, max_size=3, unique=True)):
            changed[name] = self.draw_alarm(data) if data.draw(st.integers(0, 3)) else None
        return AlarmChanges(acknowledged, not data.draw(st.integers(0, 7)), changed)

    def holds(self, one: AlarmKey, claim: int) -> bool:
        return one in self.alarms and self.alarms[one].claim == claim

    def apply(self, batch: list[Commit]) -> None:
        stale: list[int] = []
        after = dict(self.model)
        alarms = dict(self.alarms)
        for position, commit in enumerate(batch):
            one = commit.key
            changed = commit.alarms or AlarmChanges()
            stored = self.model[one][0] if one in self.model else 0
            if commit.revision not in (None, stored) or not all(
                self.holds(one.alarm(name), claim) for name, claim in changed.acknowledged.items()
            ):
                stale.append(position)
                continue
            if commit.delete:
                after.pop(one, None)
            elif commit.state is not None:
                after[one] = (stored + 1, commit.state)
                self.updated[one] = self.now
            for name in changed.acknowledged:
                del alarms[one.alarm(name)]
            if changed.clear:
                alarms = {k: alarm for k, alarm in alarms.items() if k.object_key != one}
            for name, new in changed.changed.items():
                alarms.pop(one.alarm(name), None)
                if new is not None:
                    alarms[one.alarm(name)] = _ModelAlarm(new.due_at, new.payload, new.due_at)
            is_saved = commit.state is not None and not commit.delete
            if one.tenant and (is_saved or any(changed.changed.values())):
                self.tenants.add(one.tenant)
        found: Collection[int] = self.writer.commit(batch, self.now)
        assert sorted(found) == stale
        self.model, self.alarms = after, alarms

    @precondition(lambda self: self.model or self.alarms)
    @rule(tenant=st.sampled_from(TENANTS[1:]), really=st.integers(0, 2))
    def drop_tenant(self, tenant: str, really: int) -> None:
        if really:  # not every time, for otherwise little gets stored
            return
        assert self.writer.drop_tenant(tenant) is (tenant in self.tenants)
        self.tenants.discard(tenant)
        self.model = {k: row for k, row in self.model.items() if k.tenant != tenant}
        self.alarms = {k: alarm for k, alarm in self.alarms.items() if k.tenant != tenant}

    # --- delivery --------------------------------------------------------------------------------

    @rule(by=st.integers(0, 15))
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule(
        asked=st.lists(_alarm_keys, max_size=12, unique=True),
        ttl=st.integers(0, 15),
    )
    def claim_some(self, asked: list[AlarmKey], ttl: int) -> None:
        self.claim(asked, ttl)

    @precondition(lambda self: self.alarms)
    @rule(ttl=st.integers(5, 15))
    def claim_all(self, ttl: int) -> None:
        self.claim(list(self.alarms), ttl)

    def claim(self, asked: list[AlarmKey], ttl: int) -> None:
        self.last_claim += 1
        expected = {}
        for one in asked:
            alarm = self.alarms.get(one)
            if alarm and alarm.available_at is not None and alarm.available_at <= self.now:
                expected[one] = alarm.stored(one)
                alarm.claim, alarm.available_at = self.last_claim, self.now + ttl
                self.claims.append((one, self.last_claim))
        found = self.writer.claim(asked, self.last_claim, self.now, self.now + ttl)
        assert len(found) == len(expected)
        assert {alarm.key: alarm for alarm in found} == expected

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), by=st.integers(-5, 15))
    def renew(self, data: st.DataObject, by: int) -> None:
        claims = data.draw(st.lists(st.sampled_from(self.claims), max_size=5, unique=True))
        for one, claim in claims:
            if self.holds(one, claim):
                self.alarms[one].available_at = self.now + by
        self.writer.renew(claims, self.now + by)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def postpone(self, data: st.DataObject) -> None:
        claims = data.draw(
            st.lists(st.sampled_from(self.claims), max_size=5, unique_by=lambda pair: pair[0])
        )
        postponements = []
        for one, claim in claims:
            again_at = data.draw(st.none() | _delays.map(lambda delay: self.now + delay))
            failures = data.draw(st.integers(0, 5))
            error = data.draw(st.sampled_from([None, "", "no", 'it\'s "é"\n👾']))
            postponements.append(Postponement(one, claim, again_at, failures, error))
            if self.holds(one, claim):
                alarm = self.alarms[one]
                alarm.claim, alarm.available_at = None, again_at
                alarm.failures, alarm.last_error = failures, error
        self.writer.postpone(postponements)

    @rule(one=_alarm_keys)
    def revive(self, one: AlarmKey) -> None:
        self.check_revive(one)

    @precondition(lambda self: any(alarm.available_at is None for alarm in self.alarms.values()))
    @rule(data=st.data())
    def revive_a_dead_letter(self, data: st.DataObject) -> None:
        dead = [one for one, alarm in self.alarms.items() if alarm.available_at is None]
        self.check_revive(data.draw(st.sampled_from(dead)))

    def check_revive(self, one: AlarmKey) -> None:
        alarm = self.alarms.get(one)
        is_dead = alarm is not None and alarm.available_at is None
        assert self.writer.revive(one, self.now) is is_dead
        if alarm is not None and is_dead:
            alarm.available_at, alarm.failures = self.now, 0

    # --- reading ---------------------------------------------------------------------------------

    @rule(keys=st.lists(_keys, max_size=12))
    def load(self, keys: list[ObjectKey]) -> None:
        self.check_load(keys)

    @rule(
        type_name=_type_names,
        after=st.none() | _object_ids | st.just("") | st.just("zz"),
        limit=st.integers(1, 12),
        tenant=_tenants,
    )
    def list_ids(self, type_name: str, after: str | None, limit: int, tenant: str) -> None:
        expected = sorted(
            (k.object_id for k in self.model if (k.type_name, k.tenant) == (type_name, tenant)),
            key=str.encode,
        )
        if after is not None:
            expected = [one for one in expected if one.encode() > after.encode()]
        assert self.reader.list_ids(type_name, after, limit, tenant) == expected[:limit]

    @rule(after=st.none() | st.sampled_from(["a", "a-b", "acmd", "z"]), limit=st.integers(1, 3))
    def list_tenants(self, after: str | None, limit: int) -> None:
        expected = [one for one in sorted(self.tenants) if after is None or one > after]
        assert self.reader.list_tenants(after, limit) == expected[:limit]

    @rule(
        type_name=st.none() | _type_names,
        after=st.none() | _keys,
        limit=st.integers(1, 12),
        tenant=_tenants,
    )
    def browse_objects(
        self, type_name: str | None, after: ObjectKey | None, limit: int, tenant: str
    ) -> None:
        if after is not None and type_name is not None:
            after = attrs.evolve(after, type_name=type_name)
        expected = [
            row
            for row in self.objects_of(tenant)
            if type_name in (None, row.key.type_name)
            and (after is None or _in_order(row.key) > _in_order(after))
        ]
        assert self.reader.browse_objects(type_name, after, limit, tenant) == expected[:limit]

    @rule(
        status=_statuses,
        later=_delays,
        type_name=st.none() | _type_names,
        after=st.none() | _alarm_keys,
        limit=st.integers(1, 12),
        tenant=_tenants,
    )
    def browse_alarms(
        self,
        status: AlarmStatus | None,
        later: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
        tenant: str,
    ) -> None:
        if after is not None and type_name is not None:
            after = after._replace(type_name=type_name)
        now = self.now + later
        expected = [
            row
            for row in self.alarms_of(tenant, now)
            if type_name in (None, row.alarm.key.type_name)
            and status in (None, row.status)
            and (after is None or _bytewise(row.alarm.key)[:3] > _bytewise(after)[:3])
        ]
        found = self.reader.browse_alarms(status, now, type_name, after, limit, tenant)
        assert found == expected[:limit]

    @rule(
        before=_delays,
        after=st.none() | st.tuples(_delays, _alarm_keys),
        limit=st.integers(1, 30),
        except_types=st.sets(_type_names),
        tenant=_tenants,
    )
    def due_alarms(
        self,
        before: int,
        after: tuple[int, AlarmKey] | None,
        limit: int,
        except_types: set[str],
        tenant: str,
    ) -> None:
        last = None
        if after is not None:
            last = DueAlarm(self.now + after[0], after[1]._replace(tenant=tenant))
        expected = [
            each
            for each in self.feed(tenant)
            if each.available_at < self.now + before
            and each.key.type_name not in except_types
            and (last is None or self.place(each) > self.place(last))
        ]
        found = self.reader.due_alarms(self.now + before, last, limit, except_types, tenant)
        assert found == expected[:limit]

    @rule(
        type_name=_type_names,
        after=st.none() | _alarm_keys,
        limit=st.integers(1, 12),
        tenant=_tenants,
    )
    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str
    ) -> None:
        if after is not None:
            after = after._replace(type_name=type_name, tenant=tenant)
        expected = [
            letter
            for letter in self.dead_letters(type_name, tenant)
            if after is None or _bytewise(letter.key) > _bytewise(after)
        ]
        assert self.reader.list_dead_letters(type_name, after, limit, tenant) == expected[:limit]

    @precondition(lambda self: self.model or self.alarms)
    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()
        for alarm in self.alarms.values():
            if self.opens_for_one and alarm.claim is not None:
                alarm.claim, alarm.available_at = None, alarm.due_at

    # --- everything, after each step -------------------------------------------------------------

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        self.check_load(list(self.model))
        assert self.reader.list_tenants(None, 1000) == sorted(self.tenants)
        for tenant in TENANTS:
            self.all_of_a_tenant_is_as_in_the_model(tenant)
        for one in {alarm.object_key for alarm in self.alarms}:
            expected = [
                alarm.stored(k)
                for k, alarm in self.alarms.items()
                if k.object_key == one and alarm.available_at is not None
            ]
            expected.sort(key=lambda alarm: (alarm.due_at, _bytewise(alarm.key)))
            assert self.reader.list_alarms(one) == expected

    def all_of_a_tenant_is_as_in_the_model(self, tenant: str) -> None:
        reader = self.reader
        assert reader.due_alarms(FOREVER, None, 1000, (), tenant) == self.feed(tenant)
        for type_name in ("Cart", "cart"):
            letters = reader.list_dead_letters(type_name, None, 1000, tenant)
            assert letters == self.dead_letters(type_name, tenant)
        objects, alarms = self.objects_of(tenant), self.alarms_of(tenant, self.now)
        assert reader.browse_objects(None, None, 1000, tenant) == objects
        assert reader.browse_alarms(None, self.now, None, None, 1000, tenant) == alarms
        types = {row.key.type_name for row in objects} | {row.alarm.key.type_name for row in alarms}
        summaries = []
        for type_name in sorted(types, key=str.encode):
            sizes = [len(row.state) for row in objects if row.key.type_name == type_name]
            found = [row.status for row in alarms if row.alarm.key.type_name == type_name]
            counts = [found.count(status) for status in ("pending", "overdue", "dead")]
            summaries.append(TypeSummary(type_name, len(sizes), sum(sizes), *counts))
        assert reader.summarize(self.now, tenant) == summaries

    def objects_of(self, tenant: str) -> list[ObjectRow]:
        rows = [
            ObjectRow(one, revision, self.updated[one], state)
            for one, (revision, state) in self.model.items()
            if one.tenant == tenant
        ]
        return sorted(rows, key=lambda row: _in_order(row.key))

    def alarms_of(self, tenant: str, now: int) -> list[AlarmRow]:
        rows = [alarm.row(k, now) for k, alarm in self.alarms.items() if k.tenant == tenant]
        return sorted(rows, key=lambda row: _bytewise(row.alarm.key))

    @staticmethod
    def place(each: DueAlarm) -> tuple[int, list[bytes]]:
        return each.available_at, _bytewise(each.key)

    def feed(self, tenant: str) -> list[DueAlarm]:
        return sorted(
            (
                DueAlarm(alarm.available_at, one)
                for one, alarm in self.alarms.items()
                if alarm.available_at is not None and one.tenant == tenant
            ),
            key=self.place,
        )

    def dead_letters(self, type_name: str, tenant: str) -> list[StoredAlarm]:
        return sorted(
            (
                alarm.stored(one)
                for one, alarm in self.alarms.items()
                if (one.type_name, one.tenant) == (type_name, tenant) and alarm.available_at is None
            ),
            key=lambda alarm: _bytewise(alarm.key),
        )

    def check_load(self, keys: Sequence[ObjectKey]) -> None:
        rows = self.reader.load(keys)
        found = [None if row is None else (row.revision, row.state) for row in rows]
        assert found == [self.model.get(one) for one in keys]

    def teardown(self) -> None:
        # One storage serves all examples: leave it empty for the next, whatever is in it.
        for tenant in self.reader.list_tenants(None, 100):
            self.writer.drop_tenant(tenant)
        for type_name in ("Cart", "cart", "Order"):
            keys = [key(one, type_name) for one in self.reader.list_ids(type_name, None, 100)]
            rows = self.reader.load(keys)
            self.writer.commit(
                [
                    Commit(k, row.revision, delete=True)
                    for k, row in zip(keys, rows, strict=True)
                    if row
                ],
                NOW,
            )
            letters = self.reader.list_dead_letters(type_name, None, 1000)
            alarms = {letter.key.object_key for letter in letters}
            alarms.update(
                each.key.object_key for each in self.reader.due_alarms(FOREVER, None, 1000, ())
            )
            self.writer.commit(
                [Commit(k, None, alarms=AlarmChanges(clear=True)) for k in alarms], NOW
            )
        self.close()
