"""A sample of the faults, the same each time; `make inject` tries all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .campaign import actions, backends
from .situations import SITUATIONS

ROOT = Path(__file__).parents[2]
EVERY = {"trio": 307, "asyncio": 307, "uvloop": 599, "eager": 307}


@pytest.mark.parametrize("backend", ["trio", "asyncio", "uvloop", "eager"])
def test_a_fault_on_a_line_is_the_fault_of_one_request(backend: str) -> None:
    if backend not in backends():
        pytest.skip("needs Python 3.12" if backend == "eager" else f"needs {backend}")
    # In a process without threads, which can be forked.
    command = ["tests.injection", "--backend", backend, "--every", str(EVERY[backend])]
    run = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "nothing was wrong" in run.stdout


def test_every_backend_has_every_fault_that_it_can_have() -> None:
    assert {"exception", "memory", "exit", "cancel"} <= set(actions("trio"))
    assert "reenter" in actions("eager")
    assert len(SITUATIONS) == 8
