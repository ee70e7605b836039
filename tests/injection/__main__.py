"""The command of this package, see there."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from .campaign import Campaign, Plan, actions, backends
from .faults import ACTIONS
from .situations import SITUATIONS

BETWEEN_LINES = 30.0


def main(arguments: list[str] | None = None) -> int:
    """Run trials; 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.injection")
    parser.add_argument("--every", type=int, default=1, help="leave out points between")
    parser.add_argument("--situation", action="append", choices=SITUATIONS, help="all if not given")
    parser.add_argument("--backend", action="append", choices=backends(), help="likewise")
    parser.add_argument("--action", action="append", choices=ACTIONS, help="likewise")
    parser.add_argument("--points", default="", help="only points that begin so: module.py:line")
    options = parser.parse_args(arguments)
    memory = Path("/dev/shm")  # noqa: S108  # or the folder for temporary files
    began = told = time.monotonic()
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        campaign = Campaign(Path(folder))
        for text in campaign.run(_plans(campaign, options)):
            if text:
                say(text)
            now = time.monotonic()
            if now - told > BETWEEN_LINES:
                told = now
                say(f"{now - began:.0f} s: {campaign.totals.line()}")
    say(f"{time.monotonic() - began:.0f} s: {campaign.totals.line()}")
    return 1 if campaign.totals.bad else 0


def _plans(campaign: Campaign, options: argparse.Namespace) -> Iterator[Plan]:
    chosen = product(options.backend or backends(), options.situation or SITUATIONS)
    number = 0
    for backend, situation in chosen:
        points = campaign.points(backend, situation)
        for action in options.action or actions(backend):
            for point in points:
                number += 1
                name = f"{point.module}:{point.line}"
                if (not options.points and number % options.every == 0) or (
                    options.points and f"{name}:".startswith(f"{options.points}:")
                ):
                    yield Plan(backend, situation, action, point)


def say(text: str) -> None:
    """Write a text, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
