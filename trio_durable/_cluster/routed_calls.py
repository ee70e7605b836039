"""Routed calls: the calls of a type's objects, wherever these are."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

import orjson

from .._activations.calls import LocalCalls
from .._activations.directory import Directory
from .._activations.services import Services
from .._declarations.records import HandlerDefinition
from .._errors import CallCycle
from .._keys import ObjectKey
from .call_codec import CallCodec
from .chain import encode_chain
from .places import HERE
from .router import Router, text


class RoutedCalls(LocalCalls):
    """Calls of the objects of one type, here or in another process.

    Args:
        directory: The objects in memory.
        services: The runtime's parts.
        router: The way to other processes.
        codec: The codec of the type's handlers.
    """

    def __init__(
        self, directory: Directory, services: Services, router: Router, codec: CallCodec
    ) -> None:
        super().__init__(directory, services)
        self.codec = codec
        self._router = router
        self._type_name = text(self.object_type.name)
        self._call_here = self.call
        self.call = self._routed
        self.elsewhere = self._call_elsewhere

    def _routed(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
    ) -> Coroutine[Any, Any, object]:
        """See `CallPath.call`."""
        if self._router.is_here(self.directory, address):
            return self._call_here(address, handler, args, kwargs, timeout)
        calling = self._call_elsewhere(address, handler, args, kwargs, timeout)
        if self._notifier is None:
            return calling
        return self._observed(self._notifier, address, handler.name, calling, handler.expected)

    async def _call_elsewhere(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
    ) -> object:
        self._check_usable()
        target = self.directory.key(address)
        codec = self.codec.handler(handler.name)
        data = codec.encode_arguments(lambda: target, args, kwargs)
        subject = b'"h",%b,%b,%b,%b' % (
            self._type_name,
            text(address),
            text(handler.name),
            data,
        )
        caller = self._services.wait_graph.caller()
        carrier = {} if self._notifier is None else self._notifier.inject()
        if caller is not None or carrier:
            chain: Sequence[ObjectKey] = ()
            if caller is not None:
                chain = self._services.wait_graph.chain(caller)
            if target in chain:
                raise CallCycle(target, handler.name, (chain[0], target))
            subject += b",%b,%b" % (orjson.dumps(encode_chain(chain)), orjson.dumps(carrier))
        repeatable = handler.readonly and not handler.is_async
        until = None if timeout is None else self._loop.now() + timeout
        reply = await self._router.forward(
            lambda: target, handler.name, subject, timeout, repeatable=repeatable
        )
        if reply is HERE:
            if until is not None:
                timeout = max(until - self._loop.now(), 0.0)
            return await self._call_here(address, handler, args, kwargs, timeout)
        return codec.decode_reply(target, reply)
