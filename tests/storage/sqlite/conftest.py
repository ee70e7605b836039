from __future__ import annotations

from pathlib import Path

import pytest

from trio_durable.storage.sqlite import _watch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects.db"


@pytest.fixture(autouse=True)
def checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks of each second come once, so that nothing depends on how long a test takes."""
    monkeypatch.setattr(_watch, "CHECK_SECONDS", 3600.0)


@pytest.fixture
def unstamped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits without the stamp that one in a second has, for tests that count statements."""
    monkeypatch.setattr(
        _watch.Stamp, "is_due", property(lambda _: False, lambda *_: None), raising=False
    )
