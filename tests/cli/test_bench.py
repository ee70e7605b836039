from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .support import assert_refused, contents, environment, interruptible, run


def test_it_measures_and_leaves_nothing_behind(folder: Path) -> None:
    (folder / "mine.txt").write_text("stays")
    before = contents(folder)
    result = run("bench", "--json", "--seconds", "0.005")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document.keys() == {"machine", "figures"}
    assert document["machine"].keys() >= {"cores", "python", "sqlite", "trio_durable"}
    figures = {(each["name"], each["durability"]): each for each in document["figures"]}
    assert len(figures) == len(document["figures"])
    both = ("plain-upserts", "changes-by-1", "plain-batches", "changes-by-64")
    once = ("plain-selects", "reads", "loads", "alarm-lateness-p50", "alarm-lateness-p99")
    assert figures.keys() == {
        *((name, durability) for name in both for durability in ("full", "normal")),
        *((name, "full") for name in once),
    }
    for (_, durability), figure in figures.items():
        assert figure["value"] > 0
        if figure["beside"] is None:
            assert figure["ratio"] is None
        else:
            assert figure["ratio"] > 0
            assert (figure["beside"], durability) in figures
    compare_rates = {name for (name, _), figure in figures.items() if figure["beside"]}
    assert compare_rates == {"changes-by-1", "changes-by-64", "reads", "loads"}
    assert contents(folder) == before


def test_the_table_fits_a_terminal(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = run("bench", "--seconds", "0.005", "--dir", str(elsewhere))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    for what in ("full", "normal", "changes, 64 callers, 1,000 objects", "alarms late by, median"):
        assert what in result.stdout
    assert list(elsewhere.iterdir()) == []


def test_control_c_removes_its_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trio_durable", "bench", "--seconds=60", f"--dir={tmp_path}"]
    with subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    ) as bench:
        try:
            while not list(tmp_path.glob("*/full.db-wal")):
                assert bench.poll() is None, "it ended by itself"
            bench.send_signal(signal.SIGINT)
            out, err = bench.communicate(timeout=60)
        finally:
            bench.kill()
    assert (bench.returncode, out, err.strip()) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--dir=nowhere"], "Directory 'nowhere' does not exist"),
        (["--dir=file"], "Directory 'file' is a file"),
        (["--seconds=0"], "0.0 is not in the range"),
        (["--seconds=nan"], "'nan' is not a number"),
        (["--seconds=soon"], "'soon' is not a valid number"),
        (["--json=yes"], "does not take a value"),
        (["here"], "unexpected extra argument"),
    ],
)
def test_bad_input(folder: Path, args: list[str], says: str) -> None:
    (folder / "file").write_text("")
    assert_refused(folder, says, "bench", *args)
