"""A runtime whose rows can be read and written between calls, and classes of drawn fields."""

from __future__ import annotations

import itertools
import types
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs

from trio_durable import (
    DefinitionError,
    DurableError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    ObjectKey,
    StateDecodeError,
    StateEncodeError,
    definition_of,
)
from trio_durable.storage import Commit, ForwardingStorage, Reader, Storage, Writer, new_epoch

REFUSALS = (DefinitionError, StateEncodeError, StateDecodeError)
"""Errors that refuse a definition, a write or a read."""

_numbers = itertools.count()


class OpenStorage(ForwardingStorage):
    """A storage whose sides a test can use as well, between the calls of a runtime."""

    writer: Writer
    reader: Reader

    def open_writer(self) -> Writer:
        self.writer = super().open_writer()
        return self.writer

    def open_reader(self) -> Reader:
        self.reader = super().open_reader()
        return self.reader


@attrs.define
class Workbench:
    """A runtime and the rows below it."""

    runtime: DurableRuntime
    storage: OpenStorage

    async def store(self, instance: DurableObject, object_id: str = "a") -> None:
        """Store an object's state, and let the object leave memory."""
        cls = type(instance)
        await self.runtime.put_state(cls, object_id, instance)
        await self.runtime.stop(cls, object_id)

    async def load(self, cls: type[DurableObject], object_id: str = "a") -> Any:
        """The state of an object that is loaded for it."""
        await self.runtime.stop(cls, object_id)
        await self.runtime.ensure_started(cls, object_id)
        return await self.runtime.get_state(cls, object_id)

    def row(self, cls: type[DurableObject], object_id: str = "a") -> bytes | None:
        """The stored JSON of an object."""
        [stored] = self.storage.reader.load([key_of(cls, object_id)])
        return None if stored is None else stored.state

    def put_row(self, cls: type[DurableObject], row: bytes, object_id: str = "a") -> None:
        """Store the JSON of an object that isn't in memory."""
        key = key_of(cls, object_id)
        [stored] = self.storage.reader.load([key])
        commit = Commit(key, 0, row, epoch=new_epoch())
        if stored is not None:
            commit = Commit(key, stored.revision, row, epoch=stored.epoch)
        assert not self.storage.writer.commit([commit], 0)


@asynccontextmanager
async def workbench(
    storage: Storage | None = None, *classes: type[DurableObject], **options: Any
) -> AsyncIterator[Workbench]:
    """A runtime over ``storage``, in the event loop's thread; without one, in memory.

    Args:
        storage: The storage.
        classes: The classes to serve; none for all.
        options: Arguments of `DurableRuntime`.
    """
    opened = OpenStorage(storage or MemoryStorage())
    objects = classes or None
    runtime = DurableRuntime(opened, objects=objects, runner=InlineRunner, **options)
    try:
        async with runtime:
            yield Workbench(runtime, opened)
    except BaseExceptionGroup as group:
        raise single(group) from None


def single(error: BaseException) -> BaseException:
    """The only error of a group, and of the groups in it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def key_of(cls: type[DurableObject], object_id: str) -> ObjectKey:
    return ObjectKey(definition_of(cls).name, object_id)


def durable(
    fields: Mapping[str, tuple[Any, Callable[[], object]]],
    *,
    name: str = "",
    members: Mapping[str, Any] = types.MappingProxyType({}),
    bases: tuple[type, ...] = (DurableObject,),
    **keywords: Any,
) -> type[DurableObject]:
    """A durable object class.

    Args:
        fields: The annotation of each field, and a function that makes its default.
        name: The stored name; a new one unless given.
        members: Methods, and what else stands in the class body.
        bases: Its bases.
        keywords: Class keywords.

    Raises:
        DefinitionError: The class statement was refused.
    """
    body: dict[str, Any] = {
        **members,
        **{field: attrs.field(factory=default) for field, (_, default) in fields.items()},
        "__annotations__": {field: annotation for field, (annotation, _) in fields.items()},
        "__module__": __name__,
    }
    name = name or f"Drawn{next(_numbers)}"
    return types.new_class("Drawn", bases, {"name": name, **keywords}, lambda ns: ns.update(body))


def made(cls: type[DurableObject], **values: object) -> Any:
    """An instance of a class that type checkers can't know."""
    make: Callable[..., DurableObject] = cls
    return make(**values)


def is_refusal(error: BaseException) -> bool:
    """True if ``error`` is one of the library's own, which every refusal has to be."""
    return isinstance(single(error), DurableError)
