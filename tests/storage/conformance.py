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
from collections.abc import Collection, Iterator, Sequence

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

from trio_durable import ObjectKey, StorageInUse
from trio_durable.storage import Commit, Reader, Storage, StoredObject, Writer

NOW = 1_767_225_600_000_000

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


def key(object_id: str, type_name: str = "Cart") -> ObjectKey:
    return ObjectKey(type_name, object_id)


def save(object_id: str, revision: int, state: bytes = b"{}") -> Commit:
    return Commit(key(object_id), revision, state)


def delete(object_id: str, revision: int) -> Commit:
    return Commit(key(object_id), revision, delete=True)


class StorageConformance:
    """Subclasses provide ``storage``, empty and not open."""

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

    # --- everything against a model --------------------------------------------------------------

    def test_like_a_dictionary(self, storage: Storage) -> None:
        class Machine(_StorageMachine):
            def __init__(self) -> None:
                super().__init__(storage)

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
_keys = st.builds(ObjectKey, _type_names, _object_ids)


class _StorageMachine(RuleBasedStateMachine):
    """Runs commits, reads and reopenings on a storage and on a dictionary."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.storage = storage
        self.model: dict[ObjectKey, tuple[int, bytes]] = {}
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

    @rule(data=st.data(), keys=st.lists(_keys, min_size=1, max_size=12, unique=True))
    def commit(self, data: st.DataObject, keys: list[ObjectKey]) -> None:
        batch: list[Commit] = []
        stale: list[int] = []
        after = dict(self.model)
        for position, one in enumerate(keys):
            stored = self.model[one][0] if one in self.model else 0
            # Mostly the right one, for otherwise little gets stored.
            revision = data.draw(st.just(stored) | st.just(stored) | st.integers(0, 5))
            action = data.draw(st.sampled_from(["save", "save", "save", "delete", "nothing"]))
            state = data.draw(_states) if action == "save" else None
            batch.append(Commit(one, revision, state, delete=action == "delete"))
            if revision != stored:
                stale.append(position)
            elif action == "delete":
                after.pop(one, None)
            elif state is not None:
                after[one] = (revision + 1, state)
        found: Collection[int] = self.writer.commit(batch, NOW)
        assert sorted(found) == stale
        self.model = after

    @rule(keys=st.lists(_keys, max_size=12))
    def load(self, keys: list[ObjectKey]) -> None:
        self.check_load(keys)

    @rule(
        type_name=_type_names,
        after=st.none() | _object_ids | st.just("") | st.just("zz"),
        limit=st.integers(1, 12),
    )
    def list_ids(self, type_name: str, after: str | None, limit: int) -> None:
        expected = sorted(
            (k.object_id for k in self.model if k.type_name == type_name), key=str.encode
        )
        if after is not None:
            expected = [one for one in expected if one.encode() > after.encode()]
        assert self.reader.list_ids(type_name, after, limit) == expected[:limit]

    @precondition(lambda self: self.model)
    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        self.check_load(list(self.model))

    def check_load(self, keys: Sequence[ObjectKey]) -> None:
        rows = self.reader.load(keys)
        found = [None if row is None else (row.revision, row.state) for row in rows]
        assert found == [self.model.get(one) for one in keys]

    def teardown(self) -> None:
        # One storage serves all examples: leave it empty for the next, whatever is in it.
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
        self.close()
