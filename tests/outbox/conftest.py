from __future__ import annotations

import pytest
from cluster.away import parametrize_by_place, place_objects_away, sample

from .away import EXCEPT, LONG, MODULES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ in MODULES and metafunc.function.__name__ not in EXCEPT:
        parametrize_by_place(metafunc)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not _is_away_on_a_file(item)]
    sample(items, LONG)


def _is_away_on_a_file(item: pytest.Item) -> bool:
    """True if objects would be away on a storage of the test's own; members share one in memory."""
    callspec = getattr(item, "callspec", None)
    params = {} if callspec is None else callspec.params
    return params.get("objects_are") == "away" and params.get("runtime") == "sqlite"


@pytest.fixture(autouse=True)
def objects_are(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let objects live in the test's runtime, or in another member of a cluster."""
    if getattr(request, "param", "here") == "away":
        place_objects_away(monkeypatch, "outbox")
