"""Exchange: the passing of arguments and results by value, where objects may be elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


class Fitting(Protocol):
    """Tells at once, for one handler, which values are passed as they are. Others may be, too."""

    def takes(self, args: tuple[object, ...]) -> bool:
        """True if `Exchange.arguments` would return ``args``, without keyword arguments."""
        ...

    def passes(self, result: object) -> bool:
        """True if `Exchange.result` would return the same object."""
        ...


class Exchange(Replies, Protocol):
    """Passes arguments and results by value as another process would get them."""

    @property
    def fitting(self) -> Mapping[str, Fitting]:
        """The handlers by their names."""
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
