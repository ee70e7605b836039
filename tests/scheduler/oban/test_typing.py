"""Programs that use the scheduler with the package, as the type checker sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("oban")

PROGRAM = """
from typing import assert_type

from oban import Oban
from trio_durable import DurableRuntime, ObanScheduler


async def main() -> None:
    pool = await Oban.create_pool("postgresql:///app")
    async with Oban(pool=pool) as instance:
        scheduler = ObanScheduler("alarms", instance, limit=10)
        async with DurableRuntime("postgresql:///app", scheduler=scheduler) as runtime:
            assert_type(runtime.node_id, str)
    ObanScheduler("alarms", "no instance")  # type: ignore[arg-type]
"""


def test_an_instance_of_the_package_is_accepted_and_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
    assert done.stdout == "Success: no issues found in 1 source file\n"
