"""The machine and what runs on it, as the JSON files tell."""

from __future__ import annotations

import os
import platform
import sqlite3
from datetime import UTC, datetime
from importlib.metadata import version


def describe() -> dict[str, object]:
    """The machine, the interpreter and the libraries."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "trio": version("trio"),
        "trio_durable": version("trio-durable"),
    }
