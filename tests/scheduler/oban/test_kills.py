"""Processes that run jobs are killed again and again: each alarm has its effect, once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from support.job_storage import schema_of
from support.oban_tables import install_tables
from support.postgres import url_of, wait_until

from .killed_child import Tally, runtime

pytest.importorskip("oban")

KILLS = int(os.environ.get("TRIO_DURABLE_KILLS", "2"))
ALARMS = int(os.environ.get("TRIO_DURABLE_OBAN_ALARMS", str(100 * KILLS)))
SPAN = float(os.environ.get("TRIO_DURABLE_OBAN_SPAN", "1"))
"""Seconds between two kills."""
PREPARATION = 3.0 + ALARMS / 500
"""Seconds in which alarms are set and processes start."""
SETTLED_WITHIN = 60.0
"""Seconds after the last kill, on a machine that does much else. The test says how long it took."""

_CHILD = Path(__file__).with_name("killed_child.py")
_LEFT = b"SELECT count(*) FROM oban_jobs WHERE state NOT IN ('completed')"
_RINGS = b"SELECT state::jsonb->>'rings', count(*) FROM durable_objects GROUP BY 1"


class Child:
    """A process of the cluster."""

    def __init__(self, conninfo: str, prefix: str) -> None:
        command = [sys.executable, str(_CHILD), conninfo, prefix]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._prefix = prefix

    def opened(self) -> None:
        """Return when it is open."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"open\n"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


async def set_alarms(conninfo: str, prefix: str) -> float:
    """Set alarms for all the time in which processes are killed; return when that begins.

    They are due from then on until the last kill, so a process that is killed always handles some.
    """
    async with runtime(conninfo, prefix) as it, asyncio.TaskGroup() as tasks:
        first = time.time() + PREPARATION
        for n in range(ALARMS):
            after = first - time.time() + random.uniform(0, SPAN * KILLS)
            tasks.create_task(it.schedule_alarm(Tally, str(n), "ring", after=after))
    return first


def test_alarms_of_killed_processes_have_their_effects_once(postgres: str) -> None:
    install_tables(postgres)
    conninfo, prefix = url_of(postgres), schema_of(postgres)
    first = asyncio.run(set_alarms(conninfo, prefix))
    children = [Child(conninfo, prefix) for _ in range(2)]
    try:
        for child in children:
            child.opened()
        for number in range(KILLS):
            time.sleep(max(0.0, first + (number + 1) * SPAN - time.time()))
            victim = children.pop(0)
            victim.kill()
            killed_at = time.monotonic()
            children.append(Child(conninfo, prefix))
        with psycopg.connect(postgres, autocommit=True) as admin:
            wait_until(
                lambda: admin.execute(_LEFT).fetchone() == (0,), timeout=SETTLED_WITHIN + SPAN
            )
            took = time.monotonic() - killed_at
            found: Counter[str] = Counter(dict(admin.execute(_RINGS).fetchall()))
    finally:
        for child in children:
            child.kill()
    print(f"{ALARMS} alarms, {KILLS} kills; settled {took:.1f} s after the last")  # noqa: T201
    assert found == {"1": ALARMS}
