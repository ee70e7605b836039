"""Test helpers for durable objects; ``docs/testing.md`` shows how to use them.

`perform_handler` and `perform_alarm_handler` run one turn of an instance without a runtime, and
`assert_sent` and `refute_sent` look at the messages that it sent. The other functions inspect the
objects of an open runtime, fire their alarms and have their messages delivered. All but
`assert_sent` and `refute_sent` are awaited. A failed assertion raises an `AssertionError` with the
expected and the actual values. The pytest plugin `trio_durable.testing.plugin` has a fixture with a
runtime.
"""

from ._alarms import (
    all_scheduled_alarms,
    assert_alarm_scheduled,
    drain_alarms,
    fire_alarm,
    refute_alarm_scheduled,
)
from ._eventually import assert_eventually
from ._messages import (
    Drained,
    assert_message_waiting,
    assert_sent,
    drain_messages,
    refute_message_waiting,
    refute_sent,
)
from ._perform import Performed, Sent, perform_alarm_handler, perform_handler
from ._state import assert_persisted, get_persisted_state

__all__ = [
    "Drained",
    "Performed",
    "Sent",
    "all_scheduled_alarms",
    "assert_alarm_scheduled",
    "assert_eventually",
    "assert_message_waiting",
    "assert_persisted",
    "assert_sent",
    "drain_alarms",
    "drain_messages",
    "fire_alarm",
    "get_persisted_state",
    "perform_alarm_handler",
    "perform_handler",
    "refute_alarm_scheduled",
    "refute_message_waiting",
    "refute_sent",
]
