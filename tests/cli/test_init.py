from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest

from trio_durable.cli.scaffold.names import package_name_from

from .support import (
    ROOT,
    assert_app_passes_checks,
    assert_refused,
    contents,
    environment,
    python,
    run,
)

FILES = {
    ".gitignore",
    "README.md",
    "pyproject.toml",
    "shop",
    "shop/__init__.py",
    "shop/__main__.py",
    "shop/page.py",
    "tests",
    "tests/conftest.py",
    "tests/test_page.py",
}


def test_it_makes_a_folder_and_says_what_is_in_it(folder: Path) -> None:
    result = run("init", "apps/shop")
    assert (result.exit_code, result.stderr) == (0, "")
    made = contents(folder / "apps" / "shop")
    assert made.keys() == FILES
    *created, last = result.stdout.splitlines()
    assert {line.removeprefix("created apps/shop/") for line in created} == FILES - {
        "shop",
        "tests",
    }
    assert last == "Continue with apps/shop/README.md."
    assert b"$" not in b"".join(filter(None, made.values()))


WEB_FILES = FILES | {
    "Dockerfile",
    "shop.service",
    "shop/probe.py",
    "shop/web.py",
    "tests/test_web.py",
}


def test_a_web_app_passes_all_checks(folder: Path) -> None:
    result = run("init", "--web", "--name", "shop")
    assert (result.exit_code, result.stderr) == (0, "")
    assert contents(folder).keys() == WEB_FILES
    assert_app_passes_checks(folder, 8)


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_web_app_is_served_until_a_signal(folder: Path, number: signal.Signals) -> None:
    assert run("init", "--web", "--name", "shop").exit_code == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server = subprocess.Popen(
        [sys.executable, "-m", "shop"],
        cwd=folder,
        env=environment() | {"SHOP_BIND": address, "SHOP_DB": "served.db"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            assert server.stderr is not None
            assert any("Running on" in line for line in server.stderr)
            answer = httpx.post(f"http://{address}/pages/welcome", timeout=30)
            assert answer.json() == {"total": 1}
            server.send_signal(number)
            assert server.wait(60) == 0
        finally:
            server.kill()
    shown = run("show", "-s", str(folder / "served.db"), "Page", "welcome")
    assert shown.exit_code == 0, shown.stderr


def test_the_files_for_deployment_are_those_of_the_documentation(folder: Path) -> None:
    assert run("init", "--web", "--name", "shop").exit_code == 0
    page = (ROOT / "docs" / "operate" / "deploy.md").read_text(encoding="utf-8")
    for name, language in (("Dockerfile", "dockerfile"), ("shop.service", "ini")):
        text = (folder / name).read_text()
        assert f"```{language}\n# {name}\n{text}```\n" in page


@pytest.mark.parametrize("name", ["my_shop", "Shop2", "a" * 40])
def test_the_files_for_deployment_have_a_user_that_linux_accepts(folder: Path, name: str) -> None:
    assert run("init", "--web", "--name", name).exit_code == 0
    (unit,) = folder.glob("*.service")
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,31}", unit.stem)
    assert f"\nUser={unit.stem}\n" in unit.read_text()
    assert f"\nUSER {unit.stem}\n" in (folder / "Dockerfile").read_text()
    for check in (["ruff", "check", "--select=E,F,I"], ["ruff", "format", "--check"]):
        ran = python("-m", *check, cwd=folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_it_starts_in_the_current_folder_beside_what_is_there(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / "tests").mkdir()
    assert run("init", "--name", "shop").exit_code == 0
    assert contents(folder).keys() == FILES | {"notes.txt"}
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["shop", "my_shop", "Shop2", "shop_", "a" * 40])
def test_the_project_is_named_after_the_package(folder: Path, name: str) -> None:
    assert run("init", "--name", name).exit_code == 0
    document = tomllib.loads((folder / "pyproject.toml").read_text())
    assert document["project"]["name"].replace("-", "_") == name.rstrip("_")
    assert document["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [name]
    widths = (len(line) for path in folder.rglob("*.py") for line in path.read_text().splitlines())
    assert max(widths) <= 88


@pytest.mark.parametrize(
    ("folder_name", "package"),
    [("shop", "shop"), ("My Shop 2", "my_shop_2"), ("my-shop.git", "my_shop_git"), ("_x", "x")],
)
def test_the_package_is_named_after_the_folder(folder_name: str, package: str) -> None:
    assert package_name_from(folder_name) == package


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["2025"], "no package can be named after the folder '2025'; give a name with --name"),
        (["+"], "no package can be named after the folder '+'"),
        (["class"], "package 'class': a keyword of Python"),
        (["random"], "package 'random': would hide the module of that name; choose another"),
        (["trio"], "would hide"),
        (["trio-durable"], "package 'trio_durable': would hide"),
        (["Tests"], "package 'tests': would hide"),
        (["x" * 41], "longer than 40 characters"),
        (["--name", "my-shop"], "package 'my-shop': not a name"),
        (["--name", ""], "package '': not a name"),
        (["--name", "_shop"], "not a name"),
        (["--name", "lambda"], "a keyword"),
        (["--name", "ünder"], "not a name"),
        (["--name", "a\nb"], "not a name"),
        (["--name"], "requires an argument"),
        (["one", "two"], "unexpected extra argument"),
        (["--nonsense"], "No such option"),
        (["file/shop"], "file: not a folder; move it away"),
        (["file", "--name", "shop"], "file: not a folder"),
        (["dangling", "--name", "shop"], "dangling: not a folder"),
        (["circle"], "circle: not a folder; move it away"),
        (["n" * 300, "--name", "shop"], "the name is too long; choose a shorter one"),
    ],
)
def test_bad_input(folder: Path, args: list[str], says: str) -> None:
    (folder / "file").write_text("mine")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "circle").symlink_to("circle")
    assert_refused(folder, says, "init", *args)


@pytest.mark.parametrize("name", sorted(FILES - {"shop", "tests"}))
def test_nothing_is_replaced(folder: Path, name: str) -> None:
    path = folder / "shop" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert_refused(folder, f"shop/{name}: already there; move it away", "init", "shop")


def test_all_that_is_there_already_is_named(folder: Path) -> None:
    assert run("init", "shop").exit_code == 0
    assert_refused(folder, "shop/pyproject.toml, shop/README.md, shop/.gitignore", "init", "shop")


def test_a_file_in_the_place_of_a_folder_is_refused(folder: Path) -> None:
    (folder / "tests").write_text("mine")
    assert_refused(folder, "tests: not a folder", "init", "--name=shop")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_made_before_a_failure_goes_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    mkdir = Path.mkdir

    def failing(path: Path) -> None:
        if path.name == "tests":  # the last folder, when there are files already
            raise error
        mkdir(path)

    monkeypatch.setattr(Path, "mkdir", failing)
    result = run("init", "apps/shop")
    assert result.exit_code == (2 if isinstance(error, OSError) else 130)
    assert result.stdout == ""
    assert contents(folder) == {}


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_t_be_written_to(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o500)
    assert_refused(folder, "locked/shop: permission denied", "init", "locked/shop")
