"""Settings of the tests that draw."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

SCALE = float(os.environ.get("TRIO_DURABLE_EXACTNESS_SCALE", "1"))
"""Factor of the number of examples, which are drawn at random unless it is 1; see `make deep`."""

SHRINKS = os.environ.get("TRIO_DURABLE_EXACTNESS_SHRINK") == "1"
"""Let Hypothesis look for a smaller example of a failure, which may take minutes."""


def examples(count: int, **options: object) -> settings:
    """Settings for ``count`` examples, the same ones each time unless more are asked for."""
    return settings(
        max_examples=max(1, int(count * SCALE)),
        deadline=None,
        database=None,
        derandomize=SCALE == 1,
        phases=[Phase.explicit, Phase.generate, *[Phase.shrink] * SHRINKS],
        suppress_health_check=list(HealthCheck),
        **options,  # type: ignore[arg-type]
    )
