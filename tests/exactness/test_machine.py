"""The state machine on SQLite, and on PostgreSQL as well."""

from __future__ import annotations

import logging

import pytest
from hypothesis.stateful import run_state_machine_as_test
from support.postgres import Database, url_of

from .machine import Machine
from .profile import examples


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("trio_durable"), "disabled", True)


def test_histories_on_sqlite() -> None:
    run_state_machine_as_test(Machine, settings=examples(40, stateful_step_count=12))


def test_histories_on_postgresql(postgres_database: Database) -> None:
    """Every other storage is one on the server."""

    class OnPostgres(Machine):
        def new_place(self) -> str:
            path = super().new_place()
            return path if self._places % 2 else url_of(postgres_database.new_schema())

    try:
        run_state_machine_as_test(OnPostgres, settings=examples(8, stateful_step_count=12))
    finally:
        postgres_database.clear()
