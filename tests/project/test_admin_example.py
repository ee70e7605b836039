"""The page for administrators among the examples."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples import admin
from examples.admin import Customer
from trio_durable import current_runtime

pytestmark = pytest.mark.anyio

SAME_SITE = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def anyio_backend(real_backend: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """In real time, since searches run in threads."""
    return real_backend


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "admin.db"
    monkeypatch.setattr(admin, "DATABASE", path)
    return path


@asynccontextmanager
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    """A browser on the page of an app with three customers."""
    async with admin.app.router.lifespan_context(admin.app):
        for object_id, name in (("a", "Ada"), ("b", "Bob <script>"), ("c", "Adam")):
            await Customer.sign_up(object_id, name, 5000)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(admin.app), base_url="http://localhost"
        ) as client:
            yield client


def fields(html: str) -> dict[str, str]:
    """The fields of the form of a customer, as a browser sends them."""
    found = re.findall(r'<input (?:type=hidden )?name=(\w+) (?:type=number )?value="(.*?)"', html)
    return {name: unescape(value) for name, value in found}


def links(html: str) -> list[str]:
    return re.findall(r'href="customer\?id=(\w+)"', html)


async def test_customers_are_found_by_their_names(path: Path) -> None:
    async with browser() as client:
        assert links((await client.get("/")).text) == ["a", "b", "c"]
        found = (await client.get("/", params={"search": "Ada"})).text
        assert links(found) == ["a", "c"]
        assert "<td>Adam<td>50.00<td>1" in found
        assert links((await client.get("/", params={"search": "Zoe"})).text) == []


async def test_what_is_stored_is_text(path: Path) -> None:
    async with browser() as client:
        for url in ("/", "/customer?id=b", "/?search=%3Cscript%3E"):
            html = (await client.get(url)).text
            assert "<script>" not in html
            assert "&lt;script&gt;" in html


async def test_a_state_is_edited(path: Path) -> None:
    async with browser() as client:
        form = fields((await client.get("/customer?id=a")).text)
        assert (form["name"], form["credit"], form["revision"]) == ("Ada", "5000", "1")
        form |= {"credit": "700", "is_blocked": "on"}
        saved = await client.post("/save", data=form, headers=SAME_SITE)
        assert (saved.status_code, saved.headers["location"]) == (303, "./?search=Ada")
        state = await current_runtime().get_state(Customer, "a")
        assert (state.name, state.credit, state.is_blocked) == ("Ada", 700, True)


async def test_an_edit_loses_no_change_that_came_meanwhile(path: Path) -> None:
    async with browser() as client:
        form = fields((await client.get("/customer?id=a")).text)
        assert await Customer.spend("a", 4000) == 1000
        refused = await client.post("/save", data=form | {"name": "Ada L."}, headers=SAME_SITE)
        assert refused.status_code == 409
        assert "&quot;credit&quot;:1000" in refused.text
        assert (await current_runtime().get_state(Customer, "a")).name == "Ada"

        again = fields(refused.text)
        assert (again["name"], again["credit"], again["revision"]) == ("Ada L.", "5000", "2")
        saved = await client.post("/save", data=again | {"credit": "1000"}, headers=SAME_SITE)
        assert saved.status_code == 303
        state = await current_runtime().get_state(Customer, "a")
        assert (state.name, state.credit) == ("Ada L.", 1000)


async def test_a_customer_who_was_deleted_does_not_come_back(path: Path) -> None:
    async with browser() as client:
        form = fields((await client.get("/customer?id=a")).text)
        await current_runtime().delete(Customer, "a")
        assert (await client.post("/save", data=form, headers=SAME_SITE)).status_code == 410
        assert not await current_runtime().exists(Customer, "a")
        assert (await client.get("/customer?id=a")).status_code == 404


async def test_a_row_that_can_not_be_read_hides_no_other(path: Path) -> None:
    async with browser():
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("UPDATE durable_objects SET state = 'no JSON' WHERE object_id = 'b'")
    async with admin.app.router.lifespan_context(admin.app):
        transport = httpx.ASGITransport(admin.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            html = (await client.get("/", params={"search": "Ada"})).text
            assert links(html) == ["a", "c"]
            assert "stored state of admin.Customer(&#x27;b&#x27;) can&#x27;t be read" in html
            assert (await client.get("/customer?id=b")).status_code == 422


@pytest.mark.parametrize("headers", [{}, {"sec-fetch-site": "cross-site"}])
async def test_a_form_of_another_site_is_refused(path: Path, headers: dict[str, Any]) -> None:
    async with browser() as client:
        form = fields((await client.get("/customer?id=a")).text) | {"credit": "0"}
        assert (await client.post("/save", data=form, headers=headers)).status_code == 403
        assert (await current_runtime().get_state(Customer, "a")).credit == 5000


@pytest.mark.parametrize("change", [{"revision": "x"}, {"credit": ""}, {"digest": ""}])
async def test_what_is_no_form_is_refused(path: Path, change: dict[str, str]) -> None:
    async with browser() as client:
        form = fields((await client.get("/customer?id=a")).text) | change
        assert (await client.post("/save", data=form, headers=SAME_SITE)).status_code == 400
