"""Commands that ask a running app: call, stacks, top, shell."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trio_durable.cli.commands.top import Rates, awaited
from trio_durable.cli.exit_status import ExitStatus

from .support import environment, run
from .test_open_runtimes import APP, IDS, App, app, held, opened, where

__all__ = ["app", "where"]  # fixtures

CART = "cli.open.Cart"


def test_a_call_runs_in_the_app(app: App) -> None:
    for object_id in IDS:
        called = run("call", "-s", app.where, CART, object_id, "add", "cents:=5")
        assert (called.exit_code, called.stdout) == (0, "5\n"), called.output
        assert app.call(object_id, "read") == 5


def test_arguments_come_from_the_command_line_and_from_standard_input(app: App) -> None:
    add = ("call", "-s", app.where, CART, "a", "add")
    assert run(*add, "-", stdin='{"cents": 5}').stdout == "5\n"
    for arguments, stdin, says in (
        (["cents=5"], None, "the argument cents: '5' is of type str, not int"),
        (["cents:=x"], None, "cents: is not JSON"),
        (["cents:=1", "cents:=2"], None, "the argument 'cents' is given twice"),
        (["5"], None, "'5' is no argument; write NAME=TEXT, NAME:=JSON, or -"),
        (["-"], "[5]", "standard input must be a JSON object"),
        ([], None, "missing a required argument: 'cents'"),
    ):
        refused = run(*add, *arguments, stdin=stdin)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert says in refused.stderr
    assert app.call("a", "read") == 5


def test_a_call_of_a_tenant(app: App) -> None:
    run("call", "-s", app.where, "-t", "acme", CART, "a", "add", "cents:=5")
    assert (app.call("a", "read", tenant="acme"), app.call("a", "read")) == (5, 0)


def test_a_call_with_a_once_key_is_made_once(app: App) -> None:
    for _ in range(2):
        called = run("call", "-s", app.where, CART, "a", "add", "cents:=5", "--once", "k")
        assert called.stdout == "5\n", called.output
    assert app.call("a", "read") == 5


def test_the_error_of_a_handler_has_status_1(app: App) -> None:
    failed = run("call", "-s", app.where, CART, "a", "fail_with", "text=no")
    assert (failed.exit_code, failed.stdout, failed.stderr) == (1, "", "ValueError: no\n")


def test_a_call_that_may_have_run_has_status_3(app: App) -> None:
    began, end = held["a"] = threading.Event(), threading.Event()
    try:
        hung = run("call", "-s", app.where, CART, "a", "hang", "--timeout", "0.5")
    finally:
        end.set()
    assert began.is_set()
    assert (hung.exit_code, hung.stdout) == (ExitStatus.UNKNOWN, "")
    assert "still runs to its end" in hung.stderr


def test_stacks_name_the_line_at_which_a_handler_waits(app: App) -> None:
    began, end = held["a"] = threading.Event(), threading.Event()
    thread = threading.Thread(target=app.call, args=("a", "hang"))
    thread.start()
    try:
        assert began.wait(20)
        shown = run("stacks", "-s", app.where)
        [turn] = [json.loads(run("stacks", "-s", app.where, "--json").stdout)]
    finally:
        end.set()
        thread.join()
    assert shown.stdout.startswith(f"{CART}('a'): hang for ")
    assert turn["awaits"][0]["function"] == "Cart.hang"
    assert turn["awaits"][0]["file"] == __file__.replace("test_running", "test_open_runtimes")
    idle = run("stacks", "-s", app.where)
    assert (idle.exit_code, idle.stdout, idle.stderr) == (0, "", "No object is busy.\n")


def test_top_has_a_line_for_each_process(app: App) -> None:
    for object_id in IDS:
        app.call(object_id, "add", 1)
    shown = run("top", "-s", app.where, "--json")
    processes = [json.loads(line) for line in shown.stdout.splitlines()]
    assert sum(each["objects"] for each in processes) == len(IDS)
    assert sum(each["commits"] for each in processes) == len(IDS)
    table = run("top", "-s", app.where)
    assert table.exit_code == 0
    assert all(len(line) <= 80 for line in table.stdout.splitlines())
    assert len(json.loads(run("top", "-s", app.where, "-o", "json").stdout)) == len(processes)
    rows = run("top", "-s", app.where, "-o", "csv", "--looks=2", "--every=0.01").stdout
    assert len(rows.splitlines()) == 1 + 2 * len(processes)
    assert rows.splitlines()[0].split(",") == list(processes[0])


def test_top_names_the_innermost_line_of_the_app() -> None:
    def frame(file: str, function: str) -> dict[str, object]:
        return {"file": file, "function": function, "line": 7}

    own = frame("/srv/trio/shop.py", "Cart.pay")
    theirs = frame("/usr/lib/python3.11/site-packages/anyio/_core/_eventloop.py", "sleep")
    loop = frame("/usr/lib/python3.11/asyncio/tasks.py", "sleep")
    assert awaited([own, theirs, loop]) == "Cart.pay:7"
    assert awaited([theirs]) == "sleep:7"
    assert awaited([]) == ""


def test_rates_are_those_of_the_time_that_has_passed() -> None:
    rates = Rates()

    def counted(node: str, count: int) -> dict[str, object]:
        return {"node": node, **dict.fromkeys(("alarms_delivered", "messages_delivered"), 0)} | {
            "commits": count
        }

    assert rates.since_last([counted("a", 100)], 5.0) == [None]
    assert rates.since_last([counted("a", 150), counted("b", 7)], 15.0) == [(5.0, 0.0, 0.0), None]


@pytest.mark.parametrize("command", [("call", CART, "a", "read"), ("stacks",), ("top",)])
def test_no_app_is_open(where: str, command: tuple[str, ...]) -> None:
    name, *arguments = command
    with opened(where, False):
        pass
    refused = run(name, "-s", where, *arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "start" in refused.stderr


def test_a_note_of_a_killed_app_leads_nowhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_durable._cluster.file_cluster.ENTER_SECONDS", 0.1)
    with opened("app.db", False):
        note = Path("app.db-node").read_bytes()
    Path("app.db-node").write_bytes(note)
    refused = run("call", "-s", "app.db", CART, "a", "read")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "no app has" in refused.stderr
    assert "doesn't answer" in refused.stderr


SHELL = """
await runtime.get(Cart, "a").add(5)
for n in range(2):
    print(await runtime.get(Cart, "a").read() + n)

1 /
1 / 0
{}["x"]
"""


def test_the_shell_awaits(app: App, folder: Path) -> None:
    command = [sys.executable, "-m", "trio_durable", "shell", "-s", app.where]
    command += ["--app", f"{APP}:Cart"]
    env = environment()
    env["PYTHONPATH"] = f"{Path(__file__).parents[1]}:{env['PYTHONPATH']}"
    ended = subprocess.run(
        command, input=SHELL, capture_output=True, text=True, env=env, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    printed = ended.stdout.replace(">>> ", "").replace("... ", "").split()
    assert printed == ["5", "5", "6"]
    for error in ("SyntaxError", "ZeroDivisionError", "KeyError: 'x'"):
        assert error in ended.stderr
    assert app.call("a", "read") == 5
