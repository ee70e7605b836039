"""The router's account of calls that got no answer."""

from __future__ import annotations

import pytest
from support.clock import settle
from support.tasks import calls

from trio_durable import CallTimeout, ObjectKey
from trio_durable._activations.output_gate import OutputGate
from trio_durable._cluster.places import OnePlace
from trio_durable._cluster.router import Router
from trio_durable._eventloop.running import running_loop
from trio_durable._eventloop.timeouts import Deadlines

from .nodes import Node, raw_link

pytestmark = pytest.mark.anyio
KEY = ObjectKey("Cart", "user-123")


def router_to(node: Node, deadlines: Deadlines) -> Router:
    """A router of the process that ``node`` is in, whose objects are at the other side."""
    loop, places = running_loop(), OnePlace()
    places.found(node.peer)
    return Router(loop, deadlines, OutputGate(loop, deadlines), places)


@pytest.mark.parametrize("is_sent", [True, False])
async def test_a_call_without_an_answer_may_have_run_if_it_was_sent(is_sent: bool) -> None:
    async with raw_link(capacity=64) as (node, _), calls() as group:
        router = router_to(node, node.deadlines)

        async def forward(body: bytes, timeout: float | None) -> object:
            return await router.forward(
                lambda: KEY, KEY.object_id, "add", body, timeout, repeatable=False
            )

        if not is_sent:  # the writer waits for the reader
            blocking = group.start(forward, b'"%b"' % (b"x" * 200), None)
            await settle()
        late = group.start(forward, b'"late"', 1)
        await late.wait()
        assert isinstance(late.error, CallTimeout)
        assert late.error.may_have_run is is_sent
        if is_sent:
            assert "(it was sent to process raw); a turn that has begun" in str(late.error)
        else:
            assert "(it waited to be sent to process raw); it did not run" in str(late.error)
            blocking.cancel()
