"""The options that `benchmarks` and `benchmarks.compare` share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

RESULTS = Path(__file__).parent / "results"


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


def parser_of(
    module: str, results: str, description: str, *, short: str
) -> argparse.ArgumentParser:
    """A parser whose results are called ``results`` by default."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--short", action="store_true", help=short)
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="only the one called NAME, or all with NAME in their names; can be repeated",
    )
    parser.add_argument("--list", action="store_true", help="list all names and end")
    parser.add_argument(
        "--dir",
        type=Path,
        metavar="PATH",
        help="where to put the databases, in a folder that is removed again (default: here)",
    )
    for option, what in (("json", "write all figures"), ("svg", "draw the chart")):
        path = RESULTS / f"{results}.{option}"
        parser.add_argument(
            f"--{option}",
            type=Path,
            metavar="PATH",
            default=path,
            help=f"where to {what} (default: benchmarks/results/{path.name})",
        )
    return parser


def chosen(named: Sequence[N], only: Sequence[str] | None) -> list[N]:
    """Those called exactly as ``only`` says, or with that in their names; all without it."""
    exact = {each.name for each in named}
    return [
        each
        for each in named
        if any(each.name == part if part in exact else part in each.name for part in only or [""])
    ]
