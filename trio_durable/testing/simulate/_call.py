"""Calls of handlers, which make up the steps of a simulation."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

from ..._api.durable_object import DurableObject
from ._source import source_of


class Call:
    """A call of a handler in a step, and its outcome.

    Args:
        object_type: The class.
        object_id: The object's id.
        handler: The handler's name.
        *args: The handler's positional arguments.
        **kwargs: The handler's keyword arguments.
    """

    def __init__(
        self,
        object_type: type[DurableObject],
        object_id: str,
        handler: str,
        /,
        *args: object,
        **kwargs: object,
    ) -> None:
        self.object_type = object_type
        self.tenant = ""
        """The object's tenant; "" for none."""
        self.object_id = object_id
        self.handler = handler
        self.args = args
        self.kwargs = kwargs
        self.has_ended = False
        """True once the caller has its outcome; it stays False if the process dies first."""
        self.result: Any = None
        self.error: Exception | None = None
        """The error that it raised, instead of a result."""

    def of_tenant(self, name: str) -> Self:
        """The same call of the object with this id in a tenant."""
        new = copy(self)
        new.tenant = name
        return new

    def __repr__(self) -> str:
        of_tenant = f".of_tenant({self.tenant!r})" if self.tenant else ""
        return f"Call({', '.join(self.told())}){of_tenant}"

    def told(self) -> list[str]:
        """The source of its arguments, in order."""
        named = [f"{name}={source_of(value)}" for name, value in self.kwargs.items()]
        addressed = [self.object_type.__name__, repr(self.object_id), repr(self.handler)]
        return [*addressed, *map(source_of, self.args), *named]
