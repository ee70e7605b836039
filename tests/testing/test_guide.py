"""The simulation in docs/testing.md finds the fault that the guide describes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from documentation.page import files

GUIDE = Path(__file__).parents[2] / "docs" / "testing.md"
WITHOUT = re.compile(r"^Take the `(.*)` out of.*?^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_pytest(
    folder: Path, *arguments: str, without: Sequence[str] = ("asyncio", "trio")
) -> subprocess.CompletedProcess[str]:
    plugin = ["-p", "trio_durable.testing.plugin", "-p", "no:cacheprovider"]
    for name in without:
        plugin += ["-p", f"no:{name}"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *plugin, "--rootdir=.", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_the_commit_the_simulation_prints_what_the_guide_says(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    found = WITHOUT.search(text)
    assert found
    line, story = found.groups()
    assert text.count(f"            {line}\n") == 1
    for name, code in files(GUIDE).items():
        without = code.replace(f"            {line}\n", "")
        (tmp_path / name).write_text(without, encoding="utf-8")
    # One of several that are as short.
    either = re.compile("'(crash|fail) (before commit|after effect) 1'|'[abc]'")
    run = run_pytest(tmp_path, "test_order.py", "--hypothesis-seed=3")
    assert run.returncode == 1
    printed = "\n".join(re.findall(r"^E +((?:state|from order) ?.*)$", run.stdout, re.MULTILINE))
    assert either.sub("*", printed) == either.sub("*", story.strip()), run.stdout
