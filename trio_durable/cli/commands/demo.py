"""``trio-durable demo``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import click

from ..errors import CommandError
from ..options import Seconds, json_option
from ..output import console, print_json


@click.command()
@click.option(
    "--kills",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="Number of kills of the second bank.",
)
@click.option(
    "--seconds",
    type=Seconds(0.01),
    default=1.5,
    show_default=True,
    help="Seconds of transfers before each kill.",
)
@click.option(
    "--down",
    type=Seconds(0),
    default=1,
    show_default=True,
    help="Downtime after each kill, in seconds.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the second bank in this SQLite file.",
)
@json_option
def demo(kills: int, seconds: float, down: float, keep: Path | None, as_json: bool) -> int:
    """Kill two banks, one that loses money and one that doesn't.

    64 callers transfer money between 50 accounts, which are durable objects in
    an SQLite file. The first bank awaits two handlers for each transfer. A kill
    with SIGKILL takes the money between them. The second bank sends a message
    in the commit of the payer. After each kill all money must be in accounts or
    messages, and every acknowledged change must be in the file. Timers that
    come due while the process is down must ring once, after the restart. This
    takes about 15 seconds. Exit status 1 if a cent is off.

    \b
    Examples:
      trio-durable demo
      trio-durable demo --keep bank.db; trio-durable ls -s bank.db Account
    """
    # Imported here, so that other commands start without them.
    from ..demo import report
    from ..demo.child import WorkerFailed
    from ..demo.ledger import OPENING
    from ..demo.scenario import Pace, Stage
    from ..demo.worker import ACCOUNTS, CALLERS

    if keep is not None and keep.exists():
        raise CommandError(f"{keep}: it already exists; choose another name, or move it away")
    if keep is not None and not keep.absolute().parent.is_dir():
        raise CommandError(f"{keep}: there is no folder {keep.parent}; create it first")
    out = console(stderr=as_json)
    out.quiet = as_json
    out.print(
        f"{ACCOUNTS} accounts with {OPENING:,} each are durable objects in one SQLite file. "
        f"{CALLERS} callers transfer money between them until the process is killed.\n"
    )
    stage = Stage(Pace(seconds, down), out)
    try:
        with tempfile.TemporaryDirectory(prefix="trio_durable-demo-") as name:
            folder = Path(name)
            out.print("Two awaits", style="bold")
            out.print(_indented(report.source_of("transfer_by_awaits")), style="cyan")
            awaits = stage.kill_until_money_is_missing(folder)
            out.print(report.story_of_awaits(awaits[-1]), end="\n\n")
            out.print("One message", style="bold")
            out.print(_indented(report.source_of("transfer")), style="cyan")
            outcome = stage.kill_and_restart(
                keep or folder / "bank.db",
                kills,
                on_kill=lambda kill: out.print(report.story_of_messages(kill)),
            )
    except WorkerFailed as failure:
        out.quiet = False
        out.print(f"FAILED: {failure}", style="bold red")
        return 1
    if as_json:
        print_json(report.as_json(awaits, outcome))
    out.print(report.story_of_end(outcome))
    out.print(report.summary(outcome), end="\n\n")
    out.print(report.verdict(outcome), end="\n\n")
    out.print(
        f"The bank has {report.lines_of_bank()} lines: {report.path_of_bank()}", soft_wrap=True
    )
    out.print(f"Look inside: {_look_inside(keep)}", soft_wrap=True)
    return 1 if outcome.faults else 0


def _indented(source: str) -> str:
    return "".join(f"  {line}\n" for line in source.splitlines())


def _look_inside(keep: Path | None) -> str:
    """A command that can be pasted: the one on the PATH, or else that of this environment."""
    command = "trio-durable"
    if shutil.which(command) is None:
        command = _relative(Path(sys.executable).with_name(command))
    if keep is None:
        return f"{command} demo --keep bank.db && {command} ls -s bank.db Account"
    return f"{command} ls -s {keep} Account"


def _relative(path: Path) -> str:
    """A path from the current folder, if it is below that."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
