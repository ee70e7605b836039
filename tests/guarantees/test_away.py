"""The tests that run away are there, and their calls do leave the process."""

from __future__ import annotations

from importlib import import_module

import pytest
from cluster.away import Away, place_objects_away

from trio_durable import DurableRuntime

from .away import EXCEPT, LONG, MODULES
from .counters import Counter


def test_the_names_of_exceptions_are_those_of_tests() -> None:
    names = {name for each in MODULES for name in vars(import_module(each))}
    assert {*EXCEPT, *LONG} - names == set()
    assert EXCEPT.keys() & LONG == set()


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
