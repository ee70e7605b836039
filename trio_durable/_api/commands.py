"""Requests of commands: calls with plain JSON, and the present work of a process.

Commands have no classes. Arguments and replies are the JSON of the handlers' annotations, the one
that crosses between the processes of a cluster, without its declarations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import anyio
import attrs
import orjson

from .._activations.object_type import ObjectType
from .._activations.services import Busy
from .._cluster.call_codec import HandlerCodec
from .._cluster.handles import HandleForms
from .._cluster.parameters import handler_forms
from .._cluster.settings import DEFAULT_MAX_FRAME
from .._declarations.records import HandlerDefinition
from .._durations import optional_seconds
from .._keys import ObjectKey
from .._runtime.open_runtime import OpenRuntime
from .._runtime.sharing import FRAME_MARGIN
from .durable_object import DurableObject
from .editing import edit_state
from .objects import Objects
from .registry import TypeRegistry
from .statistics import RuntimeStatistics
from .watch import Watch

CALL = "call_as_command"
"""A request of the process that has an object: type, id, tenant, handler, keyword arguments,
once-key or None, timeout or None. Its answer is the reply."""
EDIT = "edit_state"
"""A request of the process that has an object: type, id, tenant, the new state with its
declaration, and the revision and digest of the one that is expected. See `edit_state`."""
STATISTICS = "statistics"
"""A request of any process. See `RuntimeStatistics`."""
TURNS = "turns"
"""A request of any process: its busy objects, each with the object or call that its turn awaits."""
WATCH = "watch_as_command"
"""A request of the process that has an object: type, id, tenant, the version that was seen or None,
seconds. Its answer comes with the next version, at the end of these seconds, or when the runtime
closes: `[CHANGED, version, revision, stored text or null]`, `[SAME]` or `[ENDED]`."""
CHANGED, SAME, ENDED = "changed", "same", "ended"
WAITS = "waits"
"""A request of any process: the objects whose turns wait for others. See `WaitGraph.waits`."""
TYPES = "types"
"""A request of any process: the stored names of the types that it serves."""
ACTIVATION = "activation"
"""A request of any process: type, id, tenant. Its answer describes the object in memory, or is
None."""

_MAX_WATCH_SECONDS = 30.0
"""How long a request of a command that is gone may take."""


class CommandRequests:
    """The requests that commands make of one runtime.

    Args:
        opened: The runtime's parts.
        registry: The types.
        statistics: Counts the runtime's work.
    """

    def __init__(
        self,
        opened: OpenRuntime,
        registry: TypeRegistry,
        statistics: Callable[[], RuntimeStatistics],
    ) -> None:
        self._opened = opened
        self._registry = registry
        self._statistics = statistics
        self._codecs: dict[tuple[ObjectType, str], HandlerCodec] = {}

    async def call(self, arguments: list[Any]) -> bytes:
        """Make the call of a `CALL`, and return its reply as JSON.

        Raises:
            ArgumentError: The JSON doesn't fit the handler.
            DefinitionError: Values of the handler have no JSON.
            ValueError: The timeout isn't a duration.
            Exception: As `Objects.call` does.
        """
        type_name, object_id, tenant, name, kwargs, once, timeout = arguments
        objects = self._objects(tenant)
        calls, address = objects._locate(type_name, object_id)
        its = calls.object_type
        handler, key = its.handler(name), partial(its.key, address)
        codec = self._codec(its, handler)
        args, named = codec.decode_arguments(key, [[], kwargs])
        limit = optional_seconds(timeout, "timeout")
        limit = its.timeout if limit is None else limit
        if once is None:
            reply = await calls.call(address, handler, args, named, limit)
        else:
            reply = await objects._once(calls, address, handler, args, named, limit, once)
        [value, *_] = orjson.loads(codec.encode_reply(key(), reply))
        return orjson.dumps(value)

    async def watch(self, arguments: list[Any]) -> bytes:
        """Answer a `WATCH`. A version is the latest one: those between two requests are skipped.

        Raises:
            UnknownObjectType: The type isn't known.
            PersistenceError: The state can't be read.
        """
        type_name, object_id, tenant, seen, seconds = arguments
        objects = self._objects(tenant)
        calls, address = objects._locate(type_name, object_id)
        its = calls.object_type
        answer: list[object] = [SAME]
        with anyio.move_on_after(min(seconds, _MAX_WATCH_SECONDS)):
            watch = Watch[DurableObject](self._opened, [(its, its.key(address))])
            async with watch as snapshots:
                async for snapshot in snapshots:
                    version = version_of(snapshot.revision, snapshot.digest)
                    if version != seen:
                        answer = [CHANGED, version, snapshot.revision, snapshot.json]
                        break
                else:
                    answer = [ENDED]
        return orjson.dumps(answer)

    async def edit(self, arguments: list[Any]) -> bytes:
        """Make the edit of an `EDIT`.

        Raises:
            Exception: As `edit_state` does.
        """
        type_name, object_id, tenant, state, revision, digest = arguments
        objects = self._objects(tenant)
        key = ObjectKey(type_name, object_id, tenant)
        await edit_state(objects, key, state, (revision, digest))
        return b"null"

    def _objects(self, tenant: str) -> Objects:
        return cast("Objects", self._opened.services.runtime_of(tenant))

    def _codec(self, object_type: ObjectType, handler: HandlerDefinition) -> HandlerCodec:
        codec = self._codecs.get((object_type, handler.name))
        if codec is None:
            forms = HandleForms(object_type.forms, self._registry).forms
            codec = self._codecs[object_type, handler.name] = HandlerCodec(
                handler.name,
                *handler_forms(object_type, forms, handler),
                DEFAULT_MAX_FRAME - FRAME_MARGIN,
            )
        return codec

    def of_process(self, name: str, arguments: Sequence[Any] = ()) -> bytes | None:
        """The answer to a request of the process itself; None if it is another one."""
        if name == STATISTICS:
            counted = attrs.asdict(self._statistics(), filter=_is_counter)
            return orjson.dumps({"node": self._opened.node_id, "pid": os.getpid(), **counted})
        if name == TURNS:
            turns = [_turn(each) for each in list(self._opened.services.busy)]
            return orjson.dumps([turn for turn in turns if turn is not None])
        if name == WAITS:
            return orjson.dumps(
                [
                    {"waiting": _named(waiting), "handler": handler, "for": _named(other)}
                    for waiting, handler, other in self._opened.services.wait_graph.waits()
                ]
            )
        if name == TYPES:
            return orjson.dumps(sorted(self._registry.schemas()))
        if name == ACTIVATION:
            return orjson.dumps(self._activation(ObjectKey(*arguments)))
        return None

    def _activation(self, key: ObjectKey) -> dict[str, Any] | None:
        for directory in self._opened.directories:
            found = directory.find(key.address)
            if directory.object_type.name == key.type_name and found is not None:
                info = found.info()
                return {
                    "node": self._opened.node_id,
                    "pid": os.getpid(),
                    "status": info.status,
                    "waiting": info.mailbox_depth,
                    "revision": info.revision,
                }
        return None


def _named(key: ObjectKey) -> dict[str, str]:
    return {"type": key.type_name, "id": key.object_id, "tenant": key.tenant}


def version_of(revision: int, digest: str | None) -> str:
    """Identifies a stored state. An object that was deleted may get the same revision again."""
    return f"{revision}-{digest or ''}"


def _is_counter(field: attrs.Attribute[Any], _: object) -> bool:
    return field.name not in ("busiest", "slowest")


def _turn(busy: Busy) -> dict[str, Any] | None:
    info = busy.busy_info()
    if info is None:
        return None
    return {
        **_named(info.key),
        "doing": info.doing,
        "seconds": info.seconds,
        "waiting": info.waiting,
        "cancelled": info.cancelled,
        "awaits": [attrs.asdict(frame) for frame in busy.awaited()],
    }
