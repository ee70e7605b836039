"""Processes of ``trio-durable serve``, and programs that use their objects."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .support import environment, python

APP = """
from trio_durable import DurableObject, handler

class Basket(DurableObject, name="served.Basket"):
    items: int = 0

    @handler
    async def add(self) -> int:
        self.items += 1
        return self.items

    @handler
    async def remind(self) -> None:
        self.ctx.schedule_alarm("reminder", after=86_400)
"""
_CALL = """
import sys, anyio, shop
from trio_durable import Cluster, DurableRuntime

async def main():
    async with DurableRuntime(sys.argv[1], cluster=Cluster(serve=False)) as runtime:
        print(await getattr(runtime.get(shop.Basket, sys.argv[2]), sys.argv[3])())

anyio.run(main, backend="asyncio")
"""
_PATIENCE = 20.0


def called(folder: Path, storage: str = "app.db", object_id: str = "a", name: str = "add") -> str:
    """The output of a program that calls a basket."""
    done = python("-c", _CALL, storage, object_id, name, cwd=folder)
    assert not done.returncode, done.stderr
    return done.stdout


def nodes(folder: Path, storage: str = "app.db") -> list[dict[str, Any]]:
    """The output of ``trio-durable nodes``."""
    done = python("-m", "trio_durable", "nodes", storage, "--json", cwd=folder)
    assert not done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition that other processes bring about."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline


@contextmanager
def serving(
    folder: Path, *options: str, storage: str = "app.db", env: Mapping[str, str] = {}
) -> Iterator[subprocess.Popen[str]]:
    """A process that serves the app of a folder. It is killed at the end."""
    command = [sys.executable, "-m", "trio_durable", "serve", storage, "--app", "shop", *options]
    with subprocess.Popen(
        command, cwd=folder, env={**environment(), **env}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().endswith(": serving 1 type\n")
            yield process
        finally:
            process.kill()
