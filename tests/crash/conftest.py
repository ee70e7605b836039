from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.file_checks import checked_once, unstamped

__all__ = ["checked_once", "unstamped"]  # fixtures

_IN_MEMORY = Path("/dev/shm")  # noqa: S108  # for folders with random names


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose syncs cost nothing where there is such a place, for files whose losses a test
    works out itself."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as name:
        yield Path(name)
