"""State is a value: an object in two places of it is two objects after the turn."""

from __future__ import annotations

from collections import deque
from typing import Any

import anyio
import attrs
import pytest
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage

from trio_durable import DurableObject, StateEncodeError, handler

pytestmark = pytest.mark.anyio


@attrs.define
class Part:
    items: list[int] = attrs.field(factory=list)


class Holder(DurableObject, hibernate_after=10):
    left: list[int] = attrs.field(factory=list)
    right: list[int] = attrs.field(factory=list)
    parts: list[Part] = attrs.field(factory=list)
    by_name: dict[str, deque[int]] = attrs.field(factory=dict)
    anything: Any = None
    texts: tuple[str, ...] = ()

    @handler
    def share(self, place: str) -> None:
        self._share(place)

    @handler
    async def share_slowly(self, place: str) -> None:
        self._share(place)
        await anyio.sleep(1)

    def _share(self, place: str) -> None:
        if place == "fields":
            self.left = self.right = [1]
        elif place == "parts":
            self.parts = [Part([1])] * 2
        elif place == "inside":
            items = [1]
            self.parts = [Part(items), Part(items)]
        elif place == "dict":
            numbers = deque([1])
            self.by_name = {"a": numbers, "b": numbers}
        elif place == "any":
            items = [1]
            self.anything = {"a": items, "b": [items]}

    @handler
    def change(self) -> None:
        """Change the first of the two places."""
        self.left.append(2)
        if self.parts:
            self.parts[0].items.append(2)
        if self.by_name:
            self.by_name["a"].append(2)
        if self.anything:
            self.anything["a"].append(2)

    @handler(readonly=True)
    def seconds(self) -> dict[str, Any]:
        """The second of the two places."""
        return {
            "right": self.right,
            "parts": self.parts[1].items if self.parts else None,
            "dict": self.by_name.get("b"),
            "any": self.anything and self.anything["b"],
        }

    @handler
    def same_texts(self) -> None:
        self.texts = ("a" * 1000,) * 2

    @handler
    def contain_itself(self) -> None:
        circle: list[Any] = []
        circle.append(circle)
        self.anything = circle


SECONDS: dict[str, Any] = {"right": [], "parts": None, "dict": None, "any": None}


@pytest.mark.parametrize("how", ["share", "share_slowly"])
@pytest.mark.parametrize(
    ("place", "seconds"),
    [
        ("fields", {"right": [1]}),
        ("parts", {"parts": [1]}),
        ("inside", {"parts": [1]}),
        ("dict", {"dict": deque([1])}),
        ("any", {"any": [[1]]}),
    ],
)
async def test_two_places_are_two_objects_in_memory_as_after_a_restart(
    how: str, place: str, seconds: dict[str, Any]
) -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        holder = runtime.get(Holder, "a")
        await runtime.call(Holder, "a", how, place)
        await holder.change()
        assert await holder.seconds() == {**SECONDS, **seconds}
        in_memory = await runtime.get_state(Holder, "a")
        await runtime.stop(Holder, "a")
        assert await holder.seconds() == {**SECONDS, **seconds}
        assert await runtime.get_state(Holder, "a") == in_memory


async def test_immutable_objects_may_stand_in_two_places() -> None:
    async with scripted_runtime(ScriptedStorage()) as runtime:
        holder = runtime.get(Holder, "a")
        await holder.same_texts()
        assert (await runtime.get_state(Holder, "a")).texts == ("a" * 1000,) * 2


async def test_a_list_that_contains_itself_is_refused() -> None:
    async with scripted_runtime(ScriptedStorage()) as runtime:
        with pytest.raises(StateEncodeError, match="contains itself"):
            await runtime.get(Holder, "a").contain_itself()
        assert await runtime.get(Holder, "a").seconds() == SECONDS
