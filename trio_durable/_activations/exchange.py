"""Exchange: the passing of arguments and results by value, where objects may be elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from .._keys import ObjectKey


class Replies(Protocol):
    """Passes the results of handlers by value."""

    def result(self, key: ObjectKey, handler: str, result: object) -> object:
        """The result of a call.

        Raises:
            ReplyError: It could not be sent.
        """
        ...


class Exchange(Replies, Protocol):
    """Passes arguments and results by value as another process would get them."""

    @property
    def bare(self) -> Collection[str]:
        """The names of the handlers that may be called without arguments."""
        ...

    def passes(self, handler: str, result: object) -> bool:
        """True if `result` would return the same object, which is decided at once. Else it may."""
        ...

    def arguments(
        self,
        key: Callable[[], ObjectKey],
        handler: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """The arguments of a call.

        Raises:
            ArgumentError: They could not be sent.
        """
        ...
