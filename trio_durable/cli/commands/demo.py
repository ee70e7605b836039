"""``trio-durable demo``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from ..options import Seconds
from ..output import console, quantity


@click.command()
@click.option(
    "--kills", type=click.IntRange(1, 1000), default=4, show_default=True, help="Number of kills."
)
@click.option(
    "--seconds",
    type=Seconds(0.01),
    default=2,
    show_default=True,
    help="Seconds of load before each kill.",
)
@click.option(
    "--within",
    type=Seconds(0),
    default=3,
    show_default=True,
    help="Longest time until an alarm, in seconds.",
)
@click.option(
    "--dead",
    type=Seconds(0),
    default=1,
    show_default=True,
    help="Downtime after each kill, in seconds.",
)
@click.option(
    "--objects",
    type=click.IntRange(1, 1_000_000),
    default=3000,
    show_default=True,
    help="Number of accounts.",
)
def demo(kills: int, seconds: float, within: float, dead: float, objects: int) -> int:
    """Kill a process under load, and check that nothing is lost.

    A child process keeps a few thousand durable objects in an SQLite file and
    serves calls to them: transfers of money from account to account, by
    messages, and some that set alarms. It is killed with SIGKILL under load,
    four times. Afterwards every acknowledged change must be there, any other
    change completely or not at all, every message must have arrived once, no
    money may be lost or made, and every alarm must have fired once. This takes
    about 20 seconds, in a temporary folder. Exit status 1 if anything is
    missing or duplicated.

    \b
    Examples:
      trio-durable demo
      trio-durable demo --kills 2 --seconds 1
    """
    # Imported here, so that other commands start without them.
    from ..demo.child import WorkerFailed
    from ..demo.load import CALLERS
    from ..demo.protocol import OPENING
    from ..demo.report import alarm_table, money_table, speed_table, survival_table, verdict
    from ..demo.scenario import run_scenario

    diaries = max(1, objects // 10)
    out = console()
    out.print(
        f"{quantity(objects, 'account')} and {diaries:,} {'diary' if diaries == 1 else 'diaries'} "
        "are durable objects in one SQLite file. Every commit is synced to disk. "
        f"{CALLERS} callers transfer money: a turn takes it from one account and sends it to "
        "another in a message, in one commit. They also set alarms of diaries that are due within "
        f"{within:g} s. After {seconds:g} s of load the process is killed with SIGKILL, and is "
        f"down for {dead:g} s, while alarms become due. This happens {quantity(kills, 'time')}. "
        f"The accounts have {OPENING * objects:,} together, and must have it in the end.\n"
    )
    try:
        with tempfile.TemporaryDirectory(prefix="trio_durable-demo-") as folder:
            outcome = run_scenario(
                Path(folder, "demo.db"), objects, diaries, kills, seconds, within, dead, out
            )
    except WorkerFailed as failure:
        out.print(f"FAILED: {failure}", style="bold red")
        return 1
    out.print(speed_table(outcome.loads))
    out.print(
        "Calls: transfers and alarms that were acknowledged. Each transfer is followed by the turn "
        "that takes in its message, which isn't counted here."
    )
    out.print(survival_table(outcome.transfers, outcome.money))
    out.print(
        "In flight: requested, but not acknowledged before the kill. Each of these changes must be "
        "stored whole or not at all. Half: accounts with a part of a change."
    )
    out.print(money_table(outcome.money))
    out.print(
        "Money, as the file has it after the kill. On the way: in messages that wait; the next "
        "process delivers them. Dead letters: messages that an account has refused because it was "
        "blocked; they are retried at the end, when none is. Lost, twice: transfers that did not "
        "arrive once, counted for each account, since a sum would hide one of each."
    )
    out.print(alarm_table(outcome.alarms))
    out.print(
        "Alarms. Before: fired before the kill. While down: became due while the process was down, "
        "and fired when the next one started. After: became due and fired later, with the median "
        "delay. Twice: fired more than once.\n"
    )
    out.print(verdict(outcome))
    return 1 if any(outcome.faults.values()) else 0
