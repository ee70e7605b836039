"""Public names have docstrings, in private modules as well.

Ruff's D1 rules ask the same, but take all that is in a private module or package for private, and
most of this library is: users reach it through the packages that export it. So the names of every
module are looked through here, by griffe.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import griffe
import pytest

import trio_durable

SOURCE = Path(trio_durable.__file__).parents[1]
EXEMPT = ("trio_durable.testing.conformance._", "trio_durable.cli.demo.bank")
"""A state machine and the model it is compared with, which are internals of one suite of tests; and
an example, whose names say it."""


def undocumented(package: str, source: Path) -> list[str]:
    """The paths of public names without a docstring, in all modules of ``package``.

    Public is what begins with no underscore, in classes that begin with none. A method that
    overrides another of the package may leave the docstring to it.
    """
    module = griffe.load(
        package, search_paths=[source], try_relative_path=False, resolve_aliases=True
    )
    assert isinstance(module, griffe.Module)
    return list(_undocumented(module))


def _undocumented(thing: griffe.Object) -> Iterator[str]:
    if thing.docstring is None and not isinstance(thing, griffe.Attribute):
        yield thing.path
    for name, member in thing.members.items():
        if not isinstance(member, griffe.Object):
            continue  # an import
        if isinstance(member, griffe.Module):
            if not member.path.startswith(EXEMPT):
                yield from _undocumented(member)
        elif isinstance(member, griffe.Class):
            if not name.startswith("_"):
                yield from _undocumented(member)
        elif not name.startswith(("_", "test_")) and not _is_documented(name, member):
            yield member.path


def _is_documented(name: str, member: griffe.Object) -> bool:
    if isinstance(member, griffe.Attribute) and "property" not in member.labels:
        return True  # a field, whose name and type often say all
    parent = member.parent
    bases = parent.mro() if isinstance(parent, griffe.Class) else []
    overridden = [base.members[name] for base in bases if name in base.members]
    return any(each.docstring is not None for each in [member, *overridden])


def test_public_names_have_docstrings() -> None:
    assert undocumented("trio_durable", SOURCE) == []


GOOD = '''
"""A module."""

class Base:
    """Its methods are documented."""

    def put(self) -> None:
        """Put it there."""

    @property
    def weight(self) -> float:
        """In kilograms."""

class Derived(Base):
    """Does what its base says."""

    owner: str

    def put(self) -> None:
        def inner() -> None: ...

    def _lay(self) -> None: ...
    def __len__(self) -> int: ...

class _Hidden:
    def put(self) -> None: ...

def get() -> int:
    """Get it."""

def _get() -> int: ...
'''


def listed(folder: Path, text: str) -> list[str]:
    """What lacks a docstring in a private module with this text."""
    package = folder / "example" / "_inside"
    package.mkdir(parents=True)
    (folder / "example" / "__init__.py").write_text('"""A package."""\n', encoding="utf-8")
    (package / "__init__.py").write_text('"""Its inside."""\n', encoding="utf-8")
    (package / "module.py").write_text(text, encoding="utf-8")
    return undocumented("example", folder)


def test_private_names_and_overrides_may_do_without(tmp_path: Path) -> None:
    assert listed(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("docstring", "name"),
    [
        ("A module.", ""),
        ("Its methods are documented.", ".Base"),
        ("Put it there.", ".Base.put"),
        ("In kilograms.", ".Base.weight"),
        ("Does what its base says.", ".Derived"),
        ("Get it.", ".get"),
    ],
)
def test_a_missing_docstring_is_found(tmp_path: Path, docstring: str, name: str) -> None:
    assert docstring in GOOD
    found = listed(tmp_path, GOOD.replace(f'"""{docstring}"""', "..."))
    assert f"example._inside.module{name}" in found
