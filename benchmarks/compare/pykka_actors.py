"""pykka: an actor for each counter, each with a thread of its own, in memory only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pykka

from .contender import Contender, Counters, Step


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


class _Actors(Counters):
    blocking = True

    def __init__(self) -> None:
        self._proxies: dict[str, Any] = {}

    def increment(self, key: str) -> Step:
        add = self._proxy(key).add
        return lambda: add(1).get()

    def value(self, key: str) -> Step:
        value = self._proxy(key).value
        return lambda: value().get()

    def _proxy(self, key: str) -> Any:
        # The application has to see to it that there is one actor for a name.
        if key not in self._proxies:
            self._proxies[key] = CounterActor.start().proxy()
        return self._proxies[key]


class Pykka(Contender):
    """Threading actors."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Actors]:
        try:
            yield _Actors()
        finally:
            pykka.ActorRegistry.stop_all()
