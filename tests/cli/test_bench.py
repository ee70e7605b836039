from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from .support import assert_refused, command_process, contents, interrupted, run


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


def test_figures_are_rows_of_csv(folder: Path) -> None:
    result = run("bench", "--seconds", "0.001", "-o", "csv")
    assert result.exit_code == 0
    figures = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(figures) == 13
    assert figures[0].keys() == {
        *("name", "title", "durability", "value", "unit", "beside", "ratio"),
    }


def test_control_c_removes_its_files(tmp_path: Path) -> None:
    with command_process("bench", "--seconds=60", f"--dir={tmp_path}") as bench:
        while not list(tmp_path.glob("*/full.db-wal")):
            assert bench.poll() is None, "it ended by itself"
        out, err = interrupted(bench)
    assert (out, err.strip()) == ("", "")
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
