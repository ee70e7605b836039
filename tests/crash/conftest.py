from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_durable.storage.sqlite import _watch

_IN_MEMORY = Path("/dev/shm")  # noqa: S108  # for folders with random names


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose syncs cost nothing where there is such a place, for files whose losses a test
    works out itself."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks of each second come once, so that each run makes the same calls of the disk."""
    monkeypatch.setattr(_watch, "CHECK_SECONDS", 3600.0)


@pytest.fixture
def unstamped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first commit makes no checkpoint, so that the log has all commits."""
    monkeypatch.setattr(
        _watch.Stamp, "is_due", property(lambda _: False, lambda *_: None), raising=False
    )
