"""Checks and stamps of an SQLite file, which come once a second, kept out of what a test counts."""

from __future__ import annotations

import pytest

from trio_durable.storage.sqlite import _watch


@pytest.fixture(autouse=True)
def checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks come once, so that each run makes the same calls of the disk."""
    monkeypatch.setattr(_watch, "CHECK_SECONDS", 3600.0)


@pytest.fixture
def unstamped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits have no stamp, and the first one makes no checkpoint: the log has all commits."""
    monkeypatch.setattr(_watch.Stamp, "is_due", False)
