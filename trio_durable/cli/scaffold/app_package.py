"""The package of the app in a folder."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import attrs

from ..errors import CommandError
from .names import check_identifier


@attrs.frozen
class AppPackage:
    """A package that new modules go to."""

    name: str
    """As it is imported, such as shop or shop.objects."""
    folder: Path

    @classmethod
    def named(cls, app: Path, name: str) -> AppPackage:
        """The package of this name, in an app's folder or in ``src`` there.

        Raises:
            Refusal: There is none.
        """
        parts = name.split(".")
        for part in parts:
            check_identifier("package", part)
        for base in _homes(app):
            folder = base.joinpath(*parts)
            if (folder / "__init__.py").is_file():
                return cls(name, folder)
        path = "/".join(parts)
        raise CommandError(
            f"package {name!r}: neither {path}/__init__.py nor src/{path}/__init__.py is there; "
            "change to the folder of your app, or make the package first"
        )

    @classmethod
    def of(cls, app: Path) -> AppPackage:
        """The package of an app: named as ``pyproject.toml`` names the project, or the only one.

        Raises:
            Refusal: There is none, or more than one.
        """
        try:
            document = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CommandError(
                "there is no pyproject.toml here; change to the folder of your app, or name its "
                "package with --package"
            ) from None
        except UnicodeDecodeError:
            raise CommandError(
                "pyproject.toml: not UTF-8 text; mend it, or use --package"
            ) from None
        except tomllib.TOMLDecodeError as error:
            raise CommandError(
                f"pyproject.toml: not TOML: {error}; mend it, or use --package"
            ) from None
        project = document.get("project")
        name = project.get("name") if isinstance(project, dict) else None
        found = {
            init.parent.name: init.parent
            for base in reversed(_homes(app))  # of two of one name the first counts
            for init in sorted(base.glob("*/__init__.py"))
            if init.parent.name.isidentifier() and init.parent.name not in ("tests", "test")
        }
        named = re.sub(r"[-.]+", "_", name).lower() if isinstance(name, str) else ""
        if named not in found and len(found) == 1:
            [named] = found
        if named not in found:
            which = ", ".join(found) or "none"
            raise CommandError(
                f"can't tell which package is the app's (there is: {which}); name it with --package"
            )
        return cls(named, found[named])


def _homes(app: Path) -> tuple[Path, ...]:
    """Where packages are looked for, in this order."""
    return app, app / "src"
