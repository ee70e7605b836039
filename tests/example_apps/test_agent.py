from __future__ import annotations

import anyio
import pytest

from examples import agent as example
from examples.agent import Agent, Answer, Entry, Model, ToolCall, Tools
from trio_durable import DurableRuntime
from trio_durable.testing import drain_messages

pytestmark = pytest.mark.anyio

OBJECTS = [Agent, Model, Tools]
DAY = 86400


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A model that looks things up, refunds broken lamps, and then answers; the keys of uses."""
    used: list[str] = []

    async def complete(history: list[Entry]) -> Answer | ToolCall:
        last = history[-1]
        if last.role == "tool":
            return Answer(f"Done: {last.text}")
        return ToolCall("refund" if "broken" in last.text else "look up", last.text)

    async def use_tool(call: ToolCall, key: str) -> str:
        used.append(key)
        if len(used) == 1:
            raise ConnectionError("the tool is away")
        return f"{call.tool} worked"

    monkeypatch.setattr(example, "complete", complete)
    monkeypatch.setattr(example, "use_tool", use_tool)
    return used


async def history(runtime: DurableRuntime) -> list[str]:
    await drain_messages(runtime)
    [agent] = [each.state for each in await runtime.list_states(Agent)]
    return [f"{entry.role}: {entry.text}" for entry in agent.history]


async def test_a_tool_that_fails_is_tried_again_with_its_key(keys: list[str]) -> None:
    async with DurableRuntime(":memory:", objects=OBJECTS, polling_interval=DAY) as runtime:
        await Agent.ask("ada", "opening hours")
        await anyio.sleep(60)
        assert await history(runtime) == [
            "user: opening hours",
            "tool: look up worked",
            "agent: Done: look up worked",
        ]
    assert len(keys) == 2
    assert len(set(keys)) == 1


async def test_a_refund_waits_for_a_person_for_days(keys: list[str]) -> None:
    async with DurableRuntime(":memory:", objects=OBJECTS, polling_interval=DAY) as runtime:
        await Agent.ask("ada", "my lamp is broken")
        await anyio.sleep(3 * DAY)
        assert keys == []
        assert await Agent.decide("ada", True)
        assert not await Agent.decide("ada", True), "it was decided before"
        await anyio.sleep(60)
        assert (await history(runtime))[-1] == "agent: Done: refund worked"
        await anyio.sleep(8 * DAY)
        assert (await history(runtime))[-1] == "agent: Done: refund worked"
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("days", "says"),
    [(1, "A person has refused this."), (8, "No person has approved this.")],
)
async def test_a_refund_that_is_not_approved(days: int, says: str, keys: list[str]) -> None:
    async with DurableRuntime(":memory:", objects=OBJECTS, polling_interval=DAY) as runtime:
        await Agent.ask("ada", "my lamp is broken")
        await anyio.sleep(days * DAY)
        await Agent.decide("ada", False)
        assert (await history(runtime))[-2:] == [f"tool: {says}", f"agent: Done: {says}"]
    assert keys == []
