"""Tests of once-keys whose outcome the storage decides, repeated with PostgreSQL on one loop."""

from __future__ import annotations

import pytest
from support.storages import anyio_backend, put_on_postgres

from . import test_once
from .test_once import runtime, storage

__all__ = ["anyio_backend", "runtime", "storage"]  # fixtures of the tests

pytestmark = pytest.mark.anyio

_TESTS = {
    name: getattr(test_once, name)
    for name in (
        "test_a_repeated_call_has_one_effect_and_the_first_reply",
        "test_look_ups_of_calls_at_the_same_time_are_one_read",
        "test_the_key_belongs_to_one_handler_with_its_arguments",
        "test_a_turn_that_raises_stores_nothing",
        "test_the_key_survives_its_object",
        "test_a_commit_of_unknown_outcome_is_looked_up",
        "test_a_key_that_was_recorded_behind_the_look_is_found_by_the_next",
        "test_a_message_that_is_sent_again_with_its_key_is_the_same",
        "test_a_call_with_the_key_of_a_message_gets_its_result",
        "test_a_call_with_the_key_of_a_dead_letter_says_so",
        "test_a_failed_commit_of_a_message_with_a_key_is_made_again",
    )
}
globals().update(_TESTS)


@pytest.fixture(autouse=True)
def on_postgres(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_postgres(monkeypatch, test_once, postgres)
