"""What users test their durable objects with; ``docs/testing.md`` shows how.

`perform_handler` and `perform_alarm_handler` run one turn of an instance without a runtime. The
others look at, and act on, the objects of one. All of them are awaited, and what they assert fails
with an `AssertionError` that says what was expected and what was there. The pytest plugin in
`trio_durable.testing.plugin` has a fixture with a runtime.
"""

from ._alarms import (
    all_scheduled_alarms,
    assert_alarm_scheduled,
    drain_alarms,
    fire_alarm,
    refute_alarm_scheduled,
)
from ._eventually import assert_eventually
from ._perform import Performed, perform_alarm_handler, perform_handler
from ._state import assert_persisted, get_persisted_state

__all__ = [
    "Performed",
    "all_scheduled_alarms",
    "assert_alarm_scheduled",
    "assert_eventually",
    "assert_persisted",
    "drain_alarms",
    "fire_alarm",
    "get_persisted_state",
    "perform_alarm_handler",
    "perform_handler",
    "refute_alarm_scheduled",
]
