"""The page of the how-to in a real browser: it follows a counter through crashes of the server."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from .servers import Server, save_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

MILLISECONDS = 60_000
PATH = "/counters/visits"

RECORD = """
window.states = []
window.sources = []
const Plain = EventSource
window.EventSource = class extends Plain {
  constructor(url) {
    super(url)
    sources.push(this)
    this.addEventListener("message", event => states.push(event.data))
  }
}
"""
"""Keeps what the page has got of its streams."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    save_app(tmp_path)
    with Server(tmp_path, "uvicorn") as server:
        yield server


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(MILLISECONDS)
    page.add_init_script(RECORD)
    yield page
    context.close()


def add(server: Server) -> int:
    count: int = httpx.post(server.url + PATH, timeout=60).raise_for_status().json()
    return count


def wait_for_count(page: Page, least: int) -> None:
    text = f"Number(document.querySelector('output').value) >= {least}"
    page.wait_for_function(text)


def counts(page: Page) -> list[int]:
    """All counts that the page has got."""
    return [json.loads(text)["count"] for text in page.evaluate("states")]


def stored(server: Server) -> int:
    """The count in the file of a server that doesn't run."""
    with closing(sqlite3.connect(server.folder / "live.db")) as database:
        query = "SELECT json_extract(state, '$.count') FROM durable_objects"
        [(count,)] = database.execute(query)
    found: int = count
    return found


def test_a_page_shows_what_others_do(server: Server, page: Page, chromium: Browser) -> None:
    page.goto(server.url + PATH)
    wait_for_count(page, 0)
    assert add(server) == 1
    wait_for_count(page, 1)
    other = chromium.new_page()
    other.goto(server.url + PATH)
    other.click("button")
    wait_for_count(page, 2)
    wait_for_count(other, 2)
    other.context.close()


def test_a_page_shows_only_what_a_crash_can_not_take_back(server: Server, page: Page) -> None:
    page.goto(server.url + PATH)
    wait_for_count(page, 0)
    for round_ in range(3):
        busy = threading.Event()
        clicker = threading.Thread(target=click_until_killed, args=(server, busy))
        clicker.start()
        assert busy.wait(60)
        wait_for_count(page, counts(page)[-1] + 5)
        server.kill()
        clicker.join(60)
        page.wait_for_function("sources.at(-1).readyState === EventSource.CONNECTING")
        survived = stored(server)
        assert max(counts(page)) <= survived, f"after crash {round_}"
        server.start()
        wait_for_count(page, survived)
        assert add(server) == survived + 1
        wait_for_count(page, survived + 1)
    seen = counts(page)
    assert seen == sorted(seen)
    assert page.evaluate("sources.length") == 1  # the browser has reconnected by itself


def click_until_killed(server: Server, busy: threading.Event) -> None:
    while True:
        try:
            add(server)
        except httpx.HTTPError:
            return
        busy.set()


PRIVATE = """
async def is_logged_in(request):
    return not os.path.exists("logged-out")


async def events(request):
    watch = current_runtime().watch(Counter, request.path_params["counter"])
    return sse(request, watch, view=public, authorize=is_logged_in, keep_alive=0.1, retry=0.1)
"""


def test_a_browser_gives_up_when_its_user_has_logged_out(tmp_path: Path, page: Page) -> None:
    save_app(tmp_path)
    program = (tmp_path / "live.py").read_text()
    start, end = program.index("async def events"), program.index("@asynccontextmanager")
    (tmp_path / "live.py").write_text(program[:start] + PRIVATE + "\n\n" + program[end:])
    with Server(tmp_path, "hypercorn-trio") as server:
        statuses: list[int] = []
        page.on("response", lambda answer: _note(answer, statuses))
        page.goto(server.url + PATH)
        wait_for_count(page, 0)
        (tmp_path / "logged-out").touch()
        page.wait_for_function("sources[0].readyState === EventSource.CLOSED")
        add(server)
        page.wait_for_timeout(1)
        assert statuses[0] == 200
        assert statuses[-1] == 204
        assert counts(page) == [0]
        page.reload()
        page.wait_for_function("sources.at(-1).readyState === EventSource.CLOSED")
        assert statuses[-1] == 401


def _note(answer: Any, statuses: list[int]) -> None:
    if answer.url.endswith("/events"):
        statuses.append(answer.status)
