"""The screen of the demo, and its JSON."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

from rich.text import Text

from ..output import quantity
from . import bank
from .ledger import TOTAL, Kill
from .scenario import Outcome

GOOD, BAD = "bold green", "bold red"


def source_of(name: str) -> str:
    """The body of a function of the bank, as it is written there."""
    source = inspect.getsource(bank)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            lines = source.splitlines()[node.body[0].lineno - 1 : node.end_lineno]
            return inspect.cleandoc("\n" + "\n".join(lines))
    raise LookupError(f"the bank has no function {name}")


def lines_of_bank() -> int:
    """The number of lines of the bank's module."""
    return len(inspect.getsource(bank).splitlines())


def path_of_bank() -> Path:
    """The bank's module, from the current folder if it is below that."""
    path, here = Path(bank.__file__), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def story_of_awaits(kill: Kill) -> Text:
    """The bank that awaits, after a kill."""
    return _line(
        kill.run.transfers,
        f"{kill.bank.in_accounts:,} of {TOTAL:,}: ",
        f"{kill.bank.missing:,} gone" if kill.bank.missing else "nothing gone this time",
        kill.bank.missing == 0,
    )


def story_of_messages(kill: Kill) -> Text:
    """The bank that sends messages, after a kill."""
    return _line(
        kill.run.transfers,
        f"{kill.bank.in_accounts:,} in accounts + {kill.bank.in_messages:,} on the way = ",
        f"{kill.bank.in_accounts + kill.bank.in_messages:,}",
        kill.bank.missing == 0,
    )


def story_of_end(outcome: Outcome) -> Text:
    """The money at the end."""
    end = outcome.end
    text = Text(f"  the end  {outcome.transfers:7,} transfers  {end.in_accounts:,} in accounts = ")
    return text.append(f"{end.in_accounts + end.in_messages:,}", style=BAD if end.missing else GOOD)


def _line(transfers: int, sum_: str, result: str, is_right: bool) -> Text:
    text = Text("  ").append("kill -9", style="bold")
    text.append(f"  {transfers:7,} transfers  {sum_}")
    return text.append(result, style=GOOD if is_right else BAD)


def summary(outcome: Outcome) -> str:
    """The durability of the changes, the restarts, and the timers."""
    opened = ", ".join(map(str, outcome.restarts))
    lost = sum(kill.lost for kill in outcome.kills)
    timers = outcome.timers
    return (
        f"  Acknowledged and not in the file: {quantity(lost, 'change')}.\n"
        f"  Milliseconds to open the file after each kill: {opened}.\n"
        f"  {quantity(timers.started, 'timer')}, of which {timers.while_down:,} came due while "
        "the process was down.\n"
        f"  Rang twice: {timers.twice:,}. Never rang: {timers.missing:,}."
    )


def verdict(outcome: Outcome) -> Text:
    """PASSED or FAILED, with the broken guarantees."""
    if not outcome.faults:
        return Text("PASSED: not a cent is missing.", style=GOOD)
    faults = ", ".join(f"{fault}: {count:,}" for fault, count in outcome.faults.items())
    return Text(f"FAILED: {faults}", style=BAD)


def as_json(awaits: list[Kill], outcome: Outcome) -> dict[str, Any]:
    """The outcome of both banks."""
    return {
        "total": TOTAL,
        "awaits": [_kill_as_json(kill) for kill in awaits],
        "message": {
            "kills": [
                {**_kill_as_json(kill), "lost": kill.lost, "reopened_in_ms": reopened_in}
                for kill, reopened_in in zip(outcome.kills, outcome.restarts, strict=True)
            ],
            "end": {
                "in_accounts": outcome.end.in_accounts,
                "in_messages": outcome.end.in_messages,
                "missing": outcome.end.missing,
            },
            "timers": {
                "started": outcome.timers.started,
                "while_down": outcome.timers.while_down,
                "missing": outcome.timers.missing,
                "twice": outcome.timers.twice,
                "early": outcome.timers.early,
            },
        },
        "passed": not outcome.faults,
    }


def _kill_as_json(kill: Kill) -> dict[str, int]:
    return {
        "transfers": kill.run.transfers,
        "in_accounts": kill.bank.in_accounts,
        "in_messages": kill.bank.in_messages,
        "missing": kill.bank.missing,
    }
