"""Running the command, in this process and in others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from trio_durable.cli.application import application
from trio_durable.cli.exit_status import ExitStatus

ROOT = Path(__file__).parents[2]

# Some build services set variables that make rich assume a terminal, or hide colours.
_UNWANTED = {"FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TRIO_DURABLE_STORAGE"}


def environment() -> dict[str, str]:
    """The environment for other processes, which import the tested library in any folder."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    store = {name: os.environ[name] for name in os.environ.keys() - _UNWANTED}
    return store | {"PYTHONPATH": path, "MYPYPATH": str(ROOT), "COLUMNS": "80"}


def run(
    *args: str, env: Mapping[str, str] | None = None, stdin: str | bytes | None = None
) -> Result:
    """Run the command in this process. Exceptions that it doesn't handle are raised here."""
    outer: dict[str, str | None] = dict.fromkeys(_UNWANTED)
    runner = CliRunner(env={**outer, "COLUMNS": "80", **(env or {})})
    # As wide as in a window of 80 columns or more; else the runner has an idea of its own.
    return runner.invoke(application, args, input=stdin, catch_exceptions=False, terminal_width=78)


def python(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run an interpreter."""
    return subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes | None]:
    """All files and folders in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def assert_refused(folder: Path, says: str, *args: str, stdin: str | bytes | None = None) -> None:
    """The command prints one line with ``says``, ends with status 2, and changes nothing."""
    before = contents(folder)
    result = run(*args, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("trio-durable")
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.endswith("\n")
    assert says in result.stderr
    assert contents(folder) == before


@contextmanager
def command_process(
    *args: str, env: Mapping[str, str] = {}, cwd: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process of the command that SIGINT interrupts. It is killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "trio_durable", *args],
        cwd=cwd,
        env={**environment(), **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The process of the tests may ignore SIGINT, which others would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Interrupt a command by Control-C. Its remaining output and errors."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == ExitStatus.INTERRUPTED, err
    return out, err


def assert_app_passes_checks(folder: Path, passed: int) -> None:
    """Run an app's linters, and its tests on the one backend of its conftest."""
    for check in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        ran = python("-m", *check, cwd=folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    # With warnings as errors.
    plugin = ["-p", "trio_durable.testing.plugin", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    ran = python("-m", "pytest", "-q", "-W", "error", *plugin, cwd=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{passed} passed" in ran.stdout
