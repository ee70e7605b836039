"""``trio-durable watch`` and ``trio-durable wait``, on running and on stopped apps."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from trio_durable._api.commands import CommandRequests
from trio_durable._keys import ObjectKey
from trio_durable.cli.commands.watch import _Screen
from trio_durable.cli.storage import watching
from trio_durable.cli.storage.changes import Condition, changed_lines
from trio_durable.cli.storage.running import WatchedState

from .stored_data import ADA, fill, save, writer_of
from .support import command_process, interrupted, run
from .test_open_runtimes import App, app, opened, where

__all__ = ["app", "where"]  # fixtures

CART = "cli.open.Cart"


def next_state(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


# --- running apps --------------------------------------------------------------------------------


def test_each_change_of_a_running_app_is_a_line(app: App) -> None:
    with command_process("watch", "-s", app.where, CART, "a") as process:
        assert next_state(process) == {"type": CART, "id": "a", "revision": 0, "state": None}
        for revision in (1, 2, 3):
            app.call("a", "add", 5)
            found = next_state(process)
            assert (found["revision"], found["state"]["cents"]) == (revision, 5 * revision)
        out, err = interrupted(process)
    assert (out, "Traceback" in err) == ("", False)


@pytest.mark.usefixtures("folder")
def test_a_watch_ends_with_the_app() -> None:
    with opened("app.db", False) as app:
        app.call("a", "add", 5)
        with command_process("watch", "-s", "app.db", CART, "a") as process:
            assert next_state(process)["revision"] == 1
            app.portal.call(app.runtime.end_watches)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "The app has ended.\n")


def test_a_wait_ends_at_the_state(app: App) -> None:
    with command_process("wait", "-s", app.where, CART, "a", "cents=10") as process:
        app.call("a", "add", 5)
        app.call("a", "add", 5)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["state"]["cents"] == 10


@pytest.mark.usefixtures("folder")
def test_a_wait_goes_on_when_the_app_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.01)
    with opened("app.db", False) as app:
        app.call("a", "add", 5)
        app.portal.call(app.runtime.end_watches)
        waited = run("wait", "-s", "app.db", CART, "a", "cents=6", "--timeout", "0.2")
        assert (waited.exit_code, waited.stdout) == (1, "")
        assert waited.stderr == f"cents of {CART}('a') is 5 after 0.2 s.\n"
        reached = run("wait", "-s", "app.db", CART, "a", "cents=5")
        assert (reached.exit_code, reached.stderr) == (0, "")


def test_an_app_of_an_older_release_is_read_from_the_storage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(self: CommandRequests, arguments: list[Any]) -> bytes:
        raise ValueError("'watch_as_command' is no request of this release")

    monkeypatch.setattr(CommandRequests, "watch", unknown)
    with opened("app.db", False) as app:
        app.call("a", "add", 5)
        waited = run("wait", "-s", "app.db", CART, "a", "cents=5")
    assert (waited.exit_code, waited.stderr) == (0, ""), folder


@pytest.mark.usefixtures("folder")
def test_a_type_that_the_app_does_not_know_is_refused() -> None:
    with opened("app.db", False):
        refused = run("watch", "-s", "app.db", "Countr", "a")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "no durable object class is known as 'Countr'" in refused.stderr


# --- stopped apps --------------------------------------------------------------------------------


@pytest.fixture
def stored(folder: Path) -> Path:
    fill(folder / "app.db")
    return folder / "app.db"


def test_the_storage_of_a_stopped_app_is_read(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    read = watching.StateWatch._read_in_thread

    def change_at_the_third(self: watching.StateWatch) -> WatchedState:
        nonlocal looks
        looks += 1
        if looks == 3:
            with writer_of(stored) as writer:
                save(writer, ADA, {"total": 5}, revision=2)
        return read(self)

    monkeypatch.setattr(watching, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(watching.StateWatch, "_read_in_thread", change_at_the_third)
    watched = run("watch", "-s", "app.db", "Cart", "ada", "--count", "2")
    assert watched.exit_code == 0
    assert watched.stderr == "No running app can be asked, so the storage is read.\n"
    lines = [json.loads(line) for line in watched.stdout.splitlines()]
    assert [(line["revision"], line["state"]["total"]) for line in lines] == [(2, 4), (3, 5)]
    assert looks == 3


@pytest.mark.parametrize(
    ("conditions", "is_met"),
    [
        ([], True),
        (["total=4"], True),
        (["total:=4"], True),
        (["total:=4.0"], True),
        (["total=5"], False),
        (["total:=true"], False),
        (["items.0=é"], True),
        (["items.1=é"], False),
        (['items:=["é"]', "total=4"], True),
        (['items:=["é"]', "total=5"], False),
        (["--gone"], False),
    ],
)
def test_the_conditions_of_a_wait(stored: Path, conditions: list[str], is_met: bool) -> None:
    waited = run("wait", "-s", stored.name, "Cart", "ada", *conditions, "--timeout", "0.05")
    assert waited.exit_code == (0 if is_met else 1), waited.output
    if is_met:
        assert json.loads(waited.stdout) == {
            "type": "Cart",
            "id": "ada",
            "revision": 2,
            "state": {"total": 4, "items": ["é"]},
        }
    else:
        assert (waited.stdout, waited.stderr[-14:]) == ("", " after 0.05 s.\n"[-14:])


def test_a_misspelt_field_is_named_at_once(stored: Path) -> None:
    waited = run("wait", "-s", stored.name, "Cart", "ada", "totl=4", "--timeout", "0.05")
    assert waited.stderr == (
        "Cart('ada') has no totl yet (it has total, items); did you mean total?\n"
        "totl of Cart('ada') isn't there after 0.05 s.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("zoe", "--timeout", "0.05"), 1, "Cart('zoe') isn't stored after 0.05 s."),
        (("zoe", "--gone"), 0, ""),
        (("ada", "total"), 2, "'total' is no condition; write FIELD=VALUE or FIELD:=JSON"),
        (("ada", "total:=x"), 2, "total: not JSON"),
        (("ada", "total=4", "--gone"), 2, "leave the conditions out"),
        (("ada", "-t", "nobody"), 2, "there is no tenant nobody"),
    ],
)
def test_the_ends_of_a_wait(
    stored: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    waited = run("wait", "-s", stored.name, "Cart", *arguments)
    assert waited.exit_code == status, waited.output
    assert says in waited.stderr


def test_a_watch_of_a_missing_file_is_refused(folder: Path) -> None:
    refused = run("watch", "-s", "app.db", "Cart", "ada")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert not list(folder.iterdir())


# --- what a terminal shows -----------------------------------------------------------------------


def test_a_terminal_shows_what_changes(capsys: pytest.CaptureFixture[str]) -> None:
    screen = _Screen(ObjectKey("Cart", "ada"))
    screen.show(WatchedState("0", 0, None))
    screen.show(WatchedState("1", 1, b'{"total":3,"name":"\\u001b[31m"}'))
    screen.show(WatchedState("2", 2, b'{"total":4,"name":"\\u001b[31m"}'))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", seen ")[0] for line in lines] == [
        "Cart('ada'): not stored",
        "Cart('ada'): revision 1",
        "{",
        '  "total": 3,',
        '  "name": "\\u001b[31m"',
        "}",
        "Cart('ada'): revision 2",
        "  {",
        '-   "total": 3,',
        '+   "total": 4,',
        '    "name": "\\u001b[31m"',
        "  }",
    ]


def test_states_of_many_lines_are_not_compared() -> None:
    long = "\n".join(map(str, range(3000)))
    [line] = changed_lines(long, "1")
    assert "too many to compare" in line


@pytest.mark.parametrize("text", ["total", "=4", ":=4"])
def test_a_malformed_condition(text: str) -> None:
    with pytest.raises(Exception, match="is no condition"):
        Condition.parse(text)
