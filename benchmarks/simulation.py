"""Steps of a simulation per second: ``python -m benchmarks.simulation``.

Steps with an effect are counted: calls, waits, crashes. The time includes hypothesis drawing them.
"""

from __future__ import annotations

from time import perf_counter, process_time

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from examples.simulations import Carts, Payments
from trio_durable.testing.simulate import Simulation

STORIES = 150


def measure(simulation: type[Simulation]) -> str:
    """One simulation's figures, as a line."""
    steps = 0

    class Counted(simulation):  # type: ignore[valid-type,misc]  # whichever it is
        def check_invariants(self, *args: object) -> None:
            nonlocal steps
            steps += self._is_checked  # a step has come to its end
            super().check_invariants(*args)

    chosen = settings(
        Counted.TestCase.settings, max_examples=STORIES, derandomize=True, database=None
    )
    began, cpu = perf_counter(), process_time()
    run_state_machine_as_test(Counted, settings=chosen)
    took, worked = perf_counter() - began, process_time() - cpu
    return (
        f"{simulation.__name__:10} {steps:6,} steps in {took:5.2f} s: {steps / took:5,.0f} a "
        f"second, {steps / worked:5,.0f} in a second of one processor"
    )


if __name__ == "__main__":
    for simulation in (Carts, Payments):
        print(measure(simulation))
