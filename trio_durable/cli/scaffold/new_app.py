"""The files of a new app."""

from __future__ import annotations

from .rendering import render, wrap

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
_WEB_FILES = (
    "README.md",
    "Dockerfile",
    "service",
    "package/__main__.py",
    "package/probe.py",
    "package/web.py",
    "tests/test_web.py",
)
"""Files of a web app, in addition to those above or in their place."""

_MAX_USER = 32
"""In characters. Linux has no user with a longer name."""


def app_files(package: str, *, web: bool = False) -> dict[str, str]:
    """The text of each file of an app, by its path in the app's folder.

    Args:
        package: The name of its package.
        web: True for an app with HTTP routes, a Dockerfile and a unit file of systemd.
    """
    project = package.replace("_", "-").strip("-")
    service = project.lower()[:_MAX_USER].rstrip("-")
    templates = {path: f"app/{path}" for path in _FILES}
    if web:
        templates |= {path: f"web/{path}" for path in _WEB_FILES}
    dependencies = ["trio", "trio-durable"]
    tools = ["mypy", "pytest", "ruff"]
    values = {
        "package": package,
        "project": project,
        "service": service,  # the user, too, so it is in lower case
        "title": project.capitalize(),
        "variable": package.upper(),
        "dependencies": _quoted(["hypercorn[trio]", "starlette"] * web + dependencies),
        "tools": _quoted(["httpx"] * web + tools),
    }
    files: dict[str, str] = {}
    for path, template in templates.items():
        text = render(template, **values)
        name = f"{service}.service" if path == "service" else path
        name = name.replace("package/", f"{package}/")
        files[name] = wrap(text) if name.endswith(".py") else text
    return files


def _quoted(items: list[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)
