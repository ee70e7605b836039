"""The examples in docs/testing.md, run as their readers run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCK = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_pass(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    # Each has a file to be in, or it would not be run.
    assert len(blocks) == text.count("```python") > 3
    for name, code in blocks:
        (tmp_path / name).write_text(code, encoding="utf-8")
    plugin = ["-p", "trio_durable.testing.plugin", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *plugin, "--rootdir=."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    # One of them is for trio alone.
    tests = sum(code.count("async def test_") for _, code in blocks)
    assert f"{2 * tests - 1} passed" in run.stdout
