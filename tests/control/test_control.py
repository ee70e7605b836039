"""The socket of a runtime that is in no cluster, over which commands reach it."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from trio_durable import (
    Cluster,
    DurableObject,
    DurableRuntime,
    OwnerLost,
    StorageInUse,
    StorageUnavailable,
    handler,
)
from trio_durable._cluster import file_cluster, file_endpoint
from trio_durable._cluster.node_note import note_beside, read_note
from trio_durable._cluster.settings import Command

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(real_backend: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return real_backend


@attrs.frozen
class Point:
    x: int
    y: int


class Walk(DurableObject, name="control.Walk"):
    points: list[Point] = attrs.field(factory=list)

    @handler
    def go(self, point: Point) -> list[Point]:
        self.points.append(point)
        return self.points


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@asynccontextmanager
async def alone(path: Path, **options: Any) -> AsyncIterator[DurableRuntime]:
    """A runtime that is in no cluster, once commands can reach it."""
    async with DurableRuntime(path, objects=[Walk], **options) as runtime:
        with anyio.fail_after(20):
            while runtime.statistics().control_problem is not None:
                await anyio.sleep(0.001)
        yield runtime


def command(path: Path) -> DurableRuntime:
    return DurableRuntime(path, objects=[Walk], cluster=Command())


async def test_commands_call_the_objects_of_an_open_runtime(path: Path) -> None:
    async with alone(path) as runtime, command(path) as far:
        assert await far.get(Walk, "a").go(Point(1, 2)) == [Point(1, 2)]
        assert await runtime.get(Walk, "a").go(Point(3, 4)) == [Point(1, 2), Point(3, 4)]
        assert (await far.get_state(Walk, "a")).points == [Point(1, 2), Point(3, 4)]
        assert far.statistics().objects == 0


async def test_an_open_runtime_and_its_commands_are_listed(path: Path) -> None:
    async with alone(path) as runtime, command(path) as far:
        assert [node.node_id for node in await far.list_nodes()] == [runtime.node_id]


async def test_only_the_owner_of_the_file_can_connect(path: Path) -> None:
    async with alone(path):
        for name in ("app.db-node", "app.db-socket"):
            assert stat.S_IMODE(os.stat(path.with_name(name)).st_mode) == 0o600


async def test_nothing_of_it_stays_behind(path: Path) -> None:
    async with alone(path):
        pass
    assert not [each for each in os.listdir(path.parent) if "node" in each or "socket" in each]


async def test_runtimes_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_cluster, "ENTER_SECONDS", 0.1)
    async with alone(path):
        for cluster in (Cluster(), Cluster(serve=False)):
            with pytest.raises(StorageUnavailable) as caught:
                async with DurableRuntime(path, objects=[Walk], cluster=cluster):
                    pass
            assert "has opened it without cluster=True" in caught.value.problem


async def test_a_runtime_that_would_serve_is_refused_by_the_socket(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it can't read the note as this release does, like one of an older release."""
    monkeypatch.setattr(file_cluster, "ENTER_SECONDS", 0.1)
    async with alone(path) as runtime:
        note = read_note(note_beside(path))
        assert note is not None
        monkeypatch.setattr(file_cluster, "read_note", lambda _: attrs.evolve(note, is_shared=True))
        with pytest.raises((StorageInUse, OwnerLost)):
            async with DurableRuntime(path, objects=[Walk], cluster=True) as joined:
                await joined.get(Walk, "a").go(Point(1, 2))
        assert not await runtime.exists(Walk, "a")


async def test_the_runtime_closes_while_a_command_is_connected(path: Path) -> None:
    ended = anyio.Event()
    ready = anyio.Event()

    async def stay() -> None:
        async with command(path) as far:
            await far.get(Walk, "a").go(Point(1, 2))
            ready.set()
            await ended.wait()

    async with anyio.create_task_group() as tasks:
        async with alone(path):
            tasks.start_soon(stay)
            await ready.wait()
        ended.set()


async def test_a_path_that_is_too_long_has_no_socket(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / "app.db"
    path.parent.mkdir()
    async with DurableRuntime(path, objects=[Walk]) as runtime:
        await runtime.get(Walk, "a").go(Point(1, 2))
        with anyio.fail_after(20):
            while "just been opened" in (problem := runtime.statistics().control_problem or ""):
                await anyio.sleep(0.001)
        assert "bytes, and this system allows" in problem


async def test_a_folder_that_cannot_be_written_to_has_no_socket(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    caplog.set_level("INFO", "trio_durable")
    monkeypatch.setattr(file_endpoint, "write_note", fail)
    async with DurableRuntime(path, objects=[Walk]) as runtime:
        with anyio.fail_after(20):
            while "the disk is full" not in (runtime.statistics().control_problem or ""):
                await anyio.sleep(0.001)
        assert await runtime.get(Walk, "a").go(Point(1, 2)) == [Point(1, 2)]
    assert "commands can't reach this process" in caplog.text


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_control_is_a_bool(path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="control must be True or False"):
        DurableRuntime(path, control=value)


async def test_control_can_be_turned_off(path: Path) -> None:
    async with DurableRuntime(path, objects=[Walk], control=False) as runtime:
        assert runtime.statistics().control_problem == "control is False"
        assert read_note(note_beside(path)) is None
