"""Checks of names in generated code, with errors that name the problem and the remedy."""

from __future__ import annotations

import builtins
import keyword
import re
import sys

from ..errors import CommandError

_MAX_LENGTH = 40
"""In characters. Longer names make lines that the templates can't break."""

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

_TAKEN_PACKAGES = sys.stdlib_module_names | {
    *("anyio", "attr", "attrs", "cattr", "cattrs", "click", "conftest", "orjson", "pytest"),
    *("rich", "sqlite_utils", "tests", "trio", "trio_durable"),
}
"""Modules that an app or its tests import. An app's package of the same name would hide one."""


def check_identifier(kind: str, name: str) -> None:
    """Check that ``name`` can be used in generated code.

    Raises:
        CommandError: It can't; ``kind`` is for the message.
    """
    if not _IDENTIFIER.fullmatch(name):
        problem = "not a name; use a letter, then letters, digits and underscores"
    elif name in ("I", "O", "l"):  # E741 of pycodestyle and ruff
        problem = "reads like a digit; choose another name"
    elif len(name) > _MAX_LENGTH:
        problem = f"longer than {_MAX_LENGTH} characters; choose a shorter name"
    elif keyword.iskeyword(name):
        problem = "a keyword of Python; choose another name"
    else:
        return
    raise CommandError(f"{kind} {name!r}: {problem}")


def check_package(name: str) -> None:
    """Check the name of an app's package.

    Raises:
        CommandError: A package can't have this name.
    """
    check_identifier("package", name)
    if name in _TAKEN_PACKAGES:
        raise CommandError(
            f"package {name!r}: would hide the module of that name; choose another with --name"
        )


def package_name_from(folder_name: str) -> str:
    """The package name for an app in a folder, such as my_shop for "My Shop".

    Raises:
        CommandError: The folder's name has no usable form.
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
        taken: Other names that its module or its test uses.

    Raises:
        CommandError: A class can't have this name.
    """
    check_identifier("class", name)
    if not name[0].isupper() or "_" in name:
        better = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
        problem = f"classes are named LikeThis; try {better}"
    elif name.startswith("Test"):
        problem = "pytest would collect it as tests; choose a name that doesn't begin with Test"
    elif name in taken or hasattr(builtins, name):
        problem = "taken by Python or this library; choose another name"
    elif keyword.iskeyword(module_name(name)):
        problem = f"its module would be {module_name(name)}.py, which is a keyword of Python"
        problem += "; choose another name"
    else:
        return
    raise CommandError(f"class {name!r}: {problem}")


def module_name(class_name: str) -> str:
    """The name of a class's module: shopping_cart for ShoppingCart, http_server for HTTPServer."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()
