"""Names that generated code may have: each check says what is wrong with one, and what to do."""

from __future__ import annotations

import builtins
import keyword
import re
import sys

from ..errors import CommandError

MAX_LENGTH = 40
"""Characters; what is longer makes lines that only a formatter can lay out."""

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

# What an app or its tests import, so that a package of that name would be in the way of it.
_TAKEN_PACKAGES = frozenset(
    {
        *sys.stdlib_module_names,
        "anyio",
        "attr",
        "attrs",
        "cattr",
        "cattrs",
        "click",
        "conftest",
        "orjson",
        "pytest",
        "rich",
        "sqlite_utils",
        "tests",
        "trio",
        "trio_durable",
    }
)


def check_identifier(what: str, name: str) -> None:
    """Check that generated code can be written with a name.

    Raises:
        Refusal: It can't.
    """
    if not _IDENTIFIER.fullmatch(name):
        raise CommandError(
            f"{what} {name!r}: not a name; begin with a letter, and go on with letters, digits "
            "and underscores"
        )
    if name in ("I", "O", "l"):  # E741 of pycodestyle and ruff
        raise CommandError(f"{what} {name!r}: reads like a digit; choose another name")
    if len(name) > MAX_LENGTH:
        raise CommandError(
            f"{what} {name!r}: longer than {MAX_LENGTH} characters; choose a shorter one"
        )
    if keyword.iskeyword(name):
        raise CommandError(f"{what} {name!r}: a keyword of Python; choose another name")


def check_package(name: str) -> None:
    """Check the name of an app's package.

    Raises:
        Refusal: It can't be that.
    """
    check_identifier("package", name)
    if name in _TAKEN_PACKAGES:
        raise CommandError(
            f"package {name!r}: would hide the module of that name; choose another with --name"
        )


def package_name_from(folder_name: str) -> str:
    """The name of a package for an app in a folder, such as my_shop for "My shop".

    Raises:
        Refusal: None can be made of it.
    """
    name = re.sub(r"[^a-z0-9]+", "_", folder_name.lower()).strip("_")
    if not _IDENTIFIER.fullmatch(name):
        raise CommandError(
            f"no package can be named after the folder {folder_name!r}; give a name with --name"
        )
    check_package(name)
    return name


def check_class_name(name: str, taken: frozenset[str]) -> None:
    """Check the name of an object's class.

    Args:
        name: The name.
        taken: What else is called something in its module.

    Raises:
        Refusal: It can't be that.
    """
    check_identifier("class", name)
    if not name[0].isupper() or "_" in name:
        better = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
        raise CommandError(f"class {name!r}: classes are named LikeThis; try {better}")
    if name.startswith("Test"):
        raise CommandError(
            f"class {name!r}: pytest would take it for tests; choose a name that doesn't begin "
            "with Test"
        )
    if name in taken or hasattr(builtins, name):
        raise CommandError(f"class {name!r}: taken by Python or this library; choose another name")
    if keyword.iskeyword(module_name(name)):
        raise CommandError(
            f"class {name!r}: its module would be {module_name(name)}.py, which is a keyword of "
            "Python; choose another name"
        )


def module_name(class_name: str) -> str:
    """The name of a class's module: shopping_cart for ShoppingCart, http_server for HTTPServer."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()
