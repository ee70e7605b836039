"""Imports of heavy and optional packages: only where their feature is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = {"click", "hypothesis", "psycopg", "rich", "sqlite_utils"}
LATER = {"asyncio", "cattrs", "trio"}
"""Packages that an open runtime needs."""

OPEN = """
import sys, trio
from trio_durable import DurableRuntime
async def main():
    async with DurableRuntime("app.db"):
        pass
trio.run(main)
"""


def all_modules_after(program: str, folder: Path) -> set[str]:
    """The modules that a program has imported when it ends."""
    run = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def modules_after(program: str, folder: Path) -> set[str]:
    """Their top-level packages."""
    return {name.partition(".")[0] for name in all_modules_after(program, folder)}


def test_importing_the_library_imports_no_optional_package(tmp_path: Path) -> None:
    found = modules_after("import trio_durable", tmp_path)
    assert "trio_durable" in found
    assert not found & (HEAVY | LATER)


def test_links_are_imported_for_a_cluster_only(tmp_path: Path) -> None:
    for cluster in (False, True):
        program = OPEN.replace('"app.db"', f'"app.db", cluster={cluster}')
        found = all_modules_after(program, tmp_path)
        assert ("trio_durable._cluster.link" in found) is cluster


def test_sqlite_utils_is_imported_for_pending_migrations_only(tmp_path: Path) -> None:
    # A new file, whose tables have to be made: or the second assertion would prove nothing.
    assert "sqlite_utils" in modules_after(OPEN, tmp_path)
    assert not modules_after(OPEN, tmp_path) & HEAVY
