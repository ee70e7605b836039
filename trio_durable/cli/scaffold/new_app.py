"""The files of a new app."""

from __future__ import annotations

from string import Template

_FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$project"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["trio", "trio-durable"]

[dependency-groups]
dev = ["mypy", "pytest", "ruff"]

[tool.hatch.build.targets.wheel]
packages = ["$package"]

[tool.mypy]
strict = true
files = ["$package", "tests"]

[tool.pytest.ini_options]
testpaths = ["tests"]
# So that the tests find the package where it isn't installed.
pythonpath = ["."]

[tool.ruff.lint]
extend-select = ["B", "E", "F", "I", "UP"]
""",
    "README.md": """\
# $package

An app of durable objects, built with trio_durable.

```
python -m venv .venv
. .venv/bin/activate
pip install --upgrade pip
pip install --group dev --editable .

python -m $package    # run it twice: it goes on counting
pytest
ruff check && ruff format --check && mypy
```

- `$package/page.py` has a first durable object: state, handlers and an alarm.
- `$package/__main__.py` opens the runtime, on the SQLite file `$package.db`.
- `tests/` shows how to test both what a handler does and what happens a day later.

`trio-durable new Cart --fields 'items:dict[str, int]'` adds an object and its test.
""",
    ".gitignore": """\
.venv/
__pycache__/
*.egg-info/
.mypy_cache/
.pytest_cache/
.ruff_cache/
dist/
*.db
*.db-lock
*.db-shm
*.db-wal
""",
    "$package/__init__.py": '''\
"""An app of durable objects."""
''',
    "$package/__main__.py": '''\
"""Run it: ``python -m $package``."""

import trio
from trio_durable import DurableRuntime

from .page import Page


async def main() -> None:
    """Visit a page."""
    async with DurableRuntime("$package.db") as runtime:
        welcome = runtime.get(Page, "/welcome")
        total = await welcome.visit()
        print(f"{await welcome.visits_today()} visits today, {total} in all")


if __name__ == "__main__":
    trio.run(main)
''',
    "$package/page.py": '''\
"""A first durable object."""

from datetime import timedelta

from trio_durable import DurableObject, alarm, handler


class Page(DurableObject):
    """The visits of a page. Its id is the path of the page."""

    # The state: stored with every change. A new object begins like this.
    today: int = 0
    total: int = 0

    @handler
    def visit(self) -> int:
        """Count one more. The caller hears of it when it is on disk."""
        if self.today == 0:
            self.ctx.schedule_alarm("end_day", after=timedelta(days=1))
        self.today += 1
        self.total += 1
        return self.total

    @handler(readonly=True)
    def visits_today(self) -> int:
        """Look at the state, which can't be changed in here."""
        return self.today

    @alarm
    def end_day(self) -> None:
        """Begin a new day, even if the program was down when this was due."""
        self.today = 0
''',
    "tests/conftest.py": '''\
"""What all tests share."""

import pytest
from trio.testing import MockClock


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Tests run on Trio with a clock that jumps, so that waiting takes no time."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}
''',
    "tests/test_page.py": '''\
"""Tests of Page."""

from datetime import timedelta

import pytest
import trio
from trio_durable import DurableRuntime
from trio_durable.testing import assert_persisted, perform_handler

from $package.page import Page

pytestmark = pytest.mark.anyio


async def test_a_visit_is_counted() -> None:
    turn = await perform_handler(Page(today=1, total=5), "visit")
    assert turn.result == 6
    assert turn.state == Page(today=2, total=6)


async def test_the_first_visit_begins_the_day() -> None:
    turn = await perform_handler(Page(total=5), "visit")
    assert turn.alarms["end_day"].due_at == turn.began_at + timedelta(days=1)


async def test_visits_are_stored(durable_runtime: DurableRuntime) -> None:
    page = durable_runtime.get(Page, "/welcome")
    assert await page.visit() == 1
    await assert_persisted(durable_runtime, Page, "/welcome", today=1, total=1)


async def test_a_day_later(durable_runtime: DurableRuntime) -> None:
    page = durable_runtime.get(Page, "/welcome")
    await page.visit()
    await trio.sleep(timedelta(days=1, seconds=1).total_seconds())
    assert await page.visits_today() == 0
    assert await page.visit() == 2
''',
}


def app_files(package: str) -> dict[str, str]:
    """The files of an app, from their paths to what is in them."""
    names = {"package": package, "project": package.replace("_", "-").strip("-")}
    return {
        Template(path).substitute(names): Template(text).substitute(names)
        for path, text in _FILES.items()
    }
