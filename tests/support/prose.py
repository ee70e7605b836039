"""Prose lint: sentence shapes that make technical English hard to read, counted per 10,000 words.

    PYTHONPATH=tests python -m support.prose               # the rate of each kind of text
    PYTHONPATH=tests python -m support.prose FILE… -v      # the sentences themselves

Two causes are counted. A clause stands where the reader would search for a noun ("what was sent"
for "messages"), and a word stands where the field has a term ("anew" for "again"). The documents of
FastAPI, HTTPX, sqlite-utils, Rivet and Trio have 4.7 hits per 10,000 words together. Code, code
spans and options of directives are left out. `test_prose.py` keeps the upper bounds.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]

RULES = {
    "opens with a clause for a noun": re.compile(
        r"^(What|Who|Whoever|Whatever|Whether|Those (who|that))\b(?!.*\?)(?! is new\b)"
    ),
    "a clause for a noun": re.compile(
        r"\b(of|by|for|to|with|in|on|from|and|than|as|beside|behind|before)"
        r" what (?!(is|are) (this|that)\b)\w+"
        r"|(?<!in mind )\b(those|these) (that|who|which)\b|\bwhoever\b",
        re.IGNORECASE,
    ),
    "nobody, somebody, everybody": re.compile(r"\b(nobody|somebody|everybody)\b", re.IGNORECASE),
    "a word that isn't the field's": re.compile(
        r"\banew\b|\bunder way\b|\bin vain\b|\bmend(s|ed)?\b|\bdriven out\b|\bhears? of\b"
        r"|\b(is|are|be|was|been) told\b|^Mind that\b|\bwhat to mind\b|\bof its kin\b"
        r"|\bwould hardly\b|\bfound out\b|\ball of it\b|\bas it comes\b|\bworked off\b"
        r"|\bto and fro\b|\bmade anew\b|\bbelongs? into\b|\bbe they\b|\bnot any more\b",
        re.IGNORECASE,
    ),
}


@attrs.frozen
class Hit:
    """One awkward sentence."""

    file: Path
    rule: str
    sentence: str


@attrs.define
class Tally:
    """The hits of some texts, and the number of their words."""

    words: int = 0
    hits: list[Hit] = attrs.field(factory=list)

    @property
    def rate(self) -> float:
        """Hits per 10,000 words."""
        return len(self.hits) * 10_000 / max(self.words, 1)

    def add(self, file: Path, text: str) -> None:
        """Count a text."""
        for sentence in sentences(text):
            self.words += len(sentence.split())
            for rule, pattern in RULES.items():
                self.hits += [Hit(file, rule, sentence)] * len(pattern.findall(sentence))


def sentences(text: str) -> Iterator[str]:
    """The sentences of Markdown or of a docstring; code spans are an X."""
    text = re.sub(r"<!--.*?-->|(```|~~~).*?\1", "\n", text, flags=re.DOTALL)
    text = re.sub(r"^( {4}|\t).*$|^\.\. .*$|^\s*:\w+:.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"``[^`]*``|`[^`]*`", "X", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for block in re.split(r"\n\s*\n|\n(?=\s*[-*#] |\s*\d+\. )|\n?\|", text):
        line = re.sub(r"^[-*#>]+\s*|\*\*|\*", "", " ".join(block.split()))
        for sentence in re.split(r'(?<=[.!?])\s+(?=[A-Z"X])', line):
            if len(sentence.split()) > 1:
                yield sentence


DOCUMENTS = "documents"
DOCSTRINGS = "docstrings"
MESSAGES = "help and error texts"


def documents() -> Iterator[Path]:
    """The files in Markdown that readers get, apart from the changelog."""
    yield from (file for file in sorted(ROOT.glob("*.md")) if file.name != "CHANGELOG.md")
    for folder in ("docs", "examples"):
        yield from sorted(p for p in (ROOT / folder).rglob("*.md") if "_build" not in p.parts)


def modules() -> Iterator[Path]:
    """The modules of the library, and of the examples."""
    for folder in ("trio_durable", "examples"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def texts(file: Path) -> Iterator[tuple[str, str]]:
    """Each text of a file, with its kind."""
    source = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield DOCUMENTS, source
        return
    is_command = file.parent.name == "commands"
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(docstring))):
                yield MESSAGES if is_command else DOCSTRINGS, inspect.cleandoc(docstring)
            case ast.keyword(arg="help", value=value):
                yield MESSAGES, _written(value)
            case ast.Raise(exc=ast.Call(args=arguments)):
                yield from ((MESSAGES, _written(argument)) for argument in arguments)
            case ast.Dict(values=values) if file.name == "remedies.py":
                yield from ((MESSAGES, _written(value)) for value in values)


def _written(value: ast.expr) -> str:
    """A string, with an X for each of its expressions; "" if it is something else."""
    match value:
        case ast.Constant(value=str(text)):
            return inspect.cleandoc(text)
        case ast.JoinedStr(values=parts):
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts
            )
    return ""


def tally(files: Iterable[Path]) -> dict[str, Tally]:
    """Count the texts of files, by their kind."""
    found = {kind: Tally() for kind in (DOCUMENTS, DOCSTRINGS, MESSAGES)}
    for file in files:
        for kind, text in texts(file):
            found[kind].add(file, text)
    return found


def everything() -> dict[str, Tally]:
    """Count all texts of the project."""
    return tally([*documents(), *modules()])


def main() -> None:
    """Print the rates, and with ``-v`` the sentences."""
    named = [Path(argument) for argument in sys.argv[1:] if argument != "-v"]
    files = [
        file
        for path in named
        for file in (
            sorted([*path.rglob("*.md"), *path.rglob("*.py")]) if path.is_dir() else [path]
        )
    ]
    for kind, found in (tally(files) if files else everything()).items():
        if "-v" in sys.argv:
            for hit in found.hits:
                print(f"{hit.file}: {hit.rule}: {hit.sentence[:160]}")  # noqa: T201 - a program
        print(  # noqa: T201
            f"{found.rate:6.1f}  {len(found.hits):4} in {found.words:7,} words of {kind}"
        )


if __name__ == "__main__":
    main()
