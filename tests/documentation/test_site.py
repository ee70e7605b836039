"""The site is made of these pages without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cli.support import ROOT


def test_it_is_made_without_a_warning(tmp_path: Path) -> None:
    # As `make docs` does it, but for writing the files down; every reference is looked up.
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "dummy"]
    done = subprocess.run(
        [*sphinx, "-d", str(tmp_path / "doctrees"), "docs", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
