"""One page of the documentation while its code blocks run, as its readers run them."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml  # type: ignore[import-untyped]
from anyio.from_thread import BlockingPortal, start_blocking_portal
from cli.support import ROOT
from support.postgres import Server
from sybil import Document, Example, Sybil
from sybil.parsers.myst import CodeBlockParser

from .console import Console

FILE = re.compile(r"(?:#|//|--) (\S*[\w-]\.\w+|Dockerfile|Makefile)\n")
"""A block that begins with a comment like ``# shop/app.py`` is a file that the reader saves."""

DATABASE = "postgresql://app@db.example.com/shop"
"""The reader's server; wherever a block says so, a real one is used."""


class Page:
    """A folder, a namespace and an event loop for the blocks of a page, from first to last.

    Args:
        path: The Markdown file.
        folder: An empty one, which is the current one.
        server: Starts a PostgreSQL server, if need be.
    """

    def __init__(self, path: Path, folder: Path, server: Callable[[], Server]) -> None:
        self._path = path
        self._folder = folder
        self._server = server
        self._module = ModuleType(f"page_{path.stem.replace('-', '_')}")
        self._portal: BlockingPortal | None = None
        self._stack = contextlib.ExitStack()
        self._url: str | None = None
        self._console = Console(folder)
        self._written: list[Path] = []

    def run(self) -> None:
        """Run all blocks.

        Raises:
            Exception: Whatever the first of them raises that doesn't do what it should.
        """
        handlers = {language: getattr(self, f"_{name}") for language, name in LANGUAGES.items()}
        parsers = [CodeBlockParser(language, run) for language, run in handlers.items()]
        document: Document = Sybil(parsers).parse(self._path)
        names = vars(self._module)
        names["within"] = self._within
        sys.modules[self._module.__name__] = self._module
        with self._stack:
            self._stack.callback(self._forget_modules)
            self._stack.callback(self._console.close)
            self._stack.callback(sys.modules.pop, self._module.__name__)
            for example in document.examples():
                example.evaluate()
            self._run_the_rest()

    # --- what each language means ----------------------------------------------------------------

    def _run_python(self, example: Example) -> None:
        if self._write(example):
            return
        source = "\n" * (example.line + example.parsed.line_offset) + self._text(example)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, example.path, "exec", flags=flags, dont_inherit=True)
        names = vars(self._module)
        if not code.co_flags & inspect.CO_COROUTINE:
            exec(code, names)
            return

        async def run() -> None:
            await eval(code, names)

        self._loop().call(run)

    def _run_console(self, example: Example) -> None:
        self._console.run(self._text(example))

    def _run_sql(self, example: Example) -> None:
        if not self._write(example):
            self._database()
            # With the method of compression that each server has.
            statements = str(example.parsed).replace("'lz4'", "'pglz'")
            self._server().execute(statements, database="shop")

    def _read_json(self, example: Example) -> None:
        if not self._write(example):
            decoder, text = json.JSONDecoder(), str(example.parsed).strip()
            while text:  # one value, or one a line
                _, end = decoder.raw_decode(text)
                text = text[end:].strip()

    def _read_toml(self, example: Example) -> None:
        tomllib.loads(example.parsed)
        self._write(example)

    def _read_yaml(self, example: Example) -> None:
        yaml.safe_load(example.parsed)
        self._write(example)

    def _save(self, example: Example) -> None:
        assert self._write(example), "it begins with no comment that names its file"

    def _look(self, example: Example) -> None:
        """What is only looked at: drawings, and what something prints."""

    def _forget_modules(self) -> None:
        """Another page may have files of the same names."""
        for name, module in list(sys.modules.items()):
            if self._folder in Path(getattr(module, "__file__", None) or "").parents:
                del sys.modules[name]

    # --- what they share --------------------------------------------------------------------------

    def _within(self, manager: contextlib.AbstractAsyncContextManager[Any]) -> Any:
        """For invisible blocks: enter ``manager``, and leave it at the end of the page."""
        return self._stack.enter_context(self._loop().wrap_async_context_manager(manager))

    def _loop(self) -> BlockingPortal:
        if self._portal is None:
            self._portal = self._stack.enter_context(start_blocking_portal("trio"))
        return self._portal

    def _text(self, example: Example) -> str:
        text = str(example.parsed)
        return text.replace(DATABASE, self._database()) if DATABASE in text else text

    def _database(self) -> str:
        if self._url is None:
            server = self._server()
            drop = "DROP DATABASE IF EXISTS shop WITH (FORCE)", "DROP ROLE IF EXISTS app"
            server.execute(*drop, "CREATE ROLE app LOGIN", "CREATE DATABASE shop OWNER app")
            self._stack.callback(server.execute, *drop)
            self._url = server.url("app", database="shop")
            self._console.server_programs = server.programs
        return self._url

    def _write(self, example: Example) -> bool:
        text = self._text(example)
        named = FILE.match(text)
        if named is None:
            return False
        path = self._console.folder / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        self._written.append(path)
        return True

    def _run_the_rest(self) -> None:
        """Tests and programs that the page shows, but not how to run."""
        python = [path for path in dict.fromkeys(self._written) if path.suffix == ".py"]
        tests = [path for path in python if path.name.startswith("test_")]
        if tests and not self._console.has_run("pytest"):
            self._console.run("$ cd " + str(self._folder) + "; pytest -q\n")
        for path in python:
            if path in tests or self._console.has_run(_started_by(path)) or self._is_imported(path):
                continue
            self._console.run(f"$ cd {path.parent}; python {path.name}\n")

    def _is_imported(self, path: Path) -> bool:
        imports = re.compile(rf"^\s*(?:from|import) (?:[\w.]*\.)?{path.stem}\b", re.MULTILINE)
        return any(
            imports.search(other.read_text(encoding="utf-8"))
            for other in self._written
            if other != path
        )


def _started_by(path: Path) -> str:
    return f"-m {path.parent.name}" if path.name == "__main__.py" else path.name


LANGUAGES = {
    "python": "run_python",
    "console": "run_console",
    "sql": "run_sql",
    "json": "read_json",
    "toml": "read_toml",
    "yaml": "read_yaml",
    "ini": "save",
    "dockerfile": "save",
    "text": "look",
}
"""What becomes of a block, by its language: a method of `Page`."""


def pages() -> list[Path]:
    """All that there are."""
    found = [path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts]
    return [ROOT / "README.md", ROOT / "AGENTS.md", *sorted(found)]


def files(page: Path) -> dict[str, str]:
    """The files that a page has its readers save, by name."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {named[1]: block for block in blocks if (named := FILE.match(block))}
