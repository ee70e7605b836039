"""``trio-durable simulate``."""

from __future__ import annotations

import logging
import random
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ..._text import error_summary
from ..command_line import command_line
from ..errors import CommandError
from ..options import Seconds
from ..output import printable
from ..storage.app_classes import import_module

if TYPE_CHECKING:
    from ...testing.simulate import Simulation, SimulationReport

_STORIES_AT_A_TIME = 25
_SEEDS = 2**32


@click.command()
@click.argument("targets", metavar="MODULE[:NAME,…]...", nargs=-1, required=True)
@click.option(
    "--seconds",
    type=Seconds(0),
    default=60,
    show_default=True,
    help="How long to search; a failure is made shorter after that.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, _SEEDS - 1),
    help="Number from which stories are drawn; by default, a new one.",
)
def simulate(targets: Sequence[str], seconds: float, seed: int | None) -> int:
    """Search a module's simulations for a story that fails.

    Prints what each simulation did, or the shortest story that fails, and the
    seed with which the search finds it again. Exit status 1 if one fails, and
    if one could hardly fail: without an accepted call, a fault or a check.

    \b
    Examples:
      trio-durable simulate tests.test_orders
      trio-durable simulate tests.test_orders:Orders --seconds 600
      trio-durable simulate tests.test_orders:Orders --seed 1729
    """
    try:
        from ...testing.simulate import SimulationReport, SimulationWarning
    except ImportError as error:
        raise CommandError(str(error)) from None
    found = [each for target in targets for each in _simulations(target)]
    first_seed = random.SystemRandom().randrange(_SEEDS) if seed is None else seed
    reports = {each: SimulationReport(each.__qualname__) for each in found}
    end = time.monotonic() + seconds
    with _quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", SimulationWarning)  # of all stories together, below
        for simulation, its_seed in _turns(found, first_seed):
            failure = _search(simulation, its_seed, reports[simulation])
            if failure is not None:
                _print_failure(simulation, its_seed, failure)
                return 1
            if simulation is found[-1] and time.monotonic() >= end:
                break
    for report in reports.values():
        click.echo(str(report))
        for doubt in report.doubts:
            click.echo(f"  it could hardly fail: {doubt}")
    click.echo(f"no story failed; the first seed was {first_seed}")
    return 1 if any(report.doubts for report in reports.values()) else 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the log of simulated processes, which die in the middle of what they do."""
    logger = logging.getLogger("trio_durable")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _turns(
    simulations: Sequence[type[Simulation]], seed: int
) -> Iterator[tuple[type[Simulation], int]]:
    """Simulations in turn, without end. All have the same seed in a round."""
    while True:
        for simulation in simulations:
            yield simulation, seed
        seed = (seed + 1) % _SEEDS


def _search(
    simulation: type[Simulation], seed: int, total: SimulationReport
) -> BaseException | None:
    """Try some stories. Returns the error of the shortest one that fails."""
    from ...testing.simulate import run_simulation

    try:
        total.add(run_simulation(simulation, seed=seed, stories=_STORIES_AT_A_TIME))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # an app may raise anything
        return error
    return None


def _print_failure(simulation: type[Simulation], seed: int, error: BaseException) -> None:
    name = f"{simulation.__module__}:{simulation.__qualname__}"
    click.echo(f"{name} fails: {printable(error_summary(error))}\n")
    for note in getattr(error, "__notes__", ()):
        click.echo(note)
    again = command_line("simulate", name, "--seed", str(seed))
    click.echo(f"\nTo find it again:\n  {again}")


def _simulations(target: str) -> list[type[Simulation]]:
    """The simulations that a target names: those of a list, or all that the module defines.

    Raises:
        CommandError: There are none, or the module can't be imported.
    """
    from ...testing.simulate import Simulation

    module_name, separator, names = target.partition(":")
    module = import_module(module_name, "MODULE")
    values = vars(module)
    if not separator:
        found = [
            value
            for value in values.values()
            if isinstance(value, type)
            and issubclass(value, Simulation)
            and value.objects
            and value.__module__ == module_name
        ]
        if not found:
            raise CommandError(
                f"{module_name} defines no simulation; name a module with a subclass of Simulation"
            )
        return found
    found = []
    for name in names.split(","):
        value = values.get(name)
        if not (isinstance(value, type) and issubclass(value, Simulation) and value.objects):
            raise CommandError(f"{module_name} has no simulation {name!r:.80}; check the name")
        found.append(value)
    return found
