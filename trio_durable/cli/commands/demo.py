"""The command."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from ..demo.child import WorkerFailed
from ..demo.load import CALLERS
from ..demo.report import alarm_table, speed_table, survival_table, verdict
from ..demo.scenario import run_scenario
from ..options import Seconds
from ..output import console


@click.command()
@click.option(
    "--kills", type=click.IntRange(1, 1000), default=4, show_default=True, help="How many."
)
@click.option(
    "--seconds", type=Seconds(0.01), default=3, show_default=True, help="Of load before each kill."
)
@click.option(
    "--within", type=Seconds(0), default=3, show_default=True, help="Seconds until alarms are due."
)
@click.option(
    "--dead", type=Seconds(0), default=1, show_default=True, help="Seconds that nobody is there."
)
@click.option(
    "--objects",
    type=click.IntRange(1, 1_000_000),
    default=3000,
    show_default=True,
    help="How many accounts.",
)
def demo(kills: int, seconds: float, within: float, dead: float, objects: int) -> int:
    """Kill a process under load, and count what is left.

    A child process keeps some thousand durable objects in an SQLite file and
    serves calls to them, some of which set alarms. It is killed with SIGKILL in
    the middle of it, four times over. Every change that was acknowledged must be
    there afterwards, every other one wholly or not at all, and every alarm must
    fire once. Takes about 20 seconds, in a temporary folder. Exit status 1 if
    anything is missing or doubled.

    \b
    Examples:
      trio-durable demo
      trio-durable demo --kills 2 --seconds 1
    """
    diaries = max(1, objects // 10)
    out = console()
    out.print(
        f"{objects:,} accounts and {diaries:,} diaries are durable objects in one SQLite "
        "file, every commit synced to disk. "
        f"{CALLERS} callers make deposits on accounts and let diaries set "
        f"alarms that are due within {within:g} s. {kills} times, after "
        f"{seconds:g} s of this, SIGKILL ends the process; then nobody is there for "
        f"{dead:g} s, and alarms come due meanwhile.\n"
    )
    try:
        with tempfile.TemporaryDirectory(prefix="trio_durable-demo-") as folder:
            outcome = run_scenario(
                Path(folder, "demo.db"), objects, diaries, kills, seconds, within, dead, out
            )
    except WorkerFailed as failure:
        out.print(f"FAILED: the child process went wrong: {failure}", style="bold red")
        return 1
    out.print(speed_table(outcome.loads))
    out.print(survival_table(outcome.deposits, outcome.torn))
    out.print(
        "In flight: requested, but not acknowledged when the process died. Each of these\n"
        "changes may be there wholly or not at all. Half: objects that show part of one."
    )
    out.print(alarm_table(outcome.alarms))
    out.print(
        "Alarms that were set. Before: they fired before the kill. While dead: they came\n"
        "due when nobody was there, so the next process fired them when it started.\n"
        "After: they came due later and fired at their time, in the median late by this.\n"
    )
    out.print(verdict(outcome))
    return 1 if any(outcome.faults.values()) else 0
