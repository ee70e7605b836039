"""Forwarding classes: every member of the contract reaches the inner storage."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from unittest.mock import Mock

import pytest

from trio_durable.storage import (
    ForwardingReader,
    ForwardingStorage,
    ForwardingWriter,
    Reader,
    Storage,
    Writer,
)
from trio_durable.storage._maintenance import MaintainedWriter
from trio_durable.storage._message_sides import MessageReader, MessageWriter

FORWARDING: list[tuple[type, Callable[..., object]]] = [
    (Storage, ForwardingStorage),
    (Writer, ForwardingWriter),
    (MessageWriter, ForwardingWriter),
    (MaintainedWriter, ForwardingWriter),
    (Reader, ForwardingReader),
    (MessageReader, ForwardingReader),
]

MEMBERS = [
    pytest.param(contract, forwarding, name, id=f"{contract.__name__}.{name}")
    for contract, forwarding in FORWARDING
    for name in vars(contract)
    if not name.startswith("_")
]


@pytest.mark.parametrize(("contract", "forwarding", "name"), MEMBERS)
def test_every_member_is_forwarded(
    contract: type, forwarding: Callable[..., object], name: str
) -> None:
    inner = Mock(spec=contract)
    outer = forwarding(inner)
    if isinstance(vars(contract)[name], property):
        assert getattr(outer, name) is getattr(inner, name)
        return
    _, *parameters = signature(vars(contract)[name]).parameters.values()
    assert all(each.kind is Parameter.POSITIONAL_OR_KEYWORD for each in parameters)
    arguments = {each.name: object() for each in parameters}
    answer = getattr(outer, name)(**arguments)
    method = getattr(inner, name)
    method.assert_called_once_with(*arguments.values())
    if signature(vars(contract)[name]).return_annotation != "None":
        assert answer is method.return_value


def test_members_with_a_default_are_among_them() -> None:
    names = {str(param.id) for param in MEMBERS}
    defaults = {"pending_migrations", "migration_sql", "diagnose"}
    assert {f"Storage.{name}" for name in defaults} <= names
