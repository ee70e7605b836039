"""The chat: two clients follow a room, and what they saw survives a crash of the server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from web.servers import Server, Stream

from examples import chat

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOM = "/rooms/lobby"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    shutil.copy(chat.__file__, tmp_path / "live.py")
    shutil.copy(Path(chat.__file__).with_name("chat.html"), tmp_path)
    # One process: hypercorn leaves a worker that accepts connections for an instant after a kill.
    with Server(tmp_path, "uvicorn") as server:
        yield server


def post(server: Server, text: str, key: str) -> int:
    body = {"user": "ada", "text": text, "key": key}
    return httpx.post(server.url + ROOM, json=body, timeout=60).status_code


def test_two_clients_see_a_post_once_and_a_crash_takes_nothing_back(server: Server) -> None:
    first, second = (Stream(server.port, ROOM + "/events") for _ in range(2))
    with closing(first), closing(second):
        for stream in (first, second):
            stream.read_until("data: []")
        assert post(server, "hello", "k1") == 204
        for stream in (first, second):
            stream.read_until('data: [{"user":"ada","text":"hello"}]')
        server.kill()
    server.start()
    assert post(server, "hello", "k1") == 204  # its client got no answer
    assert post(server, "bye", "k2") == 204
    with closing(Stream(server.port, ROOM + "/events")) as third:
        third.read_until('data: [{"user":"ada","text":"hello"},{"user":"ada","text":"bye"}]')


def test_a_post_that_is_too_long_is_refused(server: Server) -> None:
    assert post(server, "x" * 1000, "k1") == 422
    assert httpx.post(server.url + ROOM, json=["hello"], timeout=60).status_code == 422
    with closing(Stream(server.port, ROOM + "/events")) as stream:
        stream.read_until("data: []")


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_two_browsers_and_a_crash(server: Server, chromium: Browser) -> None:
    ada, bob = chromium.new_page(), chromium.new_page()
    for page, name in ((ada, "ada"), (bob, "<b>bob</b>")):
        page.set_default_timeout(60_000)
        page.goto(server.url + ROOM)
        page.fill("[name=user]", name)
    bob.fill("[name=text]", "hello")
    bob.click("button")
    for page in (ada, bob):
        page.wait_for_selector("li:text-is('<b>bob</b>: hello')")
    server.kill()
    ada.fill("[name=text]", "are you there?")
    ada.click("button")
    ada.wait_for_selector("output:text('not posted')")
    assert ada.locator("li").count() == 1
    server.start()
    ada.click("button")
    for page in (ada, bob):
        page.wait_for_selector("li:text-is('ada: are you there?')")
        assert page.locator("li").count() == 2
        page.context.close()
