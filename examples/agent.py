"""An agent with tools, a memory, and a person's approval. A crash at any step repeats that step.

Each step is a message: to the model, to a tool, and back. So a step that was begun comes to an end,
and the conversation is stored between any two steps, for seconds or for days.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import attrs

from trio_durable import DurableObject, Retry, SendFailed, alarm, handler

NEEDS_APPROVAL = {"refund"}
PATIENCE = timedelta(days=7)


@attrs.frozen
class Answer:
    text: str


@attrs.frozen
class ToolCall:
    tool: str
    argument: str


@attrs.frozen
class Entry:
    role: Literal["user", "agent", "tool"]
    text: str


async def complete(history: list[Entry]) -> Answer | ToolCall:
    """Ask the model for the next step."""
    raise NotImplementedError("a real agent asks its model here")


async def use_tool(call: ToolCall, key: str) -> str:
    """Use a tool, once per ``key``: each attempt of a step has the same one."""
    raise NotImplementedError("a real agent has its tools here")


class Agent(DurableObject):
    """One conversation. Its id is the user's."""

    history: list[Entry] = attrs.field(factory=list)
    to_approve: ToolCall | None = None

    @handler
    def ask(self, text: str) -> None:
        self._note("user", text)

    @handler
    def thought(self, step: Answer | ToolCall) -> None:
        if isinstance(step, Answer):
            self.history.append(Entry("agent", step.text))
        elif step.tool in NEEDS_APPROVAL:
            self.to_approve = step
            self.ctx.schedule_alarm("expire", after=PATIENCE)
        else:
            self._use(step)

    @handler
    def decide(self, approved: bool) -> bool:
        """A person's decision; False if there is nothing to decide."""
        call, self.to_approve = self.to_approve, None
        if call is None:
            return False
        self.ctx.cancel_alarm("expire")
        if approved:
            self._use(call)
        else:
            self._note("tool", "A person has refused this.")
        return True

    @alarm
    def expire(self) -> None:
        self.to_approve = None
        self._note("tool", "No person has approved this.")

    @handler
    def used(self, result: str) -> None:
        self._note("tool", result)

    @handler
    def failed(self, failure: SendFailed) -> None:
        self.history.append(Entry("agent", f"I can't go on: {failure.error}"))

    def _note(self, role: Literal["user", "tool"], text: str) -> None:
        self.history.append(Entry(role, text))
        think = self.ctx.outgoing(reply=Agent.thought, failed=Agent.failed)
        think.send(Model.next_step, self.ctx.object_id, self.history)

    def _use(self, call: ToolCall) -> None:
        use = self.ctx.outgoing(reply=Agent.used, failed=Agent.failed)
        use.send(Tools.use, self.ctx.object_id, call)


class Model(DurableObject):
    """The model's turns of one conversation, which don't keep the agent busy."""

    @handler(retry=Retry(attempts=5), limit=120)
    async def next_step(self, history: list[Entry]) -> Answer | ToolCall:
        return await complete(history)


class Tools(DurableObject):
    """The tools of one conversation."""

    @handler(retry=Retry(attempts=5), limit=60)
    async def use(self, call: ToolCall) -> str:
        message = self.ctx.message
        assert message is not None, "it is sent, not called"
        return await use_tool(call, message.id)
