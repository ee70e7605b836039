"""The contract of storages: the names that third-party storages import."""

from __future__ import annotations

import pickle

from trio_durable import ObjectKey
from trio_durable.storage import CorruptRow, SpoiltRow, StorageFault

KEY = ObjectKey("Counter", "a")


def test_the_former_name_of_a_corrupt_row_is_the_same_class() -> None:
    assert SpoiltRow is CorruptRow
    assert issubclass(CorruptRow, StorageFault)


def test_a_corrupt_row_survives_pickling_with_its_key_and_text() -> None:
    copy = pickle.loads(pickle.dumps(CorruptRow(KEY, "revision 0")))
    assert type(copy) is CorruptRow
    assert (copy.key, str(copy)) == (KEY, "revision 0")
