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
    *("anyio", "attr", "attrs", "cattr", "cattrs", "click", "conftest", "httpx", "hypercorn"),
    *("orjson", "pytest", "rich", "sqlite_utils", "starlette", "tests", "trio", "trio_durable"),
}
"""Modules that an app or its tests import. An app's package of the same name would hide one."""


def check_name(kind: str, name: str, *problems: tuple[bool, str]) -> None:
    """Check that generated code can use a name.

    Args:
        kind: The kind of thing that has the name, for messages.
        name: The name.
        problems: Conditions that make the name unusable, each with its message.

    Raises:
        CommandError: The name isn't an identifier, or one of ``problems`` applies.
    """
    for applies, message in (
        (
            not _IDENTIFIER.fullmatch(name),
            "not a name; use a letter, then letters, digits and underscores",
        ),
        (name in ("I", "O", "l"), "reads like a digit; choose another name"),  # E741 of ruff
        (
            len(name) > _MAX_LENGTH,
            f"longer than {_MAX_LENGTH} characters; choose a shorter name",
        ),
        (keyword.iskeyword(name), "a keyword of Python; choose another name"),
        *problems,
    ):
        if applies:
            raise CommandError(f"{kind} {name!r}: {message}")


def check_package(name: str) -> None:
    """Check the name of an app's package.

    Raises:
        CommandError: A package can't have this name.
    """
    would_hide = "would hide the module of that name; choose another with --name"
    check_name("package", name, (name in _TAKEN_PACKAGES, would_hide))


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
    """Check the name of an object's class, whose module or test uses the names in ``taken``.

    Raises:
        CommandError: A class can't have this name.
    """
    better = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    module = module_name(name)
    check_name(
        "class",
        name,
        (better != name, f"classes are named LikeThis; try {better}"),
        (
            name.startswith("Test"),
            "pytest would collect it as tests; choose a name that doesn't begin with Test",
        ),
        (
            name in taken or hasattr(builtins, name),
            "taken by Python or this library; choose another name",
        ),
        (
            keyword.iskeyword(module),
            f"its module would be {module}.py, which is a keyword of Python; choose another name",
        ),
    )


def module_name(class_name: str) -> str:
    """The name of a class's module: shopping_cart for ShoppingCart, http_server for HTTPServer."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()
