"""The files of a new app."""

from __future__ import annotations

from .rendering import render

_FILES = (
    "pyproject.toml",
    "README.md",
    ".gitignore",
    "package/__init__.py",
    "package/__main__.py",
    "package/page.py",
    "tests/conftest.py",
    "tests/test_page.py",
)


def app_files(package: str) -> dict[str, str]:
    """The text of each file of an app, by its path in the app's folder."""
    project = package.replace("_", "-").strip("-")
    return {
        path.replace("package/", f"{package}/"): render(
            f"app/{path}", package=package, project=project
        )
        for path in _FILES
    }
