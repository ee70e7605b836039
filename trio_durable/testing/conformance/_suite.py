"""The suite: all its tests in one class."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ...storage import Storage
from ._alarm_batches import AlarmBatchTests
from ._alarms import AlarmTests
from ._browsing import BrowsingTests
from ._claims import ClaimTests
from ._feed import FeedTests
from ._machine import StorageMachine
from ._objects import ObjectTests
from ._tenants import TenantTests


class StorageConformance(
    # pytest begins with the tests of the last: here, by condition of the contract.
    BrowsingTests,
    TenantTests,
    FeedTests,
    ClaimTests,
    AlarmBatchTests,
    AlarmTests,
    ObjectTests,
):
    """Tests that a storage keeps the conditions of the contract; inherit from it to run them.

    ::

        class TestMyStorage(StorageConformance):
            @pytest.fixture
            def storage(self, tmp_path: Path) -> Storage:
                return MyStorage(tmp_path / "objects")

    A subclass, whose name pytest must find, provides

    - the fixture ``storage``, of function scope: a `Storage` that is empty and not open. What is
      written by one test no other may see. A test may close what it has opened and open the same
      `Storage` again, which then still has everything, and may open several readers beside the
      one writer. All of it happens in one thread. After a test that failed, sides may be open
      still.
    - ``opens_for_one = False``, if several writers may be open at a time. Then nothing is asked
      that only one who is alone can do: refusing the next, and giving claims back.

    It may override the fixtures ``writer`` and ``reader``, to close them another way or to count
    what they do, and add tests of its own; both fixtures are open during a test that asks for them.

    The tests use nothing but the contract in `trio_durable.storage`, so they pass whatever the
    tables are. They don't show what needs a second process: that commits survive a kill or a loss
    of power (condition 4), and that two writers of one storage compare epochs (condition 3). Nor
    can they make a commit fail (condition 2).
    """

    def test_like_a_dictionary(self, storage: Storage) -> None:
        opens_for_one = self.opens_for_one

        class Machine(StorageMachine):
            def __init__(self) -> None:
                super().__init__(storage, opens_for_one)

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=40,
                stateful_step_count=25,
                deadline=None,
                # A storage may be slow, and a machine with steps like these draws much.
                suppress_health_check=[
                    HealthCheck.data_too_large,
                    HealthCheck.filter_too_much,
                    HealthCheck.large_base_example,
                    HealthCheck.too_slow,
                ],
            ),
        )
