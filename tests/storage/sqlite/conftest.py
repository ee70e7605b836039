from __future__ import annotations

from pathlib import Path

import pytest
from support.file_checks import checked_once, unstamped

__all__ = ["checked_once", "unstamped"]  # fixtures


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects.db"
