"""What is noted as time goes by, and what that comes to."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

from .. import memory


@attrs.frozen
class Sample:
    """The process and its files at one moment."""

    at: float
    """Seconds since the load began."""
    resident_bytes: int
    tasks: int
    """Trio's, all of them."""
    gc_objects: int
    """What the garbage collector knows of."""
    resident_objects: int
    """Durable objects in memory."""
    wal_bytes: int
    file_bytes: int
    calls: int
    """Since the load began."""


def take(at: float, path: Path, resident_objects: int, calls: int) -> Sample:
    """Sample this process and the SQLite file at ``path``; in a trio task."""
    return Sample(
        at,
        memory.resident_bytes(),
        trio.lowlevel.current_statistics().tasks_living,
        len(gc.get_objects()),
        resident_objects,
        size_of(path.with_name(path.name + "-wal")),
        size_of(path),
        calls,
    )


def size_of(path: Path) -> int:
    """The bytes of a file; 0 if it isn't there."""
    return path.stat().st_size if path.exists() else 0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """What y grows by for each of x, by least squares."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def since(samples: Sequence[Sample], at: float) -> list[Sample]:
    """Those that were taken at ``at`` or later."""
    return [sample for sample in samples if sample.at >= at]


def percentile(values: Sequence[float], percent: int) -> float:
    """That percentile of ``values``; NaN if there aren't two."""
    if len(values) < 2:
        return float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
