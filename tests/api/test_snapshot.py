"""Snapshots of stored states."""

from __future__ import annotations

import attrs
import pytest

from trio_durable import DurableObject, ObjectKey, Snapshot, StateDecodeError, definition_of
from trio_durable._api.registry import object_type_of


class Shelf(DurableObject):
    books: list[str] = attrs.field(factory=list)


SHELVES = object_type_of(definition_of(Shelf))
KEY = ObjectKey("Shelf", "a")


def snapshot(revision: int, row: bytes | None) -> Snapshot[Shelf]:
    return Snapshot(SHELVES, KEY, revision, row)


def test_the_json_is_the_stored_text() -> None:
    row = SHELVES.codec.stored(b'{"books":["Emma"]}')
    stored = snapshot(3, row)
    assert stored.json == row.decode()
    assert stored.state.books == ["Emma"]
    assert (stored.key, stored.revision) == (KEY, 3)


def test_each_access_to_the_state_is_a_copy() -> None:
    stored = snapshot(3, SHELVES.codec.stored(b'{"books":["Emma"]}'))
    stored.state.books.append("Persuasion")
    assert stored.state.books == ["Emma"]


def test_without_a_row_the_state_has_the_defaults() -> None:
    absent = snapshot(0, None)
    absent.state.books.append("Emma")
    assert absent.state.books == []
    assert absent.json is None


def test_a_row_that_can_not_be_read_raises_at_the_state_alone() -> None:
    stored = snapshot(3, b'{"books":7}')
    assert stored.json == '{"books":7}'
    with pytest.raises(StateDecodeError):
        _ = stored.state


def test_a_row_that_is_not_utf8_raises_at_its_text() -> None:
    stored = snapshot(3, b'{"books":["\xff"]}')
    with pytest.raises(StateDecodeError, match=r"not UTF-8 \(invalid start byte\)") as caught:
        _ = stored.json
    assert (caught.value.key, caught.value.place) == (KEY, "byte 11")
    assert stored.digest != snapshot(3, b'{"books":["\xfe"]}').digest


def test_the_digest_is_of_the_stored_text() -> None:
    row = SHELVES.codec.stored(b'{"books":["Emma"]}')
    assert snapshot(3, row).digest == snapshot(4, bytes(row)).digest
    assert snapshot(3, row).digest != snapshot(3, row + b" ").digest
    assert snapshot(0, None).digest is None


def test_snapshots_are_equal_if_revision_and_text_are() -> None:
    row = SHELVES.codec.stored(b'{"books":[]}')
    assert snapshot(3, row) == snapshot(3, bytes(row))
    assert len({snapshot(3, row), snapshot(3, bytes(row)), snapshot(4, row)}) == 2
    assert snapshot(3, row) != snapshot(3, b"{}")
