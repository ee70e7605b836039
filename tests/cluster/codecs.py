"""Codecs of handlers, without a runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from trio_durable import DurableObject, ObjectKey, handler
from trio_durable._activations.object_type import ObjectType
from trio_durable._api.durable_object import definition_of
from trio_durable._api.registry import object_type_of
from trio_durable._cluster.call_codec import CallCodec, HandlerCodec
from trio_durable._cluster.handles import Reference

KEY = ObjectKey("Cart", "user-123")


def key() -> ObjectKey:
    return KEY


class NoHandles:
    """The handles of a program that has none."""

    def is_durable(self, tp: object) -> bool:
        return False

    def reference(self, value: object) -> Reference | None:
        return None

    def handle(self, type_name: str, address: str, timeout: float | None) -> object:
        raise NotImplementedError


def object_type(cls: type[DurableObject], **options: Any) -> ObjectType:
    return object_type_of(definition_of(cls), **options)


def codec_of(cls: type[DurableObject], name: str = "work", **options: Any) -> HandlerCodec:
    """The codec of a class's handler."""
    return CallCodec(object_type(cls), NoHandles(), **options).handler(name)


def with_handler(function: Callable[..., Any]) -> type[DurableObject]:
    """A class whose handler ``work`` is a function."""
    body = {"work": handler(function), "__module__": function.__module__}
    return type("Cart", (DurableObject,), body)


def echo(annotation: Any) -> type[DurableObject]:
    """A class whose handler takes a value of a type, and returns one."""

    def work(self: Any, value: Any) -> Any:
        return value

    work.__annotations__ = {"value": annotation, "return": annotation}
    return with_handler(work)


def crossed(codec: HandlerCodec, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], Any]:
    """The arguments as another process gets them."""
    return codec.decode_arguments(key, orjson.loads(codec.encode_arguments(key, args, kwargs)))


def replied(codec: HandlerCodec, result: Any) -> Any:
    """The result as another process gets it."""
    return codec.decode_reply(lambda: KEY, orjson.loads(codec.encode_reply(KEY, result)))
