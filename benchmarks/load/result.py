"""What a part of the load comes to: tables, verdicts and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

import attrs

from ..plot import Panel

P = ParamSpec("P")
T = TypeVar("T")


@attrs.frozen
class Table:
    """Figures in rows."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@attrs.frozen
class Verdict:
    """A bound, what was found, and whether it holds."""

    text: str
    holds: bool


@attrs.frozen(kw_only=True)
class Result:
    """One part, done."""

    title: str
    tables: Sequence[Table]
    verdicts: Sequence[Verdict] = ()
    panels: Sequence[Panel] = ()
    raw: dict[str, object] = attrs.field(factory=dict)
    """What is written down besides, for who wants to draw it anew."""


Part = Callable[[Path, bool], Result]
"""Does it, with files in a folder of its own; shorter, if it is told to."""


def in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a fresh process, whose memory nobody has used."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args, kwargs)
