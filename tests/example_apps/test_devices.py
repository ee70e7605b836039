from __future__ import annotations

import pytest

from examples.devices import REPORTS, main

pytestmark = pytest.mark.anyio


async def test_each_device_goes_silent_at_the_end_of_the_day() -> None:
    assert 50 <= await main(50) <= 50 * REPORTS
