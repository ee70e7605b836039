"""Durable object classes of a user's app."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from ..._api.durable_object import (
    DurableObject,
    ObjectDefinition,
    definition_of,
    known_definitions,
)
from ..._text import error_summary
from ..errors import CommandError

_LIBRARY = __name__.partition(".")[0]


def app_option(*, required: bool, help: str) -> Callable[[Any], Any]:  # noqa: A002
    """``--app``, which may be given several times."""
    return click.option(
        "--app",
        "apps",
        metavar="MODULE[:CLASS,…]",
        multiple=True,
        required=required,
        help=help,
    )


class AppClasses:
    """The classes in modules of an app: the named ones, or all.

    Args:
        apps: Values of ``--app``, such as ``shop.objects`` or ``shop.objects:Cart,Basket``. Modules
            are imported as ``python -m`` imports them, so the current folder is searched as well.

    Raises:
        CommandError: A module can't be imported, or has no such class.
    """

    def __init__(self, apps: Iterable[str]) -> None:
        self._named: list[ObjectDefinition] | None = []
        for app in apps:
            module_name, separator, classes = app.partition(":")
            module = import_module(module_name, "--app")
            if not separator:
                self._named = None
            elif self._named is not None:
                self._named += [_find_class(module, name) for name in classes.split(",")]

    def __iter__(self) -> Iterator[ObjectDefinition]:
        """The classes that can have objects, in the order of their stored names."""
        found = self._named
        if found is None:
            found = [each for same in known_definitions().values() for each in same]
        fit = [each for each in found if not each.is_abstract and not _is_of_library(each)]
        return iter(sorted(fit, key=lambda each: (each.name, _path_of(each))))

    def of_type(self, type_name: str) -> ObjectDefinition:
        """The class with this stored name.

        Raises:
            CommandError: There is none, or more than one.
        """
        found = [each for each in self if each.name == type_name]
        if not found:
            known = ", ".join(dict.fromkeys(each.name for each in self)) or "none"
            raise CommandError(
                f"--app has no class with the stored name {type_name!r} (found: {known})"
            )
        if len(found) > 1:
            classes = " and ".join(_path_of(each) for each in found)
            raise CommandError(
                f"--app: {classes} both have the stored name {type_name!r}; name one of them"
            )
        return found[0]


def import_module(name: str, option: str) -> object:
    """Import a module as ``python -m`` does, from the current folder, too.

    Args:
        name: The name of the module.
        option: The option or argument that it was given to, for messages.

    Raises:
        CommandError: It can't be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not all(name.split(".")):
        raise CommandError(
            f"{option} {name!r:.80}: not the name of a module; write it as shop.objects or "
            "shop.objects:Cart"
        )
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise CommandError(
                f"{option}: there is no module {error.name}; check the name, or change to the "
                "folder of your app"
            ) from error
        raise CommandError(
            f"{option}: {name} can't be imported: {error_summary(error):.400}; fix that first"
        ) from error


def _find_class(module: object, name: str) -> ObjectDefinition:
    cls = getattr(module, name, None)
    if not (isinstance(cls, type) and issubclass(cls, DurableObject)):
        module_name = getattr(module, "__name__", "")
        raise CommandError(f"--app: {module_name} has no durable object {name!r}; check the name")
    return definition_of(cls)


def _is_of_library(definition: ObjectDefinition) -> bool:
    return definition.cls.__module__.partition(".")[0] == _LIBRARY


def _path_of(definition: ObjectDefinition) -> str:
    return f"{definition.cls.__module__}.{definition.cls.__qualname__}"
