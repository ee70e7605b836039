"""Tests of messages and once-keys that also run with their objects in another member of a cluster.

See `guarantees.away`.
"""

from __future__ import annotations

MODULES = {"outbox.test_messages", "outbox.test_once", "outbox.test_settled"}

EXCEPT = {
    "test_deliveries_leave_no_cycles_to_the_garbage_collector": (
        "counts the timeouts of ended calls with the rest; each call has one more at its owner"
    ),
}
"""Reasons by the names of tests."""

LONG = {
    "test_a_turn_sends_a_thousand_messages_and_no_more",
    "test_an_expired_key_counts_as_absent_and_is_removed_in_time",
}
"""Tests that take a second and more; they run away if all do."""
