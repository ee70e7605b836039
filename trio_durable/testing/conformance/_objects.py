"""Tests of saves, fencing by revision, and loads: conditions 1 to 6, in their order."""

from __future__ import annotations

import json

import pytest

from ..._errors import StorageInUse
from ..._keys import ObjectKey
from ...storage import Commit, Reader, Storage, StoredObject, Writer
from ._builders import delete, key, save
from ._tests import StorageTests
from ._values import ODD_IDS, STATES


class ObjectTests(StorageTests):
    """Commits and loads of one object and of many."""

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
        self.check_all(self.load(reader, *ids), [(1, one.encode()) for one in ids])
        changed = [save(one, 1, one.encode() + b"0") for one in ids]
        assert self.commit(writer, *changed) == []
        self.check_all(self.load(reader, *ids), [(2, one.encode() + b"0") for one in ids])
        assert self.commit(writer, *(delete(one, 2) for one in ids)) == []
        self.check_all(self.load(reader, *ids), [None] * size)

    @pytest.mark.parametrize("size", [3, 64, 1000, 1100])
    def test_a_batch_of_everything(self, writer: Writer, reader: Reader, size: int) -> None:
        """A batch of creations, changes, deletions and each kind of stale commit."""
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
        self.check_all(self.commit(writer, *batch), stale)
        self.check_all(self.load(reader, *ids), expected)

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
        """A stale commit leaves nothing behind that makes the next one stale."""
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
        self.check_exact(row.state, state)

    def test_states_do_not_mix_in_a_batch(self, writer: Writer, reader: Reader) -> None:
        ids = [f"{n:02}" for n in range(len(STATES))]
        batch = [save(one, 0, state) for one, state in zip(ids, STATES.values(), strict=True)]
        self.commit(writer, *batch)
        rows = reader.load([key(one) for one in ids])
        assert [row and row.revision for row in rows] == [1] * len(ids)
        for row, state in zip(rows, STATES.values(), strict=True):
            assert row is not None
            self.check_exact(row.state, state)

    def test_a_state_that_shrinks_and_grows(self, writer: Writer, reader: Reader) -> None:
        for revision, state in enumerate([b"1", STATES["1 MiB"], b"2", STATES["1 MiB"]]):
            self.commit(writer, save("a", revision, state))
            (row,) = reader.load([key("a")])
            assert row is not None
            assert row.revision == revision + 1
            self.check_exact(row.state, state)

    # --- 6: visibility to readers ---------------------------------------------------------------

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
        self.check_all(self.load(reader, *ids), [(1, state) for state in reversed(states)])

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
