"""The package of the app in a folder."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import attrs

from ..errors import CommandError
from .names import check_name


@attrs.frozen
class AppPackage:
    """The package that new modules are added to."""

    name: str
    """The name to import it by, such as shop or shop.objects."""
    folder: Path

    @classmethod
    def named(cls, app: Path, name: str) -> AppPackage:
        """The package of this name, in the app's folder or its folder ``src``.

        Raises:
            CommandError: There is none.
        """
        for part in name.split("."):
            check_name("package", part)
        path = name.replace(".", "/")
        for root in _roots(app):
            if (root / path / "__init__.py").is_file():
                return cls(name, root / path)
        raise CommandError(
            f"package {name!r}: neither {path}/__init__.py nor src/{path}/__init__.py exists; "
            "change to the folder of your app, or create the package first"
        )

    @classmethod
    def find(cls, app: Path) -> AppPackage:
        """The package with the name of the project in ``pyproject.toml``, or the only package.

        Raises:
            CommandError: There is none, or more than one.
        """
        try:
            document = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CommandError(
                "there is no pyproject.toml here; change to the folder of your app, or name its "
                "package with --package"
            ) from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            is_text = isinstance(error, tomllib.TOMLDecodeError)
            problem = f"not TOML: {error}" if is_text else "not UTF-8 text"
            raise CommandError(f"pyproject.toml: {problem}; fix it, or use --package") from None
        packages = {
            init.parent.name: init.parent
            for root in reversed(_roots(app))  # the first root wins
            for init in sorted(root.glob("*/__init__.py"))
            if init.parent.name.isidentifier() and init.parent.name not in ("tests", "test")
        }
        project = document.get("project")
        name = project.get("name") if isinstance(project, dict) else None
        package = re.sub(r"[-.]+", "_", name).lower() if isinstance(name, str) else ""
        if package not in packages and len(packages) == 1:
            [package] = packages
        if package not in packages:
            raise CommandError(
                f"can't tell which package is the app's (found: {', '.join(packages) or 'none'}); "
                "name it with --package"
            )
        return cls(package, packages[package])


def _roots(app: Path) -> tuple[Path, ...]:
    """Folders with packages, in the order of the search."""
    return app, app / "src"
