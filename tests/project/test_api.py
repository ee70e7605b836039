"""The public surface agrees with ``tests/api.txt``, so that no change to it goes unnoticed."""

from __future__ import annotations

import difflib
import importlib
import re
from pathlib import Path

import griffe
import pytest
from support import declared
from support.api import RECORD, surface

WHAT_TO_DO = """\
The public surface is not what tests/api.txt says:

{difference}
If it should be so, record it with `make api`, commit tests/api.txt with the change, and tell users
of it in changes/. Lines that go, and parameters that change, break the programs of others.
"""

NAME = r"^(?:(?:@overload )?(?:async )?(?:class|def) )?(\w+)"
"""At the beginning of a line of the list."""


def difference(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "tests/api.txt", "trio_durable", n=3, lineterm=""
    )
    return list(lines)


def test_the_public_surface_is_as_recorded() -> None:
    found = difference(RECORD.read_text(encoding="utf-8"), surface())
    assert not found, WHAT_TO_DO.format(difference="\n".join(found) + "\n")


def test_what_is_listed_is_there() -> None:
    # A list that is empty or of something else would never change.
    modules = re.split(r"^module (\S+)\n", surface(), flags=re.MULTILINE)[1:]
    assert {"trio_durable", "trio_durable.storage", "trio_durable.testing"} <= {*modules[::2]}
    for name, text in zip(modules[::2], modules[1::2], strict=True):
        module = importlib.import_module(name)
        names = re.findall(NAME, text, re.MULTILINE)
        assert {*module.__all__} <= {*names}
        assert [each for each in names if not hasattr(module, each)] == []


EXAMPLE = """
import abc
from typing import overload
import attrs

__all__ = ["Basket", "Broken", "LIMIT", "get"]

LIMIT = 5.0

class _Bag(abc.ABC):
    @property
    @abc.abstractmethod
    def weight(self) -> float: ...
    async def empty(self) -> None: ...

class Counted:
    def count(self) -> int: ...

@attrs.frozen
class Basket(_Bag, Counted):
    owner: str
    places: int = 3
    def put(self, what: str, /, count: int = 1) -> bool:
        self._put(what)
        return True
    def _put(self, what: str) -> None: ...
    def __repr__(self) -> str: ...

class Broken(ValueError): ...

@overload
def get(what: str) -> str: ...
@overload
def get(what: int, *, within: float = LIMIT) -> int: ...
def get(what: object, *, within: float = LIMIT) -> object: ...

def hidden() -> None: ...
"""

LISTED = """
@attrs.frozen
class Basket(_Bag, Counted)
    owner: str
    places: int = 3
    def count() -> int
    async def empty() -> None
    def put(what: str, /, count: int = 1) -> bool
    abstract property weight: float

class Broken(ValueError)

LIMIT = 5.0

@overload def get(what: str) -> str
@overload def get(what: int, *, within: float = 5.0) -> int
"""


def listed(folder: Path, text: str) -> str:
    """The surface of a package with this text."""
    (folder / "example").mkdir(exist_ok=True)
    (folder / "example" / "__init__.py").write_text(text, encoding="utf-8")
    return surface("example", folder).partition("module example\n")[2]


def test_the_list_is_for_readers(tmp_path: Path) -> None:
    assert listed(tmp_path, EXAMPLE) == LISTED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("count: int", "number: int"),
        ("count: int = 1", "count: int"),
        ("count: int = 1", "*, count: int = 1"),
        ("what: str, /", "what: str"),
        (") -> bool", ") -> int"),
        ("    def put", "    async def put"),
        ("def put", "def lay"),
        ("async def empty", "def empty"),
        ("    @property\n", ""),
        ("    @abc.abstractmethod\n", ""),
        ("LIMIT = 5.0", "LIMIT = 7.0"),
        ("owner: str\n    places: int = 3", "places: int = 3\n    owner: str"),
        ("places: int = 3", "places: int = 4"),
        ("@attrs.frozen", "@attrs.define"),
        ("Broken(ValueError)", "Broken(Exception)"),
        ("count(self) -> int", "count(self) -> str"),
        (', "get"]', "]"),
        ("what: int, *", "what: bytes, *"),
    ],
)
def test_a_break_is_seen(tmp_path: Path, old: str, new: str) -> None:
    assert old in EXAMPLE
    assert listed(tmp_path, EXAMPLE.replace(old, new)) != LISTED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_put", "_lay"),
        ("hidden", "concealed"),
        ("return True", "return False"),
        ("__repr__", "__str__"),
        ("\nLIMIT = 5.0", "\n\nLIMIT = 5.0  # lines move"),
    ],
)
def test_what_is_private_is_not_in_it(tmp_path: Path, old: str, new: str) -> None:
    assert old in EXAMPLE
    assert listed(tmp_path, EXAMPLE.replace(old, new)) == LISTED


def checked(folder: Path, text: str) -> griffe.Object | griffe.Alias:
    """A package for `griffe check`, with ``text`` in a public module and in one that isn't."""
    package = folder / "example"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "public.py").write_text(text, encoding="utf-8")
    (package / "inner.py").write_text(text.replace("__all__", "names"), encoding="utf-8")
    extensions = griffe.load_extensions(declared.__file__)
    return griffe.load(
        "example", search_paths=[folder], try_relative_path=False, extensions=extensions
    )


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("    def put", "    def lay", griffe.BreakageKind.OBJECT_REMOVED),
        ("count: int = 1", "number: int = 1", griffe.BreakageKind.PARAMETER_REMOVED),
        ("count: int = 1", "count: int", griffe.BreakageKind.PARAMETER_CHANGED_REQUIRED),
        ("Broken(ValueError)", "Broken", griffe.BreakageKind.CLASS_REMOVED_BASE),
        ("def hidden()", "def concealed()", None),
    ],
)
def test_griffe_finds_breaks_in_declared_modules_only(
    tmp_path: Path, old: str, new: str, found: griffe.BreakageKind | None
) -> None:
    assert old in EXAMPLE
    before = checked(tmp_path / "before", EXAMPLE)
    after = checked(tmp_path / "after", EXAMPLE.replace(old, new))
    breakages = list(griffe.find_breaking_changes(before, after))
    kinds = {each.kind for each in breakages}
    assert found in kinds if found else not kinds
    assert all(each.obj.path.startswith("example.public.") for each in breakages)
