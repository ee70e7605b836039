"""Lines of an export for messages, dead letters and once-keys, without their kind.

A message keeps its number, by which the order of a lane is checked, and its token, which is its id.
"""

from __future__ import annotations

from typing import Any

from ..._keys import ObjectKey
from ..._messages.message import message_id, token_of
from ...storage import DeadMessage, MessageKey, OnceKey, OnceReply, StoredMessage
from ..storage.formatting import key_members
from .fields import (
    check_members,
    decode_bytes,
    decode_count,
    decode_instant,
    decode_key,
    decode_name,
    encode_bytes,
    encode_instant,
    member_forms,
)

_REQUIRED = {
    *("kind", "type", "id", "lane", "number", "message", "handler", "sent_at", "wake_at"),
    *("failures", "crashes", "hops", "sender", "reply_to", "failed_to", "sender_key", "once_key"),
    "last_error",
}
_OPTIONAL = {"tenant"}


def encode_message(message: StoredMessage) -> dict[str, Any]:
    """The members of a message."""
    to, sender = message.key.to, message.sender
    return {
        **key_members(to),
        "lane": message.key.lane,
        "number": message.key.seq,
        "message": message_id(message.key.token),
        "handler": message.handler,
        "sent_at": encode_instant(to, message.sent_at),
        "wake_at": None if message.wake_at is None else encode_instant(to, message.wake_at),
        "failures": message.failures,
        "crashes": message.crashes,
        "hops": message.hops,
        "sender": None if sender is None else [sender.type_name, sender.object_id],
        "reply_to": message.reply_to,
        "failed_to": message.failed_to,
        "sender_key": message.sender_key,
        "once_key": message.once_key,
        "last_error": message.last_error,
        **encode_bytes("arguments", message.arguments, object),
    }


def decode_message(data: dict[str, Any]) -> StoredMessage:
    """The message of a line.

    Raises:
        ValueError: The line is invalid.
    """
    check_members(data, _REQUIRED, _OPTIONAL | member_forms("arguments"))
    return _message(data)


def encode_dead_message(dead: DeadMessage) -> dict[str, Any]:
    """The members of a dead letter."""
    message = dead.message
    return {
        **encode_message(message),
        "died_at": encode_instant(message.key.to, dead.died_at),
        "is_overtaken": dead.is_overtaken,
    }


def decode_dead_message(data: dict[str, Any]) -> DeadMessage:
    """The dead letter of a line.

    Raises:
        ValueError: The line is invalid.
    """
    own = {"died_at", "is_overtaken"}
    check_members(data, _REQUIRED | own, _OPTIONAL | member_forms("arguments"))
    if not isinstance(data["is_overtaken"], bool):
        raise ValueError("is_overtaken must be true or false")
    return DeadMessage(_message(data), decode_instant(data, "died_at"), data["is_overtaken"])


def encode_once(once: OnceReply) -> dict[str, Any]:
    """The members of a once-key."""
    return {
        **key_members(once.key.to),
        "key": once.key.key,
        "handler": once.handler,
        "digest": once.digest,
        "signature": once.signature,
        "expires_at": encode_instant(once.key.to, once.expires_at),
        "message": None if once.token is None else message_id(once.token),
        **({} if once.reply is None else encode_bytes("reply", once.reply, object)),
    }


def decode_once(data: dict[str, Any]) -> OnceReply:
    """The once-key of a line.

    Raises:
        ValueError: The line is invalid.
    """
    check_members(
        data,
        {"kind", "type", "id", "key", "handler", "digest", "signature", "expires_at", "message"},
        _OPTIONAL | member_forms("reply"),
    )
    return OnceReply(
        OnceKey(decode_key(data), decode_name(data, "key")),
        decode_name(data, "handler"),
        _text(data, "digest"),
        _text(data, "signature"),
        decode_bytes(data, "reply", object),
        decode_instant(data, "expires_at"),
        None if data["message"] is None else _token(data),
    )


def _message(data: dict[str, Any]) -> StoredMessage:
    to = decode_key(data)
    arguments = decode_bytes(data, "arguments", object)
    if arguments is None:
        raise ValueError("arguments is missing")
    try:
        arguments.decode()  # storages require UTF-8
    except UnicodeDecodeError:
        raise ValueError("arguments_base64 is not UTF-8 text") from None
    return StoredMessage(
        MessageKey(to, _text(data, "lane"), decode_count(data, "number"), _token(data)),
        decode_name(data, "handler"),
        arguments,
        decode_instant(data, "sent_at"),
        None if data["wake_at"] is None else decode_instant(data, "wake_at"),
        decode_count(data, "failures"),
        decode_count(data, "crashes"),
        decode_count(data, "hops"),
        _sender(data, to.tenant),
        _optional_name(data, "reply_to"),
        _optional_name(data, "failed_to"),
        _optional_name(data, "sender_key"),
        _optional_name(data, "once_key"),
        None if data["last_error"] is None else _text(data, "last_error"),
    )


def _token(data: dict[str, Any]) -> int:
    text = data["message"]
    token = token_of(text) if isinstance(text, str) else None
    if token is None or message_id(token) != text:
        raise ValueError(f"message is {text!r:.40}, not an id of 16 hexadecimal digits")
    return token


def _sender(data: dict[str, Any], tenant: str) -> ObjectKey | None:
    match data["sender"]:
        case None:
            return None
        case [str() as type_name, str() as object_id]:
            own = {"tenant": tenant} if tenant else {}
            return decode_key({"type": type_name, "id": object_id, **own})
        case other:
            raise ValueError(f"sender is {other!r:.40}, not null or a type and an id")


def _optional_name(data: dict[str, Any], member: str) -> str | None:
    return None if data[member] is None else decode_name(data, member)


def _text(data: dict[str, Any], member: str) -> str:
    text = data[member]
    if not isinstance(text, str) or "\0" in text:
        raise ValueError(f"{member} must be a string without NUL")
    return text
