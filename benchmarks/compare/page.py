"""The page with the comparison: its tables are those of a committed result file.

    python -m benchmarks.compare.page       write them, after `make compare`

`make compare` writes the results where Git ignores them. This copies them into the documentation,
with the chart, and writes the tables of the page. A test compares the three.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from .catalogue import Entry, entry_named
from .contender import CALLERS
from .results import TITLES, WORKLOADS, WorkloadName

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "comparison.md"
RESULTS = ROOT / "docs" / "comparison.json"
CHART = ROOT / "docs" / "comparison.svg"
_WRITTEN = ROOT / "benchmarks" / "results"

_HEADINGS: Mapping[WorkloadName, str] = {
    "one": "### Increments, 1 caller\n",
    "many": "### Increments, 64 callers × 1,000 objects\n",  # noqa: RUF001
    "reads": "### Reads, 64 callers × 1,000 objects\n",  # noqa: RUF001
    "alarms": "### Alarms due at once, each with a durable change\n",
}
assert TITLES.keys() == _HEADINGS.keys()


def with_tables(page: str, document: Mapping[str, Any]) -> str:
    """The page with the tables, and the machine, of a result file."""
    for name in WORKLOADS:
        begin = page.index(_HEADINGS[name]) + len(_HEADINGS[name])
        end = page.index("\n#", begin)
        page = f"{page[:begin]}\n{table(name, document)}{page[end:]}"
    begin = page.index("## Figures\n") + len("## Figures\n")
    end = page.index("\n!", begin)
    return f"{page[:begin]}\n{machine(document)}\n{page[end:]}"


def machine(document: Mapping[str, Any]) -> str:
    """The sentence on the machine."""
    of = document["machine"]
    sync, slow = of["sync_microseconds"], of["slow_sync_microseconds"]
    return (
        f"From {of['cores']} cores of a virtual machine, {of['filesystem']}, writing and syncing "
        f"4 KiB takes {sync:.0f} µs (p95 {slow:.0f} µs); Python {of['python']}, SQLite "
        f"{of['sqlite']}, {of['system']}, {of['measured_at'][:10]}."
    )


def table(name: WorkloadName, document: Mapping[str, Any]) -> str:
    """The rows of a workload, the highest rate first."""
    found = [each for each in document["results"] if each["workload"] == name]
    lines = ["| | per second | rounds | syncs per 1,000 |", "| --- | ---: | ---: | ---: |"]
    for each in sorted(found, key=lambda result: -result["per_second"]["median"]):
        rate, syncs = each["per_second"], each["syncs_per_1000"]
        cells = (
            _label(name, entry_named(each["contender"])),
            f"{rate['median']:,.0f}",
            f"{rate['low']:,.0f}–{rate['high']:,.0f}",  # noqa: RUF001
            "not counted" if syncs is None else f"{syncs:,.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _label(name: WorkloadName, entry: Entry) -> str:
    notes = []
    if not entry.durable:
        notes.append("not durable")
    if entry.over_http:
        notes.append("HTTP")
    if name in ("many", "reads") and entry.callers != CALLERS:
        notes.append(f"{entry.callers} callers")
    if name == "alarms":
        notes.append(f"{entry.alarms:,} alarms")
    return f"{entry.title} ({', '.join(notes)})" if notes else entry.title


def main() -> None:
    """Copy the results of the last run, and write the page."""
    shutil.copyfile(_WRITTEN / "compare.json", RESULTS)
    shutil.copyfile(_WRITTEN / "compare.svg", CHART)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_tables(page, orjson.loads(RESULTS.read_bytes())), encoding="utf-8")


if __name__ == "__main__":
    main()
