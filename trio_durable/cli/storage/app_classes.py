"""The durable object classes of a user's app."""

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
    resolved_fields,
)
from ..._json.state import StateCodec
from ..._text import error_summary
from ..errors import Refusal

_OWN = __name__.partition(".")[0]


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
    """The classes that some modules bring, all or those that are named.

    Args:
        apps: As ``--app`` has them: ``shop.objects`` or ``shop.objects:Cart,Basket``. Modules are
            imported as ``python -m`` does, so those of the current folder are found.

    Raises:
        Refusal: One can't be imported, or has no such class.
    """

    def __init__(self, apps: Iterable[str]) -> None:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        self._named: list[ObjectDefinition] | None = []
        for app in apps:
            module_name, separator, classes = app.partition(":")
            module = _imported(module_name)
            if not separator:
                self._named = None
            elif self._named is not None:
                self._named += [_class_in(module, name) for name in classes.split(",")]

    def __iter__(self) -> Iterator[ObjectDefinition]:
        """Those that can have objects, in the order of their stored names."""
        found = self._named
        if found is None:
            found = [each for same in known_definitions().values() for each in same]
        fit = [each for each in found if not each.is_abstract and not _is_own(each)]
        return iter(sorted(fit, key=lambda each: (each.name, _path(each))))

    def of_type(self, type_name: str) -> ObjectDefinition:
        """The class that is stored under this name.

        Raises:
            Refusal: There is none, or more than one.
        """
        found = [each for each in self if each.name == type_name]
        if not found:
            known = ", ".join(dict.fromkeys(each.name for each in self)) or "none"
            raise Refusal(f"--app has no class that is stored as {type_name!r} (it has: {known})")
        if len(found) > 1:
            classes = " and ".join(_path(each) for each in found)
            raise Refusal(f"--app: {classes} are both stored as {type_name!r}; name one of them")
        return found[0]


def codec_of(definition: ObjectDefinition) -> StateCodec:
    """What reads and writes the states of a class.

    Raises:
        DefinitionError: The class can't be stored.
    """
    resolved_fields(definition.cls)
    return StateCodec(definition.cls, schema=definition.schema, upgrades=definition.upgrades)


def _imported(name: str) -> object:
    if not all(name.split(".")):
        raise Refusal(
            f"--app {name!r:.80}: not the name of a module; write it as shop.objects or "
            "shop.objects:Cart"
        )
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever the user's module may raise
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise Refusal(
                f"--app: there is no module {error.name}; check the name, or change to the folder "
                "of your app"
            ) from error
        raise Refusal(
            f"--app: {name} can't be imported: {error_summary(error):.400}; mend that first"
        ) from error


def _class_in(module: object, name: str) -> ObjectDefinition:
    cls = getattr(module, name, None)
    if not (isinstance(cls, type) and issubclass(cls, DurableObject)):
        where = getattr(module, "__name__", "")
        raise Refusal(f"--app: {where} has no durable object {name!r}; check the name")
    return definition_of(cls)


def _is_own(definition: ObjectDefinition) -> bool:
    return definition.cls.__module__.partition(".")[0] == _OWN


def _path(definition: ObjectDefinition) -> str:
    return f"{definition.cls.__module__}.{definition.cls.__qualname__}"
