"""Test helpers for durable objects; ``docs/testing.md`` shows how to use them.

`perform_handler` and `perform_alarm_handler` run one turn of an instance without a runtime. The
other functions inspect the objects of an open runtime and fire their alarms. All are awaited. A
failed assertion raises an `AssertionError` with the expected and the actual values. The pytest
plugin `trio_durable.testing.plugin` has a fixture with a runtime.
"""

from ._alarms import (
    all_scheduled_alarms,
    assert_alarm_scheduled,
    drain_alarms,
    fire_alarm,
    refute_alarm_scheduled,
)
from ._eventually import assert_eventually
from ._perform import Performed, Sent, perform_alarm_handler, perform_handler
from ._state import assert_persisted, get_persisted_state

__all__ = [
    "Performed",
    "Sent",
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
