"""Every code block of the documentation runs, page by page."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from weakref import WeakSet

import pytest
from cli.support import ROOT
from support.postgres import Server
from sybil import Document
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from trio_durable._api import durable_object as _definition

from .console import matches
from .page import LANGUAGES, Page, pages

INFO = re.compile(r"(?P<language>[^\n]*)\n")

every_page = pytest.mark.parametrize(
    "path", pages(), ids=lambda path: str(path.relative_to(ROOT)).replace("\\", "/")
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader begins: an empty folder, and no class imported yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_definition, "_classes", WeakSet())
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@every_page
def test_its_blocks_run(path: Path, folder: Path, request: pytest.FixtureRequest) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        Page(path, folder, lambda: request.getfixturevalue("own_server")).run()


@every_page
def test_each_of_its_blocks_has_a_language_that_is_run(path: Path) -> None:
    document = Document(path.read_text(encoding="utf-8"), str(path))
    for region in RawFencedCodeBlockLexer(INFO)(document):
        language = region.lexemes["language"]
        # A directive of MyST is no code; but one that has code in it is a second way to say it.
        known = language.startswith("{") and "code" not in language
        assert known or language in LANGUAGES, document.line_column(region.start)


def run_page(folder: Path, text: str) -> None:
    def no_server() -> Server:
        raise AssertionError("there is no block that needs one")

    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    Page(page, folder, no_server).run()


@pytest.mark.parametrize(
    "text",
    [
        "```python\nassert False\n```",
        "```python\nimport trio\nawait trio.sleep(0)\nassert False\n```",
        "<!-- invisible-code-block: python\nassert False\n-->",
        "```python\n# program.py\nassert False\n```",
        "```python\n# test_it.py\ndef test_it():\n    assert False\n```",
        "```console\n$ trio-durable nothing\n```",
        "```console\n$ trio-durable --version\ntrio-durable, version none\n```",
        "```console\n$ make nothing\n```",
        "```console\n$ python -m benchmarks.load --nothing\n```",
        "```console\n$ pip install 'trio-durable[nothing]'\n```",
        "```console\n$ unheard-of\n```",
        "```console\n$ curl -s localhost:8000/\n```",
        "```console\n$ hypercorn nothing:app\n```",
        "```json\n{\n```",
        "```toml\n[\n```",
    ],
)
def test_a_block_that_does_not_do_what_it_should_fails(folder: Path, text: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011
        run_page(folder, text)


def test_blocks_share_names_files_and_the_loop(folder: Path) -> None:
    run_page(
        folder,
        """
<!-- invisible-code-block: python
from trio_durable import DurableObject, DurableRuntime, handler
runtime = within(DurableRuntime(":memory:"))
-->
```python
class Counter(DurableObject):
    count: int = 0

    @handler
    def add(self) -> int:
        self.count += 1
        return self.count
```
```python
counter = runtime.get(Counter, "a")
assert await counter.add() == 1
```
```python
assert await Counter.add("a") == 2
```
```python
# shop/one.py
print("one")
```
```console
$ cd shop && python one.py  # and so on
one
```
""",
    )


@pytest.mark.parametrize(
    ("expected", "printed", "is_meant"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("took … s\n", "took 1.5 s\n", True),
        ("took … s\n", "took 1.5 ms\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nd\n", True),
        ("a\n…\nd\n", "a\nb\nc\n", False),
    ],
)
def test_what_varies_is_left_out(expected: str, printed: str, is_meant: bool) -> None:
    assert matches(expected, printed) is is_meant
