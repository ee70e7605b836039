"""The suite: all tests in one class."""

from __future__ import annotations

from ._crashes import CrashTests
from ._deliveries import DeliveryTests
from ._failures import FailureTests
from ._recurrences import RecurrenceTests
from ._runtimes import RuntimeTests
from ._setting import SettingTests


class SchedulerConformance(
    # pytest starts with the tests of the last one.
    CrashTests,
    RecurrenceTests,
    RuntimeTests,
    DeliveryTests,
    FailureTests,
    SettingTests,
):
    """Tests of a scheduler against the contract; subclass this to run them.

    ::

        class TestMyScheduler(SchedulerConformance):
            def make_scheduler(self, parts: SchedulerParts) -> Scheduler:
                return MyScheduler(parts.loop, parts.clock, parts.group_commit, …)

    A subclass, with a name that pytest collects, provides

    - the method ``make_scheduler``, which makes a scheduler from the parts of one runtime. Tests
      make several schedulers on one storage, in one event loop.
    - ``polling_interval``, ``claim_ttl`` and ``lateness``, unless the scheduler has the defaults of
      30, 60 and 0.25 seconds. Pass these times to the scheduler, too.
    - ``unhandled_pause``, unless a recurring alarm that nothing has handled is tried again within
      300 seconds.
    - ``counts_crashes = False``, if the scheduler never calls `Writer.mark`. This skips the tests
      of alarms that kill the process.
    - the fixture ``storage``, unless a `MemoryStorage` holds the alarms: a `Storage` that is empty
      and not open. Each test opens one writer and one reader, which all its runtimes share.

    The tests are marked for AnyIO's plugin, ``pytest.mark.anyio``. They wait for minutes, so the
    fixture ``anyio_backend`` should give the event loop a virtual clock.

    The tests use only the contract in `trio_durable.scheduler`, with scripted handlers of alarms.
    They don't cover several processes.
    """
