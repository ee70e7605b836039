"""The list of events in docs/telemetry.md, and its OpenTelemetry example."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args
from unittest.mock import Mock

import attrs
import pytest
from documentation.page import files
from opentelemetry.metrics import Meter

from trio_durable import telemetry
from trio_durable.telemetry import Instrument, LoggingInstrument, Point, Timed
from trio_durable.telemetry._metrics import Metrics

GUIDE = Path(__file__).parents[2] / "docs" / "telemetry.md"
TEXT = GUIDE.read_text(encoding="utf-8")


def table(start: str) -> list[tuple[str, list[str]]]:
    """The first two columns of a table: a name, and names."""
    lines = TEXT.partition(start)[2].strip().splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        name, names = re.findall(r"\|([^|]*)", line)[:2]
        rows.append((name.strip(" `"), re.findall(r"`(\w+)`", names)))
    return rows


@pytest.mark.parametrize(
    ("start", "events"), [("take time:\n", get_args(Timed)), ("Points:\n", get_args(Point))]
)
def test_the_tables_have_all_events_and_their_fields(
    start: str, events: Sequence[type[attrs.AttrsInstance]]
) -> None:
    fields = {event.__name__: [field.name for field in attrs.fields(event)] for event in events}
    rows = table(start)
    assert len(rows) == len(fields)
    assert dict(rows) == fields


def test_the_module_has_all_events_and_nothing_else() -> None:
    events = {event.__name__ for event in (*get_args(Timed), *get_args(Point))}
    others = {Instrument.__name__, LoggingInstrument.__name__, "Timed", "Point", "is_failure"}
    assert set(telemetry.__all__) == events | others


def test_the_table_has_all_metrics() -> None:
    meter = Mock(Meter)
    Metrics(meter)
    made = [call.args[0] for call in meter.method_calls]
    documented = re.findall(r"^\| `(trio_durable\.[\w.]+)` \|", TEXT, re.MULTILINE)
    assert sorted(documented) == sorted(made)
    assert len(set(made)) == len(made)


def test_the_example_of_opentelemetry_makes_the_spans_that_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "traced.py").write_text(files(GUIDE)["traced.py"], encoding="utf-8")
    command = [sys.executable, "-W", "error", "traced.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    output = done.stdout
    drawn = TEXT.partition("It makes these spans:")[2].partition("```\n\n")[0]
    names = [line.strip(" │├└─") for line in drawn.splitlines()[2:]]
    expected = sorted(re.sub(" ⇢ .*", "", name) for name in names if name and "`" not in name)
    spans = re.findall(r'^    "name": "(.*)"', output, re.MULTILINE)
    assert sorted(spans) == expected
    assert "7" in output.splitlines()  # the reply
    assert "trio_durable.call.duration" in output
