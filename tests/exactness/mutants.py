"""The codec with one check removed, to see that the property test and the brute force notice.

    python -m tests.exactness.mutants           all mutants
    python -m tests.exactness.mutants NAME …    some of them

Each mutant is a replacement in a copy of the package, which another process imports in its place.
The replaced text must be there exactly once, so that a mutant fails to be made, rather than to be
found, when the codec changes. A mutant is found if the tests fail with it; a test without a mutant
comes first, since all tests fail in a package that fails by itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

import trio_durable

ROOT = Path(__file__).parents[2]
_PROPERTY = ("tests.exactness.property", "--first", "--only")
TESTS = ("pytest", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
BOUNDED_TESTS = (
    *(*TESTS, "-q", "-x", "-p", "no:xdist"),
    *("--timeout", "60", "--timeout-method", "thread"),
)
"""Tests up to the first failure, each of which may take a minute."""
CHECKS: dict[str, tuple[str, ...]] = {
    "definitions": (*_PROPERTY, "definitions", "--examples", "1500"),
    "releases": (*_PROPERTY, "releases", "--examples", "1500"),
    "defaults": (*_PROPERTY, "defaults", "--examples", "50"),
    "brute force": ("tests.exactness.brute_force", "--every", "20"),
    "machine": (*TESTS, "exactness/test_machine.py", "-k", "sqlite"),
    "look-up": (*TESTS, "json/test_lookup.py", "-k", "failed_look_up or compare_equal"),
    "default": (*TESTS, "json/test_defaults.py"),
    "upgrade": (*TESTS, "json/test_resolution.py", "-k", "upgrade_leaves_alone"),
    "by value": (*TESTS, "activations/test_by_value.py", "-k", "that_are_equal"),
}
TIMEOUT_SECONDS = 600


@attrs.frozen
class Mutant:
    """A text of the package to be replaced."""

    name: str
    what: str
    """The fault that it makes."""
    check: str
    """The check that has to find it, one of ``CHECKS``."""
    module: str
    """The file below ``trio_durable/``."""
    old: str
    new: str
    more: tuple[tuple[str, str], ...] = ()
    """Other texts of the file to be replaced, with their replacements."""


_CONSTRUCTOR = """\
        read = _Source(self).reader()

        def construct(data, taken):
            value = read(data, taken)
            try:
                values = {
                    getattr(each.attribute, "alias", each.name): self.layout.get(value, each.name)
                    for each in self.layout.fields
                }
                return self.cls(**values)
            except TypeError:
                return value

        self.read = construct
"""
_FROM_STORAGE = """\
            if name not in layout.slots:
                got = f"attributes[{name!r}]"
            elif layout.reads_plainly and is_attribute_name(name):
"""
_OF_FLAGS = """\
        if is_flag and type(data) is int:
            try:
                member = cls(data)
            except ValueError:
                pass
            else:
                if type(member) is cls and member._value_ == data:
                    return member
"""
_BY_CALL = """\
        try:
            return cls(data)
        except ValueError:
            pass
"""

MUTANTS = [
    Mutant(
        "as_ignored",
        "the recorded declaration of a state isn't read",
        "releases",
        "_json/state.py",
        "(recorded, PLAIN) if recorded is not None else ({}, OLD)",
        "({}, OLD)",
    ),
    Mutant(
        "first_candidate_wins",
        "of two members that fit, the first is read",
        "brute force",
        "_json/readers.py",
        "if len(found) != 1:",
        "if not found:",
    ),
    Mutant(
        "tag_dropped",
        "members of a union are written without a tag",
        "brute force",
        "_json/unions.py",
        'return {"$type": tag, "value": data}',
        "return data",
    ),
    Mutant(
        "bool_by_int",
        "a bool is read by the reader of int",
        "brute force",
        "_json/scalars.py",
        'BOOL = _own("bool", _bool, {bool})',
        'BOOL = _own("bool", _int, {bool})',
    ),
    Mutant(
        "choices_by_equality",
        "values of enums are told apart by ==, for which 1 is True",
        "brute force",
        "_json/choices.py",
        "return (kind, data) if kind in OWN else None",
        "return data if kind in OWN else None",
    ),
    Mutant(
        "no_re_encoding",
        "a changed type is read without write(read(x)) == x",
        "brute force",
        "_json/readers.py",
        "if form.write(value, []) != data:",
        "if False:",
    ),
    Mutant(
        "order_of_sets",
        "a list is read as a set whatever its order",
        "brute force",
        "_json/readers.py",
        "if not is_same_json(in_order(list(data)), data):",
        "if False:",
    ),
    Mutant(
        "constructor_called",
        "an instance is made by its class, where this takes the fields",
        "definitions",
        "_json/records.py",
        "        self.read = _Source(self).reader()\n",
        _CONSTRUCTOR,
    ),
    Mutant(
        "getattr",
        "fields are read by getattr, not from storage",
        "definitions",
        "_json/records.py",
        _FROM_STORAGE,
        "            if is_attribute_name(name):\n",
    ),
    Mutant(
        "setattr",
        "fields are set by setattr, not in storage",
        "definitions",
        "_json/records.py",
        "if not layout.writes_plainly or not is_attribute_name(name):",
        "if layout.is_frozen or not is_attribute_name(name):",
    ),
    Mutant(
        "base_of_c_unchecked",
        "classes with a base of C are accepted",
        "definitions",
        "_json/layout.py",
        "    base = base_in_c(cls)\n",
        "    base = None\n",
    ),
    Mutant(
        "slots_unchecked",
        "classes with slots that are no fields are accepted",
        "definitions",
        "_json/layout.py",
        "            elif name not in caches:\n",
        "            elif False:\n",
    ),
    Mutant(
        "hooks_by_equality",
        "forms of types are found by ==",
        "look-up",
        "_json/lookup.py",
        "        return id(part)\n",
        "        return part\n",
    ),
    Mutant(
        "copiers_by_equality",
        "copiers of arguments are found by ==",
        "by value",
        "_activations/by_value.py",
        "if type(kind).__hash__ is type.__hash__:",
        "if True:",
    ),
    Mutant(
        "placeholder_kept",
        "a refused recursive class leaves its placeholder",
        "look-up",
        "_json/lookup.py",
        "for begun in list(self._forms)[before:]:",
        "for begun in ():",
    ),
    Mutant(
        "default_shared",
        "a default that can change is one for all objects",
        "default",
        "_json/defaults.py",
        "elif field.converter is None and not is_immutable(field.default):",
        "elif False:",
    ),
    Mutant(
        "default_of_factory_shared",
        "an object that a factory returns each time is one for all objects",
        "default",
        "_json/defaults.py",
        "if not is_immutable(value):",
        "if False:",
    ),
    Mutant(
        "impure_default_not_saved",
        "an object with such a default isn't saved",
        "defaults",
        "_activations/encoded.py",
        "if has_unsaved:",
        "if False:",
    ),
    Mutant(
        "impure_default_not_noted",
        "a field that took such a default isn't noted",
        "defaults",
        "_json/defaults.py",
        "        taken.append(field.name)\n",
        "        pass\n",
    ),
    Mutant(
        "undeclared_in_dict",
        "undeclared attributes are looked for nowhere",
        "definitions",
        "_json/records.py",
        'self._add(f"        if {condition}:")',
        'self._add("        if False:")',
    ),
    Mutant(
        "unset_skipped",
        "a field that isn't set is stored as None",
        "definitions",
        "_json/records.py",
        """got = f"attributes[{name!r}]\"""",
        """got = f"attributes.get({name!r})\"""",
    ),
    Mutant(
        "length_of_sets",
        "members of a set that became equal are lost",
        "definitions",
        "_json/sets.py",
        "if text == previous:",
        "if False:",
    ),
    Mutant(
        "missing_consulted",
        "an enum's _missing_ is asked for a member",
        "brute force",
        "_json/choices.py",
        _OF_FLAGS,
        _BY_CALL,
    ),
    Mutant(
        "deepcopy_of_replies",
        "replies are copied by copy.deepcopy",
        "definitions",
        "_activations/state.py",
        "return copied(result)",
        'return __import__("copy").deepcopy(result)',
    ),
    Mutant(
        "reply_not_copied",
        "replies aren't copied",
        "machine",
        "_activations/state.py",
        "return copied(result)",
        "return result",
    ),
    Mutant(
        "instance_kept",
        "a mutable object in two places is one until the object leaves memory",
        "definitions",
        "_activations/state.py",
        "if len(places) > 1 and len(set(places)) < len(places):",
        "if False:",
    ),
    Mutant(
        "failed_turn_kept",
        "a failed turn leaves the instance that it has changed",
        "machine",
        "_activations/state.py",
        "effects, self.effects = self.effects, None\n        self.drop_instance()",
        "effects, self.effects = self.effects, None",
    ),
    Mutant(
        "as_kept_over_an_upgrade",
        "@upgrade leaves the recorded declaration of what it has changed",
        "releases",
        "_json/state.py",
        "if member in made or name in made:",
        "if False:",
    ),
    Mutant(
        "as_dropped_by_an_upgrade",
        "@upgrade drops the recorded declaration of what it has left alone",
        "upgrade",
        "_json/state.py",
        "if member in made or name in made:",
        "if made:",
    ),
]


def run(check: str, package: Path | None, checks: Mapping[str, tuple[str, ...]] = CHECKS) -> int:
    """The exit status of a check, with a package in the place of the installed one."""
    environment = dict(os.environ)
    folders = [str(package.parent)] if package is not None else []
    environment["PYTHONPATH"] = os.pathsep.join([*folders, str(ROOT)])
    module, *arguments = checks[check]
    command = [sys.executable, "-c", _PROGRAM, module, *arguments]
    return subprocess.run(
        command,
        cwd=ROOT / "tests",  # not where the package lies, which comes first in sys.path
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=TIMEOUT_SECONDS,
        check=False,
    ).returncode


_PROGRAM = """
import os, runpy, sys
try:
    import trio_durable
    folder = os.environ["PYTHONPATH"].split(os.pathsep)[0]
    if not trio_durable.__file__.startswith(folder):
        sys.exit(3)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except Exception:
    sys.exit(4)
"""
SURVIVED, FOUND, WRONG_PACKAGE, BROKEN = 0, 1, 3, 4


def mutated(mutant: Mutant, folder: Path) -> Path:
    """A copy of the package with a mutant in it.

    Raises:
        LookupError: The text isn't there exactly once.
    """
    package = folder / "trio_durable"
    shutil.copytree(
        Path(trio_durable.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    path = package / mutant.module
    source = path.read_text()
    for old, new in ((mutant.old, mutant.new), *mutant.more):
        if source.count(old) != 1:
            raise LookupError(f"{mutant.module} has {old!r} {source.count(old)} times")
        source = source.replace(old, new)
    path.write_text(source)
    return package


def result_of(mutant: Mutant, checks: Mapping[str, tuple[str, ...]] = CHECKS) -> str:
    """The outcome of a mutant, in some words."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            package = mutated(mutant, Path(folder))
        except LookupError as error:
            return f"can't be made: {error}"
        try:
            status = run(mutant.check, package, checks)
        except subprocess.TimeoutExpired:
            return "found, by its timeout"
    outcomes = {
        FOUND: "found",
        SURVIVED: "SURVIVED",
        WRONG_PACKAGE: "not made: another package was imported",
        BROKEN: "not made: the check itself raised",
    }
    return outcomes.get(status, f"not made: exit status {status}")


def main(
    prog: str = "python -m tests.exactness.mutants",
    mutants: Sequence[Mutant] = MUTANTS,
    checks: Mapping[str, tuple[str, ...]] = CHECKS,
) -> int:
    """Make mutants and run their checks; 1 if one survives."""
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all unless named")
    names = parser.parse_args().names
    chosen = [mutant for mutant in mutants if not names or mutant.name in names]
    failing = {check for check in {mutant.check for mutant in chosen} if run(check, None, checks)}
    survivors = 0
    for mutant in chosen:
        result = result_of(mutant, checks)
        if mutant.check in failing:
            result = f"means nothing: {mutant.check} fails without a mutant"
        survivors += not result.startswith("found")
        sys.stdout.write(f"{mutant.name:26} {result:12} {mutant.check}: {mutant.what}\n")
        sys.stdout.flush()
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
