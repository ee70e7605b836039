"""Pages of stored states."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.scripted import ScriptedStorage

from trio_durable import (
    DurableObject,
    DurableRuntime,
    StateDecodeError,
    StorageUnavailable,
    UnknownObjectType,
    handler,
)
from trio_durable._api import objects as objects_module
from trio_durable._eventloop.runner import InlineRunner, Runner, ThreadRunner
from trio_durable.storage import Commit, Reader, SQLiteStorage, StorageFault

pytestmark = pytest.mark.anyio


class Shelf(DurableObject, name="states.Shelf"):
    text: str = ""

    @handler
    def write(self, text: str) -> None:
        self.text = text


class Other(DurableObject, name="states.Other"):
    number: int = 0

    @handler
    def count(self) -> None:
        self.number += 1


@asynccontextmanager
async def filled(
    storage: Any = ":memory:", count: int = 5, runner: type[Runner] = InlineRunner
) -> AsyncIterator[DurableRuntime]:
    async with DurableRuntime(storage, objects=[Shelf, Other], runner=runner) as runtime:
        for number in range(count):
            await runtime.get(Shelf, f"{number:03}").write(f"text {number}")
        await runtime.get(Other, "000").count()
        yield runtime


async def all_of(runtime: Any, **options: Any) -> list[list[str]]:
    """The ids of all pages."""
    pages, after = [], None
    while True:
        page = await runtime.list_states(Shelf, after=after, **options)
        pages.append([each.key.object_id for each in page])
        after = page.next
        if after is None:
            return pages


async def test_a_page_has_the_states_in_the_order_of_their_ids() -> None:
    async with filled() as runtime:
        page = await runtime.list_states(Shelf)
        assert [each.state.text for each in page] == [f"text {n}" for n in range(5)]
        assert [(each.key.object_id, each.revision) for each in page.states] == [
            (f"{n:03}", 1) for n in range(5)
        ]
        assert (page.next, len(page)) == (None, 5)


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1] * 5 + [0]), (2, [2, 2, 1]), (5, [5, 0]), (6, [5]), (10**9, [5])]
)
async def test_pages_follow_each_other(limit: int, sizes: list[int]) -> None:
    async with filled() as runtime:
        pages = await all_of(runtime, limit=limit)
        assert [len(page) for page in pages] == sizes
        assert list(chain(*pages)) == [f"{n:03}" for n in range(5)]


async def test_a_page_has_more_states_than_are_read_at_once() -> None:
    async with filled(count=100) as runtime:
        assert [len(page) for page in await all_of(runtime, limit=90)] == [90, 10]


async def test_a_page_is_bounded_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with filled(count=40) as runtime:
        one = len((await runtime.list_states(Shelf)).states[0].json or "")
        monkeypatch.setattr(objects_module, "_PAGE_BYTES", 20 * one)
        pages = await all_of(runtime)
        assert [len(page) for page in pages][:-1] == [20, 20]
        assert list(chain(*pages)) == [f"{n:03}" for n in range(40)]
        monkeypatch.setattr(objects_module, "_PAGE_BYTES", 1)
        assert [len(page) for page in await all_of(runtime)] == [16, 16, 8]


async def test_states_are_of_one_tenant() -> None:
    async with filled() as runtime:
        acme = runtime.tenant("acme")
        await acme.get(Shelf, "001").write("acme's")
        assert [each.state.text for each in await acme.list_states(Shelf)] == ["acme's"]
        assert len(await runtime.list_states(Shelf)) == 5
        assert len(await runtime.tenant("none").list_states(Shelf)) == 0


async def test_nothing_is_loaded() -> None:
    storage = ScriptedStorage()
    async with filled(storage):
        pass
    async with DurableRuntime(storage, objects=[Shelf], runner=InlineRunner) as runtime:
        assert len(await runtime.list_states("states.Shelf")) == 5
        assert runtime.count_objects() == 0


async def test_a_state_is_no_older_than_a_reply() -> None:
    async with filled() as runtime:
        for number in range(20):
            await runtime.get(Shelf, "003").write(f"{number}")
            assert (await runtime.list_states(Shelf)).states[3].state.text == f"{number}"


async def test_a_state_that_cannot_be_read_is_in_the_page() -> None:
    storage = ScriptedStorage()
    async with filled(storage) as runtime:
        key = (await runtime.list_states(Shelf)).states[1].key
    writer = storage.memory.open_writer()
    assert not writer.commit([Commit(key, 1, b'{"text":5}', epoch=0)], 0)
    writer.close()
    async with DurableRuntime(storage, objects=[Shelf], runner=InlineRunner) as runtime:
        page = await runtime.list_states(Shelf)
        assert [each.json for each in page][1] == '{"text":5}'
        with pytest.raises(StateDecodeError):
            _ = page.states[1].state
        assert page.states[2].state.text == "text 2"


async def test_arguments_are_checked() -> None:
    async with filled() as runtime:
        for limit in (0, -1, 1.5, True):
            with pytest.raises(ValueError, match="limit"):
                await runtime.list_states(Shelf, limit=limit)  # type: ignore[arg-type]
        with pytest.raises(UnknownObjectType):
            await runtime.list_states("states.Nothing")


class _Slow(SQLiteStorage):
    """A storage whose scans wait."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opened = 0
        self.go_on = threading.Event()
        self.began = threading.Event()
        self.fails = False

    def open_reader(self) -> Reader:
        if self.fails:
            raise StorageFault("no more connections")
        reader = super().open_reader()
        self.opened += 1
        if self.opened == 2:
            browse = reader.browse_objects

            def slowly(*args: Any) -> Any:
                self.began.set()
                self.go_on.wait()
                return browse(*args)

            reader.browse_objects = slowly  # type: ignore[method-assign, assignment]
        return reader


def test_a_scan_holds_up_no_load(tmp_path: Path, real_backend: tuple[str, dict[str, Any]]) -> None:
    storage = _Slow(tmp_path / "app.db")

    async def main() -> None:
        async with filled(storage, runner=ThreadRunner):
            pass
        storage.opened = 0
        async with DurableRuntime(storage, objects=[Shelf]) as runtime:

            async def scan() -> None:
                assert len(await runtime.list_states(Shelf)) == 5

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(scan)
                await anyio.to_thread.run_sync(storage.began.wait)
                await runtime.get(Shelf, "001").write("loaded meanwhile")
                storage.go_on.set()
            assert storage.opened == 2
            assert len(await runtime.list_states(Shelf)) == 5
            assert storage.opened == 2

    backend, options = real_backend
    anyio.run(main, backend=backend, backend_options=options)


async def test_a_reader_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    storage = _Slow(tmp_path / "app.db")
    storage.go_on.set()
    async with filled(storage) as runtime:
        storage.fails = True
        with pytest.raises(StorageUnavailable, match="no more connections"):
            await runtime.list_states(Shelf)
        storage.fails = False
        assert len(await runtime.list_states(Shelf)) == 5
