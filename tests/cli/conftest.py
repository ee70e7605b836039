from __future__ import annotations

from pathlib import Path

import pytest
from support.postgres import url_of

from .stored_data import fill


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def db(folder: Path) -> Path:
    """A storage with something in it: ``app.db`` in the current folder."""
    path = folder / "app.db"
    fill(path)
    return path


@pytest.fixture
def database(postgres: str) -> str:
    """The URL of an empty PostgreSQL database."""
    return url_of(postgres)
