"""The apps of the how-tos on web frameworks give each error the status that http-errors.md says."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import AsyncMock
from weakref import WeakSet

import anyio
import httpx
import pytest
from cli.support import ROOT
from test_errors import classes, sample

from trio_durable import (
    CallTimeout,
    InvalidObjectId,
    MailboxFull,
    ObjectKey,
    Overloaded,
    PersistenceError,
    ReadonlyViolation,
    RuntimeClosed,
    StaleObject,
)
from trio_durable._api import durable_object as _definition
from trio_durable.web import http_status

from .page import files

HOWTO = ROOT / "docs" / "howto"
KEY = ObjectKey("Concert", "jazz")
ERRORS = [
    InvalidObjectId("Concert", "jazz", "so it is"),
    Overloaded(KEY, "free", 5, "queued"),
    MailboxFull(KEY, "free", 5, "queued", 1024),
    CallTimeout(KEY, "free", 5, "running"),
    PersistenceError(KEY, "save", "the disk is full"),
    StaleObject(KEY, "save", "stale", 7),
    RuntimeClosed("the runtime is closed"),
]
BUG = ReadonlyViolation(KEY, "free", "changed the field seats")


def serving(app: Any) -> AbstractAsyncContextManager[Any]:
    """The lifespan of an app, as the pages' own tests open it."""
    lifespans: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
        "FastAPI": lambda: app.router.lifespan_context(app),
        "Starlette": lambda: app.router.lifespan_context(app),
        "Litestar": lambda: app.lifespan(),
        "QuartTrio": lambda: app.test_app(),
    }
    return lifespans[type(app).__name__]()


def documented() -> dict[str, int]:
    """The statuses in the table, by the names of errors."""
    text = (HOWTO / "http-errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (\d+)", text, re.MULTILINE)
    return {name: int(status) for names, status in rows for name in re.findall(r"`(\w+)`", names)}


@pytest.fixture(params=["fastapi", "starlette", "litestar", "quart-trio"])
def booking(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The program of a page."""
    source = files(HOWTO / f"{request.param}.md")["booking.py"]
    module = ModuleType("booking")
    monkeypatch.setitem(sys.modules, "booking", module)
    monkeypatch.setattr(_definition, "_classes", WeakSet())
    monkeypatch.setenv("BOOKING_DB", str(tmp_path / "booking.db"))
    exec(compile(source, "booking.py", "exec", dont_inherit=True), vars(module))
    return module


def test_each_error_has_its_status(booking: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = documented()

    async def main() -> None:
        app = httpx.ASGITransport(booking.app, raise_app_exceptions=False)
        async with (
            serving(booking.app),
            httpx.AsyncClient(transport=app, base_url="http://booking") as client,
        ):
            for error in ERRORS:
                monkeypatch.setattr(booking.Concert, "free", AsyncMock(side_effect=error))
                answer = await client.get("/concerts/jazz")
                name = type(error).__name__
                assert answer.status_code == statuses[name], name
                assert ("Retry-After" in answer.headers) == (answer.status_code >= 503), name
                assert str(error) not in answer.text, name
            monkeypatch.setattr(booking.Concert, "free", AsyncMock(side_effect=BUG))
            answer = await client.get("/concerts/jazz")
            assert answer.status_code == 500
            assert str(BUG) not in answer.text

    anyio.run(main, backend="trio")


def test_errors_of_once_keys_have_the_statuses_of_their_page() -> None:
    page = (HOWTO / "idempotency.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`.*?) \| (\d+)", page, re.MULTILINE)
    table = {name: int(status) for names, status in rows for name in re.findall(r"`(\w+)`", names)}
    assert {"InvalidOnceKey", "OnceKeyReused", "CallTimeout", "OwnerLost"} <= table.keys()
    by_name = {cls.__name__: http_status(sample(cls)).status for cls in classes()}
    assert {name: by_name.get(name) for name in table} == table


@pytest.fixture
def lunch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The web app of the tutorial."""
    programs = files(ROOT / "docs" / "tutorial.md")
    monkeypatch.setattr(_definition, "_classes", WeakSet())
    monkeypatch.setenv("LUNCH_DB", str(tmp_path / "lunch.db"))
    modules = {name: ModuleType(name) for name in ("lunch", "lunch.poll", "lunch.web")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
        source = programs.get(f"{name.replace('.', '/')}.py", "")
        exec(compile(source, name, "exec", dont_inherit=True), vars(module))
    return modules["lunch.web"]


def test_errors_of_the_tutorial_have_their_statuses(
    lunch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = documented()

    async def main() -> None:
        app = httpx.ASGITransport(lunch.app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=app, base_url="http://lunch")
        async with serving(lunch.app), client:
            for error in ERRORS:
                with monkeypatch.context() as patch:
                    patch.setattr(lunch.Poll, "result", AsyncMock(side_effect=error))
                    answer = await client.get("/polls/office")
                name = type(error).__name__
                assert answer.status_code == statuses[name], name
                assert str(error) not in answer.text, name
            for body in (b"{", b"\xff", b"[" * 100_000):
                assert (await client.put("/polls/office", content=body)).status_code == 400
            assert (await client.get("/polls/" + "x" * 600)).status_code == 404
            assert (await client.put("/polls/office", json=["noodles"])).status_code == 204
        with closing(sqlite3.connect(tmp_path / "lunch.db")) as database, database:
            database.execute(
                "UPDATE durable_objects SET state = json_set(state, '$.open', 'yes'), "
                "revision = revision + 1"
            )
        client = httpx.AsyncClient(transport=app, base_url="http://lunch")
        async with serving(lunch.app), client:
            assert (await client.get("/polls/office")).status_code == 500

    anyio.run(main, backend="trio")
