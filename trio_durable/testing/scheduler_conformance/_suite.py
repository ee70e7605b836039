"""The suite: all its tests in one class."""

from __future__ import annotations

from ._deliveries import DeliveryTests
from ._failures import FailureTests
from ._runtimes import RuntimeTests
from ._setting import SettingTests


class SchedulerConformance(
    # pytest begins with the tests of the last.
    RuntimeTests,
    DeliveryTests,
    FailureTests,
    SettingTests,
):
    """Tests that a scheduler keeps the contract; inherit from it to run them.

    ::

        class TestMyScheduler(SchedulerConformance):
            def make_scheduler(self, parts: SchedulerParts) -> Scheduler:
                return MyScheduler(parts.loop, parts.clock, parts.group_commit, …)

    A subclass, whose name pytest must find, provides

    - the method ``make_scheduler``, which makes a scheduler of the parts of one runtime. Tests
      make several on one storage, in one event loop.
    - ``polling_interval``, ``claim_ttl`` and ``lateness``, if the scheduler has other times than
      30, 60 and 0.25 seconds. Give them to the scheduler, too.
    - the fixture ``storage``, if its alarms are kept elsewhere than in a `MemoryStorage`: a
      `Storage` that is empty and not open. Each test opens one writer and one reader, which all
      its runtimes share.

    The tests are AnyIO's, ``pytest.mark.anyio``. They wait for minutes, so the fixture
    ``anyio_backend`` should give the event loop a virtual clock.

    The tests use the contract in `trio_durable.scheduler` alone, and objects that handle alarms as
    a test says. They can't show what needs several processes.
    """
