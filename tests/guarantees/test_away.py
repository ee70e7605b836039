"""The tests that run away are there, and their calls do leave the process."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import outbox.away
import pytest
from cluster.away import Away, place_objects_away

from trio_durable import DurableRuntime

from . import away
from .counters import Counter


@pytest.mark.parametrize("lists", [away, outbox.away])
def test_the_names_of_exceptions_are_those_of_tests(lists: ModuleType) -> None:
    names = {name for each in lists.MODULES for name in vars(import_module(each))}
    assert {*lists.EXCEPT, *lists.LONG} - names == set()
    assert lists.EXCEPT.keys() & lists.LONG == set()


@pytest.mark.anyio
async def test_a_call_is_forwarded_to_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    place_objects_away(monkeypatch, "guarantees")
    runtime = DurableRuntime(":memory:")
    assert isinstance(runtime, Away)
    async with runtime:
        assert await runtime.get(Counter, "a").increment() == 1
        assert super(Away, runtime).statistics().calls_forwarded == 1
        assert super(Away, runtime).whereis(Counter, "a") is None
        assert runtime.owner.whereis(Counter, "a") is not None
