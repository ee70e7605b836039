"""Commands of ``console`` blocks, run with what they print compared; see `Console`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from cli.support import ROOT, environment
from cli.support import run as trio_durable

from .server import WebServer

SLOW = {"bench", "demo"}
"""Commands of ours that take too long here; their own tests run them."""


class Console:
    """A terminal whose user copies what a page says.

    A line that begins with ``$`` is a command, and what follows is what it prints, where ``…``
    stands for anything in a line, and by itself for any lines. A command must succeed, unless it is
    shown what it prints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server_programs: Path | None = None
        """Where the programs are that came with the PostgreSQL server of the page."""
        self._done = ""
        self._server = WebServer()

    def close(self) -> None:
        """End what still runs in the background."""
        self._server.stop()

    def run(self, text: str) -> None:
        """Run the commands of a block, one after the other."""
        for line, expected in _commands(text):
            printed, status = self._run(line)
            self._done += f"{line}\n"
            if expected:
                assert matches(expected, printed), f"$ {line}\n{printed}\nbut not\n{expected}"
            else:
                assert status == 0, f"$ {line}\n{printed}\nexit status {status}"

    def has_run(self, word: str) -> bool:
        """Whether a command had ``word`` in it."""
        return word in self._done

    def pytest(self, *arguments: str) -> tuple[str, int]:
        """Run tests in the current folder; what pytest prints, and its exit status."""
        conftest = self.folder / "conftest.py"
        if not conftest.exists():
            conftest.write_text(FEW_EXAMPLES, encoding="utf-8")
        return self._process([*PYTEST, *arguments])

    def _run(self, line: str) -> tuple[str, int]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.commenters = "#"
        lexer.whitespace_split = True
        words = list(lexer)
        if "|" in words or ">" in words or ">>" in words or "<" in words:
            return self._process(["sh", "-c", line])
        printed, status, command = "", 0, list[str]()
        for word in [*words, ";"]:
            if word not in (";", "&&", "&"):
                command.append(word)
            elif command:
                output, status = self._command(command)
                printed, command = printed + output, []
                if status:
                    break
        return printed, status

    def _command(self, words: list[str]) -> tuple[str, int]:
        name, *arguments = words
        match name, arguments:
            case "trio-durable", [command, *options] if command in SLOW and "--help" not in options:
                return "", trio_durable(command, "--help").exit_code
            case "trio-durable", ["serve" | "nodes", *options] if (  # see cli/test_serve.py
                options != ["--help"]
            ):
                known = trio_durable(arguments[0], "--help").output
                assert all(each in known for each in options if each.startswith("--"))
                return "", 0
            case "trio-durable", _:
                result = trio_durable(*arguments)
                return result.output, result.exit_code
            case "cd", [folder]:
                self.folder = (self.folder / folder).resolve()
                assert self.folder.is_dir(), f"there is no folder {folder}"
                os.chdir(self.folder)
                return "", 0
            case "python", ["-m", "pytest", *rest]:
                return self.pytest(*rest)
            case "pytest", _:
                return self.pytest(*arguments)
            case (("hypercorn" | "uvicorn"), _):
                self._server.start(name, *arguments, folder=self.folder)
                return "", 0
            case "python", ["-m", package] if self._is_a_server(package):
                self._server.start(package, folder=self.folder)
                return "", 0
            case "kill", [*signal, "%1"]:
                self._server.stop(kill=signal == ["-9"])
                return "", 0
            case "curl", _:
                return self._server.curl(*arguments), 0
            case (("python" | ".venv-compare/bin/python"), ["-m", module, *options]) if (
                module.startswith("benchmarks")
            ):
                _has_options(module, options)
                return "", 0
            case "python", _:
                return self._process([sys.executable, "-W", "error", *arguments])
            case (("pg_dump" | "pg_restore"), _):
                assert self.server_programs, "there is no server yet"
                return self._process([str(self.server_programs / name), *arguments])
            case (("cat" | "cp" | "echo" | "ls" | "mkdir" | "mv" | "rm" | "touch"), _):
                return self._process(words)
        stand_in = STAND_INS.get(name)
        assert stand_in, f"nothing stands for {name!r}; see STAND_INS"
        stand_in(arguments)
        return "", 0

    def _is_a_server(self, package: str) -> bool:
        program = self.folder / package / "__main__.py"
        return program.exists() and "import serve" in program.read_text(encoding="utf-8")

    def _process(self, command: list[str]) -> tuple[str, int]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )
        return done.stdout, done.returncode


# A reader's pytest, which has none of this project's settings, but the library's plugin.
PYTEST = [sys.executable, "-m", "pytest", "-W", "error", "-p", "trio_durable.testing.plugin"]
PYTEST += ["-p", "no:cacheprovider", "-p", "no:asyncio", "--rootdir=."]

FEW_EXAMPLES = """
from hypothesis import settings

settings.register_profile("few", max_examples=10)
settings.load_profile("few")
"""


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command, on one line, and what it is shown to print."""
    assert text.startswith("$ "), "a console block begins with a command"
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = re.match(r"(?:.*\\\n)*.*", part)
        assert lines
        yield re.sub(r"\\\n\s*", "", lines[0]), part[lines.end() + 1 :]


def matches(expected: str, printed: str) -> bool:
    """Whether this was printed, or something that differs where it says ``…``."""
    pattern = ""
    for line in expected.rstrip().split("\n"):
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.rstrip().split("…")) + r" *\n"
    return re.fullmatch(pattern, printed.rstrip() + "\n") is not None


def _is_a_target(arguments: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    names = [word for word in arguments if "=" not in word]
    assert set(names) <= set(targets), f"make has no {' '.join(names)}"


def _has_options(module: str, options: list[str]) -> None:
    """Of benchmarks, which take minutes."""
    command = [sys.executable, "-m", module, "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    known = re.findall(r"(?<!\S)--[a-z-]+", text)
    missing = [each for each in options if each.startswith("--") and each not in known]
    assert not missing, f"{module} has no {' '.join(missing)}"


def _asks_for_what_there_is(arguments: list[str]) -> None:
    """Of this project's extras; what else there is to install isn't known here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert arguments[0] == "install"
    for word in arguments[1:]:
        if asked := re.match(rf"{project['name']}\[(.*)\]", word):
            assert set(asked[1].split(",")) <= project["optional-dependencies"].keys(), word


def _needs_a_machine_of_its_own(arguments: list[str]) -> None:
    """What changes the system, or needs one with other things on it, is tried by hand."""


def _makes_an_environment(arguments: list[str]) -> None:
    """The one that the tests run in is there already."""
    assert arguments == ["-m", "venv", ".venv"]


def _makes_active(arguments: list[str]) -> None:
    """Such an environment."""
    assert arguments == [".venv/bin/activate"]


STAND_INS: dict[str, Callable[[list[str]], None]] = {
    "make": _is_a_target,
    "pip": _asks_for_what_there_is,
    "python3": _makes_an_environment,
    ".": _makes_active,
    **dict.fromkeys(
        (
            *("docker", "granian", "gunicorn", "journalctl", "litestream", "openssl", "sudo"),
            *("systemctl", "systemd-analyze"),
        ),
        _needs_a_machine_of_its_own,
    ),
}
"""What is looked at where a command can't be run."""
