"""Seeded random number generators, for stories that run outside of Hypothesis.

While a test of Hypothesis runs, all generators known to `hypothesis.register_random` are seeded:
`random`, NumPy's, those of the user, and Trio's, which shuffles the tasks that are ready to run.
Hypothesis has no public function that only seeds them. So such a test runs here in a thread of its
own, and does nothing but wait for the end of the story.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st


@contextmanager
def seeded_generators() -> Iterator[None]:
    """Seed the generators as Hypothesis does for each test case, and restore them at the end."""
    seeded: Future[None] = Future()
    end: Future[None] = Future()

    # An explicit example runs exactly once; the strategy is never drawn from.
    @settings(phases=[Phase.explicit], deadline=None, database=None)
    @example(None)
    @given(st.none())
    def hold(_: None) -> None:
        seeded.set_result(None)
        end.result()

    def run() -> None:
        try:
            hold()
        except BaseException as error:
            if seeded.done():
                raise
            seeded.set_exception(error)

    # A daemon, or a story without its teardown() would keep the interpreter from exiting.
    thread = Thread(target=run, name="trio-durable seeded generators", daemon=True)
    thread.start()
    seeded.result()
    try:
        yield
    finally:
        end.set_result(None)
        # At the interpreter's exit no daemon thread runs any more, so this one would never end.
        if not sys.is_finalizing():
            thread.join()
