"""``trio-durable serve`` and ``nodes``, in processes of their own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .support import environment

APP = """
from trio_durable import DurableObject, handler

class Basket(DurableObject, name="served.Basket"):
    items: int = 0

    @handler
    async def add(self) -> int:
        self.items += 1
        return self.items
"""
CALL = """
import anyio, shop
from trio_durable import Cluster, DurableRuntime

async def main():
    async with DurableRuntime("app.db", cluster=Cluster(serve=False)) as runtime:
        print(await runtime.get(shop.Basket, "a").add())

anyio.run(main, backend="asyncio")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "trio_durable", "serve", "app.db", "--app", "shop", *options]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{folder / 'app.db'}: serving 1 type\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_it_serves_until_it_is_told_to_end(folder: Path, backend: str) -> None:
    ready, live = folder / "ready", folder / "live"
    options = ("--backend", backend, "--ready", str(ready), "--live", f"unix://{live}")
    with serving(folder, *options) as process:
        assert ready.is_file()
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(live))
            assert probe.recv(1) == b""
        assert run(folder, "-c", CALL).stdout == "1\n"
        listed = run(folder, "-m", "trio_durable", "nodes", "app.db", "--json")
        node = json.loads(listed.stdout)
        assert (node["pid"], node["shards"], node["serves"]) == (process.pid, 1, True)
        table = run(folder, "-m", "trio_durable", "nodes", "app.db")
        assert str(process.pid) in table.stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not ready.exists()
    assert not live.exists()
    refused = run(folder, "-m", "trio_durable", "nodes", "app.db")
    assert refused.returncode == 2
    assert "no process serves it (there is no app.db-node)" in refused.stderr


def test_another_one_takes_over_at_a_kill(folder: Path) -> None:
    with serving(folder) as first, serving(folder) as second:
        assert run(folder, "-c", CALL).stdout == "1\n"
        first.kill()
        first.wait(30)
        assert run(folder, "-c", CALL).stdout == "2\n"
        second.send_signal(signal.SIGINT)
        assert second.wait(30) == 0


def test_an_app_without_objects_is_refused(folder: Path) -> None:
    (folder / "empty.py").write_text("")
    done = run(folder, "-m", "trio_durable", "serve", "app.db", "--app", "empty")
    assert done.returncode == 2
    assert "--app has no durable object" in done.stderr
    assert not (folder / "app.db").exists()
