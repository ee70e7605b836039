"""Source: the storage and the processes that the inspector reads.

Stored data are read from the storage by a reader, whether an app runs or not. Data in memory comes
from the processes that have the objects, and changes are made there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import anyio

from .._cluster.nodes import Node
from .._keys import AlarmKey, ObjectKey
from ..storage import Reader
from ._history import TurnHistory

T = TypeVar("T")

Expected: TypeAlias = tuple[int, str]
"""The revision and the digest of the state that an edit is based on."""


class Source(ABC):
    """The app that an inspector shows."""

    history: TurnHistory | None = None
    """The latest turns; None if they aren't kept."""
    is_running: bool = True
    """False if no process has the storage open, so that nothing can be changed."""

    @property
    @abstractmethod
    def location(self) -> str:
        """The path or URL of the storage, without secrets."""

    @abstractmethod
    async def read(self, work: Callable[[Reader], T]) -> T:
        """Run ``work`` on a reader of the storage.

        Raises:
            StorageUnavailable: The storage can't be read.
        """

    async def ask(self, request: str, arguments: Sequence[object] = ()) -> list[Any]:
        """The answers of all processes that have objects to one request, see `_api.commands`."""
        return []

    async def nodes(self) -> list[Node]:
        """The processes that share the storage."""
        return []

    async def edit(self, key: ObjectKey, state: str, expected: Expected) -> None:
        """Replace the state of an object whose class is served.

        Args:
            key: The object.
            state: The new state as JSON, with the declaration of the old one.
            expected: The state that it is based on.

        Raises:
            StateConflict: Another state is stored.
            DurableError: It doesn't fit the class, or could not be made durable.
        """
        raise NotImplementedError

    async def retry_alarm(self, key: AlarmKey) -> bool:
        """Make a dead letter due at once; return False if there is none."""
        raise NotImplementedError

    async def drop_alarm(self, key: AlarmKey) -> None:
        """Remove a dead letter."""
        raise NotImplementedError

    async def retry_message(self, tenant: str, message_id: str) -> bool:
        """Let a dead message wait again; return False if there is none."""
        raise NotImplementedError

    async def drop_message(self, tenant: str, message_id: str) -> bool:
        """Remove a dead message; return False if there is none."""
        raise NotImplementedError

    async def wait(self, seconds: float) -> bool:
        """Let time pass. Returns False if the app ends, so that streams end before it."""
        await anyio.sleep(seconds)
        return True

    def tell(self, event: object) -> None:  # noqa: B027  # only an app has instruments
        """Report an event to the app's instruments."""
