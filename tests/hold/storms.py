"""Storms of signals: processes with a runtime, whose signals' handlers exit or raise anywhere.

    PYTHONPATH=tests python -m hold.storms [--minutes N] [--seed N] [--count N]
        [--backend NAME …] [--storm NAME …]

A trial is one process in one storm, see `hold.stormed`. It must end within a bound; what leaves
its event loop is the signal's exception or nothing; and the file has every change that was
acknowledged, once, and no half of a turn. Each alarm rings once.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, product
from pathlib import Path
from random import SystemRandom
from typing import IO, Any

import anyio
import attrs
import orjson

from trio_durable import DurableObject, DurableRuntime, SQLiteStorage

from .stormed import BACKENDS, STORMS, Chime, Ledger

ROOT = Path(__file__).parents[1]
RINGING_SECONDS = 10.0
_BETWEEN_LINES = 10.0


@attrs.frozen
class Trial:
    """One process in one storm."""

    backend: str
    storm: str
    seed: int

    def __str__(self) -> str:
        return f"--backend {self.backend} --storm {self.storm} --seed {self.seed} --count 1"


@attrs.frozen
class Outcome:
    """What was seen of a process."""

    code: int | None
    """Its exit code; None if it hung."""
    lines: list[str]
    errors: str

    @property
    def end(self) -> str:
        """How the event loop was left."""
        ends = [line.removeprefix("end ") for line in self.lines if line.startswith("end ")]
        return ends[-1] if ends else "unknown"


class Server:
    """A process that forks one for each trial."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, trial: Trial, path: Path) -> Outcome:
        """Run a trial on a file."""
        request = [str(path), trial.backend, trial.storm, trial.seed]
        _pipe(self._process.stdin).write(json.dumps(request) + "\n")
        _pipe(self._process.stdin).flush()
        return Outcome(*json.loads(_pipe(self._process.stdout).readline()))


@contextmanager
def server() -> Iterator[Server]:
    """A server, which ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "hold.stormed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        yield Server(process)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


# --- the verdict ---------------------------------------------------------------------------------


def faults(trial: Trial, outcome: Outcome, path: Path) -> Iterator[str]:
    """What is wrong; nothing if all is as it must be."""
    if outcome.code is None and not any(line.startswith("~ lost") for line in outcome.lines):
        yield f"hang:\n{outcome.errors}"
    elif outcome.code == -signal.SIGINT and outcome.end == "KeyboardInterrupt":
        pass  # Python remembers one that was raised in code of `exec`, and exits so
    elif outcome.code is not None and outcome.code < 0:
        yield f"died of signal {-outcome.code}:\n{outcome.errors}"
    has_lost_tasks = any(line.startswith(("~ lost", "~ wedge")) for line in outcome.lines)
    for line in outcome.lines:
        if line.startswith("! ") and not (has_lost_tasks and line.startswith("! wedge")):
            yield line[2:]
    if trial.storm == "nothing" and outcome.end != "done":
        yield f"a signal without effect ended it: {outcome.end}\n{outcome.errors}"
    for line in outcome.errors.splitlines():
        if "trio_durable" in line and "never retrieved" in line:
            yield line
    if path.exists():
        yield from _of_the_file(trial, outcome, path)


def _of_the_file(trial: Trial, outcome: Outcome, path: Path) -> Iterator[str]:
    said = [line.split() for line in outcome.lines]
    begun = {words[1] for words in said if words[0] == "?"}
    refused = {words[1] for words in said if words[0] == "-" and words[2] == "ValueError"}
    if trial.storm == "nothing":
        for words in said:
            if words[0] == "-" and words[2] != "ValueError":
                yield f"a signal without effect failed a call: {words}"
    anyio.run(_ring, path)
    ledgers = _stored(path, Ledger)
    for object_id, row in ledgers.items():
        names = row["names"]
        if row["total"] != len(names) or row["last"] != names[-1]:
            yield f"half a turn of {object_id} is stored: {row}"
        if len(set(names)) < len(names):
            yield f"stored twice in {object_id}: {names}"
        if unknown := {name for name in names if name.rstrip("ab") not in begun}:
            yield f"stored in {object_id}, and never called: {unknown}"
        if failed := refused.intersection(names):
            yield f"stored in {object_id}, although the handler has raised: {failed}"
    for words in said:
        if words[0] == "=":
            _, name, object_id, position = words
            names = ledgers[object_id]["names"] if object_id in ledgers else []
            if names[int(position) - 1 : int(position)] != [name]:
                yield f"{name} was acknowledged by {object_id} as number {position}: {names}"
    chimes, alarms = _stored(path, Chime), _alarms(path)
    acknowledged = {words[1] for words in said if words[0] == "+"}
    for token in acknowledged - chimes.keys():
        yield f"the alarm {token} was acknowledged, and isn't set"
    for token, row in chimes.items():
        if row["planned"] != 1 or row["rung"] + (token in alarms) != 1:
            yield f"the alarm {token} was set and has rung: {row}, to come: {token in alarms}"


async def _ring(path: Path) -> None:
    """Open the file once more, and return when what is due has rung."""
    async with DurableRuntime(path, objects=[Ledger, Chime], durability="normal"):
        with anyio.move_on_after(RINGING_SECONDS):
            soon = time.time() + RINGING_SECONDS
            while any(at < soon for at in _alarms(path).values()):
                await anyio.sleep(0.005)


def _alarms(path: Path) -> dict[str, float]:
    """When alarms can be claimed, by the ids of their objects."""
    reader = SQLiteStorage(path).open_reader()
    try:
        found = reader.due_alarms(2**62, None, 2**31, ())
    finally:
        reader.close()
    return {each.key.object_id: each.available_at / 1e6 for each in found}


def _stored(path: Path, cls: type[DurableObject]) -> dict[str, Any]:
    """The states of all objects of a class."""
    reader = SQLiteStorage(path).open_reader()
    try:
        rows = reader.browse_objects(cls.__name__, None, 2**31)
    finally:
        reader.close()
    return {row.key.object_id: orjson.loads(row.state) for row in rows}


# --- many of them --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run trials until told to stop; 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m hold.storms")
    parser.add_argument("--minutes", type=float, help="how long; until Control-C if not given")
    parser.add_argument("--count", type=int, help="how many; without end if not given")
    parser.add_argument("--seed", type=int, help="the first seed; a fresh one if not given")
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="all if not given")
    parser.add_argument("--storm", action="append", choices=STORMS, help="likewise")
    options = parser.parse_args(arguments)
    first = SystemRandom().randrange(2**31) if options.seed is None else options.seed
    began = told = time.monotonic()
    deadline = float("inf") if options.minutes is None else began + 60 * options.minutes
    seen: Counter[str] = Counter()
    chosen = list(product(options.backend or BACKENDS, options.storm or STORMS))
    numbers = count() if options.count is None else range(options.count)
    try:
        with server() as running, tempfile.TemporaryDirectory() as folder:
            for number in numbers:
                backend, storm = chosen[number % len(chosen)]
                trial = Trial(backend, storm, first + number)
                wrong, outcome = run(running, trial, Path(folder))
                seen["trials"] += 1
                seen["wrong"] += bool(wrong)
                seen["calls"] += sum(line.startswith("?") for line in outcome.lines)
                seen[f"left by {outcome.end}"] += 1
                for text in wrong:
                    say(text)
                if wrong:
                    notes = [text for text in outcome.lines if text.startswith("~ ")]
                    say("\n".join([*notes, f"    python -m hold.storms {trial}"]))
                now = time.monotonic()
                if now >= deadline:
                    break
                if now - told >= _BETWEEN_LINES:
                    told = now
                    say(line(seen, now - began))
    except KeyboardInterrupt:
        say("\nstopped")
    say(line(seen, time.monotonic() - began))
    return 1 if seen["wrong"] else 0


def run(running: Server, trial: Trial, folder: Path) -> tuple[list[str], Outcome]:
    """Run a trial on a file of its own; what is wrong, and what was seen."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = Path(own) / "a.db"
        outcome = running.run(trial, path)
        return list(faults(trial, outcome, path)), outcome


def line(seen: Counter[str], seconds: float) -> str:
    """What there was by now."""
    return f"{seconds:.0f} s: " + ", ".join(f"{number} {name}" for name, number in seen.items())


def say(text: str) -> None:
    """Write a line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
