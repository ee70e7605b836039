"""Tests of messages, repeated with PostgreSQL on one of the two loops."""

from __future__ import annotations

import inspect

import pytest
from support.storages import anyio_backend, put_on_postgres

from trio_durable.storage.postgres import PostgresStorage

from . import test_bank, test_messages
from .test_bank import FaultyStorage
from .test_messages import nothing_seen, runtime

__all__ = ["anyio_backend", "nothing_seen", "runtime"]  # fixtures of the tests

pytestmark = pytest.mark.anyio

_WITHOUT_STORAGE = {
    "test_a_turn_sends_a_thousand_messages_and_no_more",
    "test_nothing_is_sent_outside_of_a_turn",
    "test_what_can_not_be_sent_is_refused_by_name",
}
"""Tests of what is refused before the storage gets it."""
_TESTS = {
    name: function
    for name, function in vars(test_messages).items()
    if name.startswith("test_")
    and inspect.iscoroutinefunction(function)
    and name not in _WITHOUT_STORAGE
}
globals().update(_TESTS)


@pytest.fixture(autouse=True)
def on_postgres(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_postgres(monkeypatch, test_messages, postgres)
    monkeypatch.setattr(FaultyStorage, "backing", lambda: PostgresStorage(postgres))


def test_there_are_some() -> None:
    assert len(_TESTS) >= 15


async def test_each_transfer_happens_once_and_in_order() -> None:
    await test_bank.test_each_transfer_happens_once_and_in_order(0)
