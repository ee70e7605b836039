"""Lanes at work: which receivers are read again, step by step, without a storage."""

from __future__ import annotations

import pytest

from trio_durable import DurableRuntime, ObjectKey
from trio_durable._outbox.inbox import Flight
from trio_durable._outbox.lanes import Lanes
from trio_durable.storage import MessageKey, StoredMessage

pytestmark = pytest.mark.anyio

TO = ObjectKey("Stock", "tea")


def message(number: int, lane: str) -> StoredMessage:
    return StoredMessage(
        key=MessageKey(TO, lane, number, number),
        handler="reserve",
        arguments=b"[{}]",
        sent_at=0,
        wake_at=None,
        failures=0,
        crashes=0,
        hops=0,
        sender=None,
        reply_to=None,
        failed_to=None,
        sender_key=None,
        once_key=None,
        last_error=None,
    )


class Tower:
    """A deliverer that isn't called."""

    def turn_ended(self, flight: Flight) -> None:
        raise NotImplementedError

    def ended(self, flight: Flight) -> None:
        raise NotImplementedError

    def answer(self, flight: Flight, result: object) -> None:
        raise NotImplementedError


async def test_a_look_between_a_turn_and_its_commit_is_not_forgotten() -> None:
    async with DurableRuntime(":memory:") as runtime:
        lanes = Lanes(runtime._usable().services, lambda _: True)
        lanes.is_scanned = True
        lanes.arrived(message(1, "a"))
        lane = lanes.next_ready()
        inbox = lane.inbox
        flight = Flight(Tower(), lane, lane.queue[0])
        lanes.inboxes.take(lane, flight.stored)
        inbox.in_flight[flight] = None
        lanes.advance(lane)  # the turn has ended, so the next of the lane may follow; there is none
        assert inbox.lanes == {}
        lanes.look(TO)  # a dead letter was retried, say
        assert TO not in lanes.unread
        inbox.in_flight.clear()  # the commit is durable
        lanes.let_go(inbox)
        assert list(lanes.unread) == [TO]
