"""pykka: an actor for each counter, each with a thread of its own, in memory only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pykka

from .contender import Counters, Parts, Place, Step


class CounterActor(pykka.ThreadingActor):
    """The same three fields that ours has."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.total = 0
        self.label = "a benchmark's counter"

    def add(self, by: int) -> int:
        """A change."""
        self.count += 1
        self.total += by
        return self.total

    def value(self) -> int:
        """A read."""
        return self.total


@asynccontextmanager
async def opened(_: Place) -> AsyncIterator[Parts]:
    @cache  # the application has to keep one actor for a name
    def proxy(_: str) -> Any:
        return CounterActor.start().proxy()

    def increment(key: str) -> Step:
        add = proxy(key).add
        return lambda: add(1).get()

    def value(key: str) -> Step:
        read = proxy(key).value
        return lambda: read().get()

    try:
        yield [Counters(increment, value, blocking=True)]
    finally:
        pykka.ActorRegistry.stop_all()
