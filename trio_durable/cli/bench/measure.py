"""The measurements of the benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import anyio

from ... import Durability, DurableRuntime
from .callers import call_each_once, calls_per_second
from .figures import DURABILITIES, Figure, compare_rates, median_rate
from .objects import Reminder, Tally, lateness
from .plain import BATCH, PlainTable

ROUNDS = 3
CALLERS = 64
OBJECTS = 1000
COLD_PER_SECOND = 40_000
"""Objects to load per second of a round: about the rate of a fast machine."""
ALARMS = 300
FIRST_ALARM_SECONDS = 0.3
"""The time until the first alarm is due. All alarms have been set by then."""
ALARM_GAP_SECONDS = 0.003

STEPS = 2 * ROUNDS + ROUNDS + ROUNDS + 1
"""The number of times that `measure` reports progress."""


async def measure(folder: Path, seconds: float, step: Callable[[], None]) -> list[Figure]:
    """Measure all figures.

    Args:
        folder: The folder for the files, which are not removed.
        seconds: The duration of each measurement.
        step: Called `STEPS` times, to report progress.
    """
    figures: list[Figure] = []
    for durability in DURABILITIES:
        figures += await _changes(folder, durability, seconds, step)
    figures += await _reads(folder, seconds, step)
    figures += await _alarms(folder)
    step()
    return figures


async def _changes(
    folder: Path, durability: Durability, seconds: float, step: Callable[[], None]
) -> list[Figure]:
    """Changes: by one caller against single upserts, and by many callers against batches."""
    ids = [str(number) for number in range(OBJECTS)]
    one: list[tuple[float, float]] = []
    many: list[tuple[float, float]] = []
    path = folder / f"{durability}.db"
    with PlainTable(folder / f"plain-{durability}.db", durability, ids) as plain:
        async with DurableRuntime(path, objects=[Tally], durability=durability) as runtime:
            calls = [runtime.get(Tally, each).add for each in ids]
            await call_each_once(calls, CALLERS)
            for _ in range(ROUNDS):
                mine = await calls_per_second(calls, 1, seconds)
                one.append((mine, plain.upserts_per_second(seconds, 1)))
                mine = await calls_per_second(calls, CALLERS, seconds)
                many.append((mine, plain.upserts_per_second(seconds, BATCH)))
                step()
    singles = median_rate(
        "plain-upserts", "plain: an upsert, a commit", durability, (b for _, b in one)
    )
    batches = median_rate(
        "plain-batches", f"plain: {BATCH} upserts a commit", durability, (b for _, b in many)
    )
    return [
        singles,
        compare_rates(("changes-by-1", "changes, 1 caller"), singles, one),
        batches,
        compare_rates(
            ("changes-by-64", f"changes, {CALLERS} callers, {OBJECTS:,} objects"), batches, many
        ),
    ]


async def _reads(folder: Path, seconds: float, step: Callable[[], None]) -> list[Figure]:
    """Readonly calls: of objects in memory, and of objects that are loaded for the call."""
    ids = [str(number) for number in range(max(OBJECTS, int(COLD_PER_SECOND * seconds)))]
    path = folder / "reads.db"
    warm: list[tuple[float, float]] = []
    cold: list[tuple[float, float]] = []
    with PlainTable(folder / "plain-reads.db", "full", ids) as plain:
        async with DurableRuntime(path, objects=[Tally]) as runtime:
            await call_each_once([runtime.get(Tally, each).add for each in ids], CALLERS)
            calls = [runtime.get(Tally, each).value for each in ids[:OBJECTS]]
            for _ in range(ROUNDS):
                mine = await calls_per_second(calls, CALLERS, seconds)
                warm.append((mine, plain.selects_per_second(seconds)))
                step()
        for _ in range(ROUNDS):
            async with DurableRuntime(path, objects=[Tally]) as runtime:
                mine = await call_each_once(
                    [runtime.get(Tally, each).value for each in ids], CALLERS
                )
                cold.append((mine, plain.selects_per_second(seconds)))
                step()
    selects = median_rate("plain-selects", "plain: a select", "full", (b for _, b in warm + cold))
    return [
        selects,
        compare_rates(("reads", f"readonly calls, {CALLERS} callers"), selects, warm),
        compare_rates(("loads", f"objects loaded, {CALLERS} callers"), selects, cold),
    ]


async def _alarms(folder: Path) -> list[Figure]:
    """The delay of alarms' handlers on an idle runtime."""
    lateness.clear()
    async with DurableRuntime(folder / "alarms.db", objects=[Reminder]) as runtime:
        async with anyio.create_task_group() as tasks:
            for number in range(ALARMS):
                tasks.start_soon(
                    _set, runtime, str(number), FIRST_ALARM_SECONDS + number * ALARM_GAP_SECONDS
                )
        while len(lateness) < ALARMS:  # noqa: ASYNC110  # a list, which has no event
            await anyio.sleep(0.01)
    percentiles = statistics.quantiles(lateness, n=100, method="inclusive")
    return [
        Figure(
            f"alarm-lateness-p{percent}",
            f"alarms late by, {title}",
            "full",
            1000 * percentiles[percent - 1],
            "milliseconds",
        )
        for percent, title in ((50, "median"), (99, "99 of 100"))
    ]


async def _set(runtime: DurableRuntime, object_id: str, after: float) -> None:
    await runtime.schedule_alarm(Reminder, object_id, "ring", after=after)
