"""The examples in docs/testing.md, run as their readers run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCK = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


WITHOUT = re.compile(r"^Take the `(.*)` out of.*?^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_examples(folder: Path, text: str) -> list[str]:
    blocks = BLOCK.findall(text)
    # Each has a file to be in, or it would not be run.
    assert len(blocks) == text.count("```python") > 3
    for name, code in blocks:
        (folder / name).write_text(code, encoding="utf-8")
    return [code for _, code in blocks]


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    plugin = ["-p", "trio_durable.testing.plugin", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *plugin, "--rootdir=.", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_examples_pass(tmp_path: Path) -> None:
    blocks = write_examples(tmp_path, GUIDE.read_text(encoding="utf-8"))
    run = run_pytest(tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    # One of them is for trio alone; simulations run on it, too.
    tests = sum(code.count("async def test_") for code in blocks)
    simulations = sum(code.count(".TestCase\n") for code in blocks)
    assert f"{2 * tests - 1 + simulations} passed" in run.stdout


def test_without_the_commit_the_simulation_prints_what_the_guide_says(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    found = WITHOUT.search(text)
    assert found
    line, story = found.groups()
    assert text.count(f"            {line}\n") == 1
    write_examples(tmp_path, text.replace(f"            {line}\n", ""))
    # One of several that are as short.
    either = re.compile("'(crash|fail) (before commit|after effect) 1'|'[abc]'")
    run = run_pytest(tmp_path, "test_order.py", "--hypothesis-seed=3")
    assert run.returncode == 1
    printed = "\n".join(re.findall(r"^E +((?:state|from order) ?.*)$", run.stdout, re.MULTILINE))
    assert either.sub("*", printed) == either.sub("*", story.strip()), run.stdout
