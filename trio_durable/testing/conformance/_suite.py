"""The conformance suite: all groups of tests in one class."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ...storage import Storage
from ._alarm_batches import AlarmBatchTests
from ._alarms import AlarmTests
from ._browsing import BrowsingTests
from ._claims import ClaimTests
from ._crashes import CrashTests
from ._dead_messages import DeadMessageTests
from ._feed import FeedTests
from ._machine import StorageMachine
from ._mail import MailTests
from ._message_machine import MessageMachine
from ._messages import MessageCommitTests
from ._objects import ObjectTests
from ._once import OnceTests
from ._recurrences import RecurrenceTests
from ._tenants import TenantTests


class StorageConformance(
    # pytest collects the last base first, so this is the reverse order of the conditions.
    RecurrenceTests,
    OnceTests,
    DeadMessageTests,
    MailTests,
    MessageCommitTests,
    BrowsingTests,
    CrashTests,
    TenantTests,
    FeedTests,
    ClaimTests,
    AlarmBatchTests,
    AlarmTests,
    ObjectTests,
):
    """Tests of the contract's conditions, to run by a subclass.

    ::

        class TestMyStorage(StorageConformance):
            @pytest.fixture
            def storage(self, tmp_path: Path) -> Storage:
                return MyStorage(tmp_path / "objects")

    A subclass needs a name that pytest collects, and

    - the fixture ``storage``, of function scope: a `Storage` that is empty and not open. Tests must
      not see each other's data. A test may close the sides that it has opened and open the same
      `Storage` again, with all its data, and may open several readers at the same time as the one
      writer. Everything happens in one thread. After a failed test, sides may still be open.
    - ``opens_for_one = False``, if several writers may be open at the same time. This skips the
      tests that a second writer is refused, and that opening releases claims.
    - ``counts_crashes = False``, if the storage leaves `StoredAlarm.crashes` None. This skips the
      tests of condition 12.

    - ``thoroughness = 25``, say, if it has the time: the state machines draw so many times as many
      examples. They find what no other test was written for, so do that now and then.

    The tests of messages are skipped if the storage's `Storage.keeps_messages` is False.

    It may override the fixtures ``writer`` and ``reader``, for example to count calls, and add
    tests of its own. Both sides are open during a test that uses these fixtures.

    The tests use only the contract in `trio_durable.storage`, so the schema of a storage doesn't
    matter. They can't cover conditions that need a second process: that commits survive a kill or
    a power loss (condition 4), and that concurrent writers compare epochs (condition 3). Nor can
    they make a commit fail (condition 2) or corrupt a row (`CorruptRow`).
    """

    def test_like_a_dictionary(self, storage: Storage) -> None:
        self._run(StorageMachine, storage, max_examples=40)

    def test_messages_like_lists(self, storage: Storage) -> None:
        if not storage.keeps_messages:
            pytest.skip("this storage keeps no messages")
        self._run(MessageMachine, storage, max_examples=20)

    def _run(self, machine: type[StorageMachine], storage: Storage, max_examples: int) -> None:
        opens_for_one, counts_crashes = self.opens_for_one, self.counts_crashes

        class Machine(machine):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                super().__init__(storage, opens_for_one, counts_crashes)

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=max_examples * self.thoroughness,
                stateful_step_count=25,
                deadline=None,
                # A storage may be slow, and each step draws many values.
                suppress_health_check=[
                    HealthCheck.data_too_large,
                    HealthCheck.filter_too_much,
                    HealthCheck.large_base_example,
                    HealthCheck.too_slow,
                ],
            ),
        )
