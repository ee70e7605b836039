"""Workers of real web servers share the objects of one storage, with the app of the how-to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from cli.support import ROOT, environment
from documentation.page import files
from documentation.server import free_port
from support.postgres import url_of, wait_until

from trio_durable.storage.postgres._shard_function import shard_of

ALL = os.environ.get("TRIO_DURABLE_WEB_SERVERS") == "all"
_GUNICORN = ("gunicorn", "visits:app", "--workers", "2")
_USUAL = {
    "uvicorn": ("uvicorn", "visits:app", "--workers", "2", "--port"),
    "hypercorn-asyncio": ("hypercorn", "visits:app", "--workers", "2", "--bind"),
    "hypercorn-trio": (
        *("hypercorn", "visits:app", "--workers", "2", "--worker-class", "trio", "--bind"),
    ),
}
_OTHERS = {
    "gunicorn": (*_GUNICORN, "--worker-class", "asgi", "--bind"),
    "gunicorn-preload": (*_GUNICORN, "--preload", "--worker-class", "asgi", "--bind"),
    "gunicorn-uvicorn": (*_GUNICORN, "--worker-class", "uvicorn_worker.UvicornWorker", "--bind"),
    "granian": (
        *("granian", "visits:app", "--interface", "asgi", "--workers", "2"),
        *("--respawn-failed-workers", "--port"),
    ),
}
SERVERS = {**_USUAL, **_OTHERS}
ON_A_FILE = SERVERS if ALL else _USUAL
# uvicorn starts its workers by `spawn`; gunicorn forks them, here from a process that has imported
# the app.
ON_A_DATABASE = SERVERS if ALL else ["uvicorn", "gunicorn-preload"]
SECONDS = 60.0
_OWNERS = """
SELECT shard, pid FROM durable_shards JOIN durable_nodes ON node_id = owner
"""


@contextmanager
def serving(folder: Path, module: str, *arguments: str) -> Iterator[str]:
    port = free_port()
    place = str(port) if arguments[-1] == "--port" else f"127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, place],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        process.wait(SECONDS)
    finally:
        with_children = os.getpgid(process.pid) if process.poll() is None else None
        if with_children is not None:
            os.killpg(with_children, signal.SIGKILL)


def visit(url: str) -> dict[str, int]:
    """A visit, as soon as a worker serves it. A connection of its own may reach another worker."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            answer = httpx.get(f"{url}/a", timeout=SECONDS)
            answer.raise_for_status()
        except httpx.TransportError:
            assert time.monotonic() < until
            time.sleep(0.02)
        else:
            found: dict[str, int] = answer.json()
            return found


@pytest.mark.parametrize("server", ON_A_FILE)
def test_workers_share_the_objects(server: str, tmp_path: Path) -> None:
    program = files(ROOT / "docs" / "howto" / "workers.md")["visits.py"]
    (tmp_path / "visits.py").write_text(program)
    with serving(tmp_path, *SERVERS[server]) as url:
        count, workers = 0, set[int]()
        while len(workers) < 2:
            answer = visit(url)
            count += 1
            assert answer["visits"] == count
            workers.add(answer["worker"])
            assert count < 5000, "a worker never got a connection"
        owner = json.loads((tmp_path / "visits.db-node").read_text())["pid"]
        assert owner in workers
        if not server.startswith("hypercorn"):  # which ends when a worker of it is killed
            kill(owner, url, count)


@pytest.mark.parametrize("server", ON_A_DATABASE)
def test_workers_share_the_objects_of_a_database(
    server: str, tmp_path: Path, postgres: str
) -> None:
    """Each of them has some of the objects."""
    program = files(ROOT / "docs" / "howto" / "workers.md")["visits.py"]
    changed = program.replace('"visits.db"', repr(url_of(postgres)))
    assert changed != program
    (tmp_path / "visits.py").write_text(changed)
    with serving(tmp_path, *SERVERS[server]) as url:
        count, workers = 0, set[int]()
        while len(workers) < 2:
            answer = visit(url)
            count += 1
            assert answer["visits"] == count
            workers.add(answer["worker"])
            assert count < 5000, "a worker never got a connection"
        with psycopg.connect(postgres, autocommit=True) as admin:
            wait_until(lambda: {pid for _, pid in admin.execute(_OWNERS)} == workers)
            owners: dict[int, int] = dict(admin.execute(_OWNERS).fetchall())
        if not server.startswith("hypercorn"):
            kill(owners[shard_of("a", len(owners))], url, count)


def kill(worker: int, url: str, count: int) -> None:
    """Kill a worker, and go on without it."""
    os.kill(worker, signal.SIGKILL)
    for _ in range(20):
        answer = visit(url)
        count += 1
        assert answer["visits"] == count
        assert answer["worker"] != worker
