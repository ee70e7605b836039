"""Conventions of all commands: help, exit status, errors and output."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import click
import pytest
import trio

from trio_durable import DurableObject, DurableRuntime, ObjectKey, StateDecodeError
from trio_durable.cli.application import SECTIONS, application
from trio_durable.cli.errors import CommandError
from trio_durable.cli.options import json_option, storage_option
from trio_durable.cli.output import console, print_json, progress_bar

from .support import ROOT, assert_refused, python, run

# --- how they begin ------------------------------------------------------------------------------


def test_the_entry_point_is_the_module_s_main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"trio-durable": "trio_durable.cli:main"}
    extra = {line.partition(">")[0] for line in project["optional-dependencies"]["cli"]}
    assert extra == {"click", "rich"}


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    ran = python("-m", "trio_durable", "--version", cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (
        0,
        f"trio-durable {version('trio-durable')}\n",
        "",
    )
    ran = python("-m", "trio_durable", "nonsense", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("trio-durable: No such command 'nonsense'")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_extra_it_says_what_to_install(missing: str, tmp_path: Path) -> None:
    code = f"""
import sys, trio_durable
sys.modules[{missing!r}] = None
from trio_durable.cli import main
main()
"""
    ran = python("-c", code, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert f"needs {missing}, which isn't installed" in ran.stderr
    assert "pip install 'trio-durable[cli]'" in ran.stderr


def test_the_library_does_without_it(tmp_path: Path) -> None:
    code = """
import sys, trio_durable, trio_durable.testing
sys.exit(any(name in sys.modules for name in ("rich", "trio_durable.cli")))
"""
    assert python("-c", code, cwd=tmp_path).returncode == 0


def test_help_imports_no_tables_and_no_machinery_of_a_command(tmp_path: Path) -> None:
    code = """
import sys
sys.argv = ["trio-durable", "--help"]
from trio_durable.cli import main
try:
    main()
except SystemExit:
    heavy = {"rich.console", "trio_durable.cli.bench.measure", "trio_durable.cli.demo.scenario"}
    sys.exit(", ".join(heavy & sys.modules.keys()) or 0)
"""
    ran = python("-c", code, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_what_it_defines_is_in_nobody_s_way(tmp_path: Path) -> None:
    # A runtime serves every class that is imported, by its name.
    code = """
import trio_durable.cli.application
from trio_durable._api.durable_object import known_definitions
assert all(name.startswith("trio_durable.") for name in known_definitions()), known_definitions()
"""
    ran = python("-c", code, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",)])
def test_help_comes_with_examples(args: tuple[str, ...]) -> None:
    result = run(*args)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Examples:\n    trio-durable init shop  " in result.stdout


def test_the_help_has_each_command_once_with_a_whole_sentence() -> None:
    sections = list(chain.from_iterable(SECTIONS.values()))
    assert sorted(str(each.name) for each in sections) == sorted(application.commands)
    text = run("--help", env={"COLUMNS": "80"}).stdout
    assert "..." not in text.partition("\n\n")[2]
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("shwo", "-s", "my app.db", "Cart", "ada"), "show -s 'my app.db' Cart ada"),
        (("migrate-state", "--help"), "migrate-states --help"),
    ],
)
def test_a_misspelt_command_is_answered_with_a_line_to_paste(
    args: tuple[str, ...], line: str
) -> None:
    refused = run(*args)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"Did you mean `trio-durable {line}`?" in refused.stderr


@pytest.mark.parametrize("name", sorted(application.commands))
def test_each_command_has_help_with_examples(name: str) -> None:
    result = run(name, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"Examples:\n    trio-durable {name}" in result.stdout


@pytest.mark.parametrize(
    ("shell", "has"),
    [("bash", "complete -o nosort"), ("zsh", "#compdef trio-durable"), ("fish", "complete --no")],
)
def test_completion_prints_a_script(shell: str, has: str) -> None:
    result = run("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert has in result.stdout
    assert "_TRIO_DURABLE_COMPLETE" in result.stdout


def test_the_script_s_questions_are_answered() -> None:
    asked = {
        "_TRIO_DURABLE_COMPLETE": "fish_complete",
        "COMP_WORDS": "trio-durable ",
        "COMP_CWORD": "d",
    }
    result = run(env=asked)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "plain,demo" in result.stdout


# --- how they end --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("--nonsense",), "No such option"),
        (("completion",), "Missing argument '{bash|zsh|fish}'"),
        (("completion", "csh"), "'csh' is not one of"),
        (("completion", "bash", "zsh"), "unexpected extra argument"),
    ],
)
def test_bad_input(folder: Path, args: tuple[str, ...], says: str) -> None:
    assert_refused(folder, says, *args)
    assert " --help)\n" in run(*args).stderr


Action = Callable[[str, bool], "int | None"]


@pytest.fixture
def define() -> Iterator[Callable[[Action], None]]:
    """Adds a command ``probe`` with the function of a test."""

    def define(action: Action) -> None:
        application.add_command(storage_option(json_option(click.command("probe")(action))))

    yield define
    application.commands.pop("probe", None)


Define = Callable[[Action], None]


def raises(error: BaseException) -> Action:
    def action(storage: str, as_json: bool) -> None:
        raise error

    return action


@pytest.mark.parametrize("status", [None, 0, 1])
def test_a_command_returns_its_status(define: Define, status: int | None) -> None:
    define(lambda storage, as_json: status)
    assert run("probe", "-s", "app.db").exit_code == (status or 0)


ERRORS: dict[str, tuple[Exception, str]] = {
    "a refusal": (CommandError("no way; try another"), "no way; try another"),
    "the library's": (
        StateDecodeError(ObjectKey("Cart", "ada"), "", "line 1", "not\nJSON"),
        (
            "stored state of Cart('ada') can't be read: the stored value at line 1: not JSON; the "
            "row was left untouched: fix the class (or the row) and call again"
        ),
    ),
    "of a nursery": (ExceptionGroup("", [ExceptionGroup("", [CommandError("no way")])]), "no way"),
    "the system's": (
        PermissionError(13, "Permission denied", "/somewhere"),
        "/somewhere: permission denied; ask for access, or choose another place",
    ),
    "the system's, about no path": (
        OSError(28, "No space left on device"),
        "the disk is full; free some space",
    ),
    "with a text of its own": (
        FileNotFoundError(2, "No folder for it in /x"),
        "No folder for it in /x",
    ),
    "with a stranger's name": (CommandError("\x1b[2Jname is bad"), "\\x1b[2Jname is bad"),
    "the system's, about nothing": (TimeoutError("too slow"), "too slow"),
}


@pytest.mark.parametrize(("error", "line"), ERRORS.values(), ids=ERRORS)
def test_an_error_becomes_a_line(define: Define, error: Exception, line: str) -> None:
    define(raises(error))
    result = run("probe", "-s", "app.db")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"trio-durable: {line}\n")


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("a mistake"), ExceptionGroup("", [CommandError("a"), CommandError("b")])],
)
def test_a_mistake_keeps_its_traceback(define: Define, error: Exception) -> None:
    define(raises(error))
    with pytest.raises(type(error)):
        run("probe", "-s", "app.db")


def test_a_storage_in_use_is_refused(define: Define, folder: Path) -> None:
    class Nothing(DurableObject):
        pass

    async def open_twice(path: str) -> None:
        async with DurableRuntime(path, objects=[Nothing]), DurableRuntime(path):
            raise AssertionError("it was opened twice")

    def action(storage: str, as_json: bool) -> None:
        trio.run(open_twice, storage)

    define(action)
    result = run("probe", "-s", "app.db")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("trio-durable: ")
    assert "is in use by a runtime of this process" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt(), ValueError("and more")])],
)
def test_control_c_ends_it_cleanly(define: Define, error: BaseException) -> None:
    define(raises(error))
    result = run("probe", "-s", "app.db")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "")


def test_the_storage_comes_from_the_option_or_the_environment(define: Define) -> None:
    given: list[str] = []

    def action(storage: str, as_json: bool) -> None:
        given.append(storage)

    define(action)
    elsewhere = {"TRIO_DURABLE_STORAGE": "env.db"}
    assert run("probe", "--storage", "long.db").exit_code == 0
    assert run("probe", "-s", "short.db", env=elsewhere).exit_code == 0
    assert run("probe", env=elsewhere).exit_code == 0
    assert given == ["long.db", "short.db", "env.db"]
    result = run("probe")
    assert result.exit_code == 2
    assert result.stderr.startswith("trio-durable probe: Missing option '--storage' / '-s'")
    assert "TRIO_DURABLE_STORAGE" in run("probe", "--help").stdout


# --- what they print -----------------------------------------------------------------------------


def test_json_is_all_there_is_on_standard_output(define: Define) -> None:
    def action(storage: str, as_json: bool) -> None:
        out = console(stderr=as_json)
        with progress_bar(console(stderr=True)) as progress:
            progress.advance(progress.add_task("working", total=1))
        out.print("[bold]a title[/] 1,000")
        if as_json:
            for number in range(2):
                print_json({"id": "ä", "number": number})

    define(action)
    result = run("probe", "-s", "app.db", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [{"id": "ä", "number": 0}, {"id": "ä", "number": 1}]
    # And into a pipe, no colours and no bars.
    assert result.stderr == "a title 1,000\n"
    assert run("probe", "-s", "app.db").stdout == "a title 1,000\n"
    forced = run("probe", "-s", "app.db", env={"FORCE_COLOR": "1", "TERM": "xterm"})
    assert "\x1b[1ma title" in forced.stdout
