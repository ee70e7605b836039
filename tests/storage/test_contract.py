"""The contract of storages: the names that third-party storages import."""

from __future__ import annotations

import pickle

from trio_durable import ObjectKey
from trio_durable._alarms.input import MAX_PAYLOAD_BYTES
from trio_durable._keys import MAX_ID_BYTES, MAX_TENANT_LENGTH
from trio_durable._persistence.batched_load import MAX_BATCH_KEYS
from trio_durable._persistence.group_commit import MAX_BATCH_BYTES, MAX_BATCH_ROWS
from trio_durable.scheduler._delivery.failures import MAX_ERROR_CHARS
from trio_durable.scheduler._delivery.in_flight import MAX_IN_FLIGHT, MAX_RECENT
from trio_durable.storage import CorruptRow, Reader, SpoiltRow, StorageFault, Writer, _records

KEY = ObjectKey("Counter", "a")


def test_the_former_name_of_a_corrupt_row_is_the_same_class() -> None:
    assert SpoiltRow is CorruptRow
    assert issubclass(CorruptRow, StorageFault)


def test_a_corrupt_row_survives_pickling_with_its_key_and_text() -> None:
    copy = pickle.loads(pickle.dumps(CorruptRow(KEY, "revision 0")))
    assert type(copy) is CorruptRow
    assert (copy.key, str(copy)) == (KEY, "revision 0")


def test_docstrings_state_the_bounds_of_the_runtime() -> None:
    # The contract can't import them, because it is below the runtime.
    said = [
        (Writer.commit, f"at most {MAX_BATCH_ROWS} commits"),
        (Writer.commit, f"past {MAX_BATCH_BYTES // 2**20} MiB"),
        (Writer.claim, f"at most {MAX_RECENT} alarms"),
        (Writer.claim, f"more than {MAX_IN_FLIGHT:,}"),
        (Reader.load, f"at most {MAX_BATCH_KEYS} keys"),
        (_records, f"1 to {MAX_ID_BYTES} bytes"),
        (_records, f"up to {MAX_TENANT_LENGTH} characters"),
        (_records, f"payloads to {MAX_PAYLOAD_BYTES // 2**10} KiB"),
        (_records, f"errors to {MAX_ERROR_CHARS} characters"),
    ]
    for documented, bound in said:
        assert bound in " ".join((documented.__doc__ or "").split()), bound
