"""The timing wheel passes the suite for schedulers."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_durable.scheduler import Scheduler, WheelScheduler
from trio_durable.storage import SQLiteStorage, Storage
from trio_durable.testing.scheduler_conformance import SchedulerConformance, SchedulerParts


class TestWheelScheduler(SchedulerConformance):
    def make_scheduler(self, parts: SchedulerParts) -> Scheduler:
        return WheelScheduler(
            parts.loop,
            parts.clock,
            parts.group_commit,
            parts.runner,
            parts.reader,
            parts.destination,
            polling_interval=self.polling_interval,
            claim_ttl=self.claim_ttl,
        )


class TestWheelSchedulerOnSQLite(TestWheelScheduler):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return SQLiteStorage(tmp_path / "objects.db", durability="normal")
