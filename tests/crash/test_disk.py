"""The disk of these tests keeps what it promises, and nothing more."""

from __future__ import annotations

import random

import pytest
from support.disk import (
    LOSSES,
    SECTOR,
    Created,
    Event,
    Loss,
    Platter,
    Removed,
    Resized,
    Synced,
    SyncFailed,
    Written,
)

NEW: list[Event] = [Created(0, "a"), Synced(0, folder_synced=True)]


def left(*events: Event, loss: Loss = "some", tries: int = 60) -> set[bytes | None]:
    """All that was found in the file "a" after many power cuts."""
    platter = Platter()
    for event in events:
        platter.take(event)
    rng = random.Random(1)
    return {platter.survivors(rng, loss).get("a") for _ in range(tries)}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_synced_is_there(loss: Loss) -> None:
    events: list[Event] = [
        Created(0, "a"),
        Written(0, 0, b"abc"),
        Resized(0, 2),
        Synced(0, folder_synced=True),
    ]
    assert left(*events, loss=loss) == {b"ab"}


def test_what_is_not_synced_may_be_there() -> None:
    assert left(*NEW, Written(0, 0, b"abc"), loss="all") == {b""}
    assert left(*NEW, Written(0, 0, b"abc"), loss="none") == {b"abc"}
    # The size may be on the disk before what fills it.
    assert left(*NEW, Written(0, 0, b"abc")) == {b"", b"abc", b"\0\0\0"}


def test_writes_are_torn_between_sectors_and_reordered() -> None:
    base: list[Event] = [*NEW, Written(0, 0, b"." * 2 * SECTOR), Synced(0, folder_synced=False)]
    found = left(*base, Written(0, SECTOR - 1, b"12"))
    assert {(content or b"")[SECTOR - 1 : SECTOR + 1] for content in found} == {
        b"..",
        b"1.",
        b".2",
        b"12",
    }
    # The earlier of two may be lost and the later one not, but in one sector they have an order.
    two: list[Event] = [Written(0, 0, b"1"), Written(0, SECTOR, b"2")]
    assert {(content or b"")[0::SECTOR] for content in left(*base, *two)} == {
        b"..",
        b"1.",
        b".2",
        b"12",
    }
    one = [Written(0, 0, b"1"), Written(0, 0, b"2")]
    assert {(content or b"")[:1] for content in left(*base, *one)} == {b".", b"1", b"2"}


def test_a_file_is_there_for_sure_when_its_folder_is_synced() -> None:
    made: list[Event] = [Created(0, "a"), Written(0, 0, b"x"), Synced(0, folder_synced=False)]
    assert left(*made) == {None, b"x"}
    gone = [*NEW, Removed("a", folder_synced=False)]
    assert left(*gone) == {None, b""}
    assert left(*NEW, Removed("a", folder_synced=True)) == {None}
    # A new one of the same name may be missing while the old one is still there.
    again = [*gone, Created(1, "a"), Written(1, 0, b"new"), Synced(1, folder_synced=False)]
    assert left(*again) == {None, b"", b"new"}


def test_what_was_cut_off_may_be_there() -> None:
    base: list[Event] = [
        *NEW,
        Written(0, 0, b"abcd"),
        Synced(0, folder_synced=False),
        Resized(0, 1),
    ]
    assert left(*base) == {b"abcd", b"a"}


def test_no_later_sync_brings_what_one_has_failed_to() -> None:
    failed = [*NEW, Written(0, 0, b"abc"), SyncFailed(0), Synced(0, folder_synced=True)]
    assert b"\0\0\0" in left(*failed, loss="all") | left(*failed)
    # To write it anew does; of what was beside it nothing is known.
    anew = [*failed, Written(0, 1, b"b"), Synced(0, folder_synced=True)]
    assert {(content or b"")[1:2] for content in left(*anew) | left(*anew, loss="all")} == {b"b"}
    assert {(content or b"")[:1] for content in left(*anew)} == {b"\0", b"a"}
