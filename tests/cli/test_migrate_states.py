"""States of all objects, brought to the schema of their class; interrupted, and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from trio_durable import DurableObject, ObjectKey, SQLiteStorage, upgrade
from trio_durable.cli.errors import CommandError
from trio_durable.cli.storage.app_classes import AppClasses

from .stored_data import NOW, everything, json_of, save, writer_of
from .support import contents, environment, run


class Purse(DurableObject, name="cli.Purse", schema=3):
    cents: int = 0

    @upgrade(from_schema=1)
    @staticmethod
    def count_cents(state: dict[str, object]) -> dict[str, object]:
        if state["coins"] == interrupted_at:
            raise KeyboardInterrupt
        assert isinstance(state["coins"], int), "no number"
        return {"pennies": state["coins"] * 100}

    @upgrade(from_schema=2)
    @staticmethod
    def rename(state: dict[str, object]) -> dict[str, object]:
        return {"cents": state["pennies"]}


class Plain(DurableObject, name="cli.Plain"):
    count: int = 0


interrupted_at: int | None = None

APP = f"{__name__}:Purse,Plain"
MIGRATE = ("migrate-states", "-s", "app.db", "--app", APP)


def purse(object_id: str, tenant: str = "") -> ObjectKey:
    return ObjectKey("cli.Purse", object_id, tenant)


def states(path: Path) -> dict[str, tuple[int, object]]:
    return {
        f"{row.key.tenant}/{row.key.object_id}": (row.revision, json.loads(row.state))
        for row in everything(path)[0]
        if row.key.type_name == "cli.Purse"
    }


@pytest.fixture
def purses(folder: Path) -> Path:
    """Purses of all schemas, and other objects."""
    path = folder / "app.db"
    with writer_of(path) as writer:
        save(writer, purse("a"), {"coins": 1}, {"x": (NOW, None)})
        save(writer, purse("b"), {"$schema": 2, "pennies": 20})
        save(writer, purse("c"), {"$schema": 3, "cents": 3})
        save(writer, purse("a", "acme"), {"coins": 4})
        save(writer, ObjectKey("cli.Plain", "p"), {"count": 1, "coins": 1})
        save(writer, ObjectKey("Other", "o"), {"coins": 1})
    return path


def test_all_states_of_all_tenants_are_upgraded(purses: Path) -> None:
    before = everything(purses)
    result = run(*MIGRATE)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "cli.Purse: 3 states upgraded to schema 3, 1 had it already.\n"
    assert states(purses) == {
        "/a": (2, {"$as": {}, "$schema": 3, "cents": 100}),
        "/b": (2, {"$as": {}, "$schema": 3, "cents": 20}),
        "/c": (1, {"$schema": 3, "cents": 3}),
        "acme/a": (2, {"$as": {}, "$schema": 3, "cents": 400}),
    }
    after = everything(purses)
    assert after[1] == before[1]
    assert [r for r in after[0] if r.revision == 1] == [
        r for r in before[0] if r.key.type_name != "cli.Purse" or r.key == purse("c")
    ]
    assert run(*MIGRATE).stdout == "cli.Purse: 0 states upgraded to schema 3, 4 had it already.\n"
    assert everything(purses) == after


def test_one_tenant_can_be_upgraded_alone(purses: Path) -> None:
    assert run(*MIGRATE, "-t", "acme").exit_code == 0
    assert [name for name, (revision, _) in states(purses).items() if revision == 2] == ["acme/a"]


def test_a_dry_run_writes_nothing_and_needs_no_writer(purses: Path) -> None:
    with closing(SQLiteStorage(purses).open_writer()):
        before = contents(purses.parent)
        result = run(*MIGRATE, "--dry-run")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == "cli.Purse: 3 states to upgrade to schema 3, 1 had it already.\n"
        refused = run(*MIGRATE)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "is in use by a runtime" in refused.stderr
        assert contents(purses.parent) == before


def test_what_cannot_be_upgraded_is_listed_and_stays(purses: Path) -> None:
    bad = {
        "broken": b"{",
        "failing": {"coins": "1"},
        "later": {"$schema": 4},
        "list": [],
        "unfit": {"$schema": 2, "pennies": "x"},
    }
    with writer_of(purses) as writer:
        for object_id, state in bad.items():
            save(writer, purse(object_id), state)
    for dry, count in ((["--dry-run"], 1), ([], 1), ([], 1)):
        result = run(*MIGRATE, *dry)
        assert result.exit_code == count
        lines = result.stderr.splitlines()
        assert [line.split("'")[1] for line in lines] == list(bad)
        assert "the upgrade count_cents from schema 1 raised AssertionError" in lines[1]
        assert "has schema 4, and this code knows it up to schema 3" in lines[2]
    assert result.stdout == (
        "cli.Purse: 0 states upgraded to schema 3, 4 had it already, 5 can't be upgraded.\n"
    )
    rows = {row.key: row for row in everything(purses)[0]}
    assert {rows[purse(object_id)].revision for object_id in bad} == {1}
    result = run(*MIGRATE, "--json")
    *failures, summary = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, result.stderr) == (1, "")
    assert [each["id"] for each in failures] == list(bad)
    assert failures[0].keys() == {"type", "id", "error"}
    assert summary == {
        "types": [{"type": "cli.Purse", "schema": 3, "upgraded": 0, "current": 4, "failed": 5}]
    }
    whole = json.loads(run(*MIGRATE, "-o", "json").stdout)
    assert whole == {"failures": failures, **summary}
    table = run(*MIGRATE, "-o", "csv")
    assert table.stdout.splitlines() == ["type,schema,upgraded,current,failed", "cli.Purse,3,0,4,5"]
    assert table.stderr.count("\n") == len(bad)


def test_a_class_without_another_schema_has_nothing_to_upgrade(purses: Path) -> None:
    result = run("migrate-states", "-s", "app.db", "--app", f"{__name__}:Plain")
    assert (result.exit_code, result.stdout) == (
        0,
        "Nothing to upgrade: all classes are at schema 1.\n",
    )
    args = ("migrate-states", "-s", "app.db", "--app", f"{__name__}:Plain", "--json")
    assert json_of(*args) == {"types": []}


def fill_with_many(path: Path, count: int) -> None:
    with writer_of(path) as writer:
        for number in range(count):
            save(writer, purse(f"{number:05}"), {"coins": number})


def check_partly_done(path: Path, stopped_at: int) -> None:
    """Some were upgraded, in order and wholly, none behind the one where it stopped."""
    revisions = [revision for revision, _ in states(path).values()]
    done = revisions.count(2)
    assert 0 < done <= stopped_at
    assert revisions == [2] * done + [1] * (len(revisions) - done)


def test_control_c_leaves_what_is_done_and_the_next_run_does_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "app.db"
    fill_with_many(path, 1300)
    monkeypatch.setattr(sys.modules[__name__], "interrupted_at", 1100)
    assert run(*MIGRATE).exit_code == 130
    check_partly_done(path, 1100)
    monkeypatch.setattr(sys.modules[__name__], "interrupted_at", None)
    assert run(*MIGRATE).exit_code == 0
    assert list(states(path).values()) == [
        (2, {"$as": {}, "$schema": 3, "cents": 100 * number}) for number in range(1300)
    ]


SHOP = """
import os, signal
from trio_durable import DurableObject, upgrade

class Purse(DurableObject, name="cli.Purse", schema=2):
    cents: int = 0

    @upgrade(from_schema=1)
    @staticmethod
    def count_cents(state):
        if state["coins"] == int(os.environ.get("KILL_AT", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"cents": state["coins"] * 100}
"""


def test_a_kill_leaves_what_is_done_and_the_next_run_does_the_rest(folder: Path) -> None:
    path = folder / "app.db"
    fill_with_many(path, 1300)
    (folder / "shop.py").write_text(SHOP, encoding="utf-8")
    command = [sys.executable, "-m", "trio_durable", "migrate-states", "-s", "app.db"]
    command += ["--app", "shop"]
    killed = subprocess.run(command, cwd=folder, env={**environment(), "KILL_AT": "1100"})
    assert killed.returncode == -signal.SIGKILL
    check_partly_done(path, 1100)
    ran = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("cli.Purse: ")
    assert list(states(path).values()) == [
        (2, {"$as": {}, "$schema": 2, "cents": 100 * number}) for number in range(1300)
    ]


# --- the classes of an app -----------------------------------------------------------------------


def test_an_app_is_what_its_modules_bring(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    two = "from trio_durable import DurableObject\n" + "".join(
        f"class {name}(DurableObject, name='cli.Twin'): pass\n" for name in ("One", "Two")
    )
    (folder / "cli_twins.py").write_text(two, encoding="utf-8")
    (folder / "cli_broken.py").write_text("1 / 0", encoding="utf-8")
    try:
        names = {each.name for each in AppClasses(["cli_twins"])}
        assert {"cli.Twin", "cli.Purse"} <= names
        assert not any(name.startswith("trio_durable.") for name in names)
        with pytest.raises(
            CommandError, match=r"cli_twins\.One and cli_twins\.Two both have the stored name"
        ):
            AppClasses(["cli_twins"]).of_type("cli.Twin")
        one = AppClasses(["cli_twins:One", APP])
        assert one.of_type("cli.Twin").cls.__name__ == "One"
        assert [each.name for each in one] == ["cli.Plain", "cli.Purse", "cli.Twin"]
        says = "cli_broken can't be imported: ZeroDivisionError: division by zero; fix that first"
        with pytest.raises(CommandError, match=says):
            AppClasses(["cli_broken"])
        (folder / "cli_lacking.py").write_text("import cli_nothing", encoding="utf-8")
        says = "cli_lacking can't be imported: ModuleNotFoundError: No module named 'cli_nothing';"
        with pytest.raises(CommandError, match=says):
            AppClasses(["cli_lacking"])
    finally:
        sys.modules.pop("cli_twins", None)
