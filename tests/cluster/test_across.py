"""The same handlers in place and across, with types, values and errors drawn at random."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from exactness.definitions import definitions
from exactness.drawn_types import Typed
from exactness.snapshot import Snapshot, snapshot
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.clock import VirtualTimeLoop
from support.postgres import url_of
from trio.testing import MockClock

from trio_durable import (
    Cluster,
    DefinitionError,
    DurableError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    handler,
)

from .test_exactness import in_any_order
from .test_remote_errors import plain_errors

_TTL = 30 * 86400.0
_numbers = count()
EXAMPLES = int(os.environ.get("TRIO_DURABLE_EXAMPLES", "12"))


def drawn_class(typed: Typed) -> type[DurableObject]:
    """A class whose handlers take a value of a type, return one, and raise errors."""

    def echo(self: Any, value: Any) -> Any:
        self.calls += 1
        return value

    async def echo_later(self: Any, value: Any) -> Any:
        await anyio.sleep(0.01)
        return echo(self, value)

    def refuse(self: Any, value: Any) -> Any:
        self.calls += 100
        raise RAISED[-1]

    def count_calls(self: Any) -> int:
        found: int = self.calls
        return found

    for function in (echo, echo_later, refuse):
        function.__annotations__ = {"value": typed.annotation, "return": typed.annotation}
    count_calls.__annotations__ = {"return": int}
    body: dict[str, Any] = {
        each.__name__: handler(each) for each in (echo, echo_later, refuse, count_calls)
    }
    body |= {"calls": 0, "__annotations__": {"calls": int}, "__module__": __name__}
    return type(f"Drawn{next(_numbers)}", (DurableObject,), body)


RAISED: list[Exception] = []
"""The last of them is what handlers raise."""


async def account(call: Callable[[], Any]) -> Snapshot:
    """What a caller learns from a call."""
    try:
        value = await call()
    except Exception as error:  # noqa: BLE001  # compared
        text = str(error)
        attributes = {} if isinstance(error, DurableError) else dict(error.__dict__)
        notes = [each for each in attributes.pop("__notes__", []) if "Raised in" not in each]
        found = (type(error), text, error.args, attributes, notes)
        return ("raised", *map(snapshot, found))
    return ("returned", in_any_order(snapshot(value)))


class Pair:
    """The member that has the objects, and one that calls it, in one event loop."""

    def __init__(self, storage: str | Path) -> None:
        self._storage = storage

    async def check(self, typed: Typed, values: list[Any], errors: list[Exception]) -> None:
        cls: Any = drawn_class(typed)
        async with AsyncExitStack() as stack:
            runtimes = []
            for serves in (True, False):
                cluster = Cluster(serve=serves, ttl=_TTL)
                runtime = DurableRuntime(
                    self._storage, objects=[cls], cluster=cluster, runner=InlineRunner
                )
                runtimes.append(await stack.enter_async_context(runtime))
            here, across = runtimes
            in_place = await self._accounts(here, cls, values, errors)
            await here.delete(cls, "a")
            assert await self._accounts(across, cls, values, errors) == in_place
            assert across.statistics().calls_forwarded

    async def _accounts(
        self, runtime: DurableRuntime, cls: Any, values: list[Any], errors: list[Exception]
    ) -> list[Snapshot]:
        drawn = runtime.get(cls, "a")
        found = []
        for value in values:
            found.append(await account(partial(drawn.echo, value)))
            found.append(await account(partial(drawn.echo_later, value)))
        for error in errors:
            RAISED.append(error)
            found.append(await account(partial(drawn.refuse, values[0])))
        found.append(await account(drawn.count_calls))
        return found


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("where", ["file", "database"])
def test_what_a_caller_sees_does_not_depend_on_the_place(
    where: str, backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path: Path = request.getfixturevalue("tmp_path")
    numbers = count()

    @settings(
        deadline=None,
        max_examples=EXAMPLES,
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # each example opens two runtimes
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data(), definitions(), definitions(), st.lists(plain_errors, max_size=2))
    def check(data: st.DataObject, typed: Typed, other: Typed, errors: list[Exception]) -> None:
        values = [data.draw(typed.values), data.draw(typed.values), data.draw(other.values)]
        if where == "file":
            pair = Pair(tmp_path / f"{next(numbers)}.db")
        else:
            pair = Pair(url_of(request.getfixturevalue("postgres")))
        options: dict[str, Any] = (
            {"clock": MockClock(autojump_threshold=0)}
            if backend == "trio"
            else {"loop_factory": VirtualTimeLoop}
        )
        try:
            anyio.run(pair.check, typed, values, errors, backend=backend, backend_options=options)
        except DefinitionError:
            return

    check()
