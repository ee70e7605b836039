"""``trio-durable ui``: the inspector of a storage, whether an app has it open or not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from trio_durable import DurableRuntime

from .serving import APP, called, serving
from .support import environment, run

BASKET = {"type": "served.Basket", "id": "a"}
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


@contextmanager
def ui(folder: Path) -> Iterator[tuple[httpx.Client, str]]:
    """The command, as a client of its pages and its first line. It is ended by Control-C."""
    command = [sys.executable, "-m", "trio_durable", "ui", "app.db"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line, address = process.stdout.readline(), process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", address), (line, address)
            with httpx.Client(base_url=address, timeout=60) as client:
                yield client, line
        finally:
            process.terminate()


def form_of(text: str) -> dict[str, str]:
    found = re.findall(r'name="(\w+)" value="([^"]*)"', text)
    return {name: value.replace("&#34;", '"') for name, value in found}


def test_a_running_app_is_shown_and_changed_by_its_own_process(folder: Path) -> None:
    with serving(folder):
        called(folder)
        with ui(folder) as (client, line):
            assert line.endswith("app.db.\n")
            for page in ("", "turns", "waiting", "nodes", "dead", "tenants", "audit"):
                found = client.get(page)
                assert (found.status_code, found.headers["x-frame-options"]) == (200, "DENY")
                assert "served" in found.text or page
            found = client.get("object", params=BASKET)
            assert "&#34;items&#34;: 1" in found.text
            assert "active, process" in found.text
            form = form_of(client.get("edit", params=BASKET).text)
            saved = client.post(
                "edit", params=BASKET, headers=SAME_ORIGIN, data={**form, "state": '{"items": 7}'}
            )
            assert saved.status_code == 303, saved.text
            assert called(folder) == "8\n"
            conflict = client.post(
                "edit", params=BASKET, headers=SAME_ORIGIN, data={**form, "state": '{"items": 9}'}
            )
            assert conflict.status_code == 409
            with client.stream("GET", "object.live", params=BASKET) as stream:
                lines = stream.iter_lines()
                assert next(line for line in lines if line.startswith("event: "))
            found = httpx.get(str(client.base_url.copy_with(path="/")))
            assert found.status_code == 404


def test_a_stopped_app_is_shown_read_only(folder: Path) -> None:
    with serving(folder):
        called(folder)
    with ui(folder) as (client, line):
        assert line.endswith("app.db. No app has it open, so it is read only.\n")
        found = client.get("object", params=BASKET)
        assert "&#34;items&#34;: 1" in found.text
        assert "stopped, read only" in found.text
        assert client.get("edit", params=BASKET).status_code == 409
        for action in ("retry", "drop"):
            found = client.post(action, headers=SAME_ORIGIN, data={"only": '["message", "0"]'})
            assert found.status_code == 409
        assert client.get("", headers={"X-Forwarded-For": "1.2.3.4"}).status_code == 403
        assert client.get("", headers={"Host": "evil.example"}).status_code == 421


def test_a_storage_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    result = run("ui", str(tmp_path / "app.db"))
    assert result.exit_code == 2
    assert "there is no such file" in result.stderr


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def make() -> None:
        async with DurableRuntime(tmp_path / "app.db", objects=[]):
            pass

    anyio.run(make, backend="trio")
    monkeypatch.setitem(sys.modules, "hypercorn", None)
    monkeypatch.setitem(sys.modules, "hypercorn.config", None)
    result = run("ui", str(tmp_path / "app.db"))
    assert result.exit_code == 2
    assert "trio-durable[cli,inspector]" in result.stderr
