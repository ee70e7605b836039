"""``trio-durable init``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..scaffold.files import create_files
from ..scaffold.names import check_package, package_name_from
from ..scaffold.new_app import app_files


@click.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path())
@click.option("--name", help="Name of the package; by default, made from the name of the folder.")
@click.option(
    "--web", is_flag=True, help="Serve the objects over HTTP; with a Dockerfile and a unit file."
)
def init(folder: Path, name: str | None, web: bool) -> None:
    """Create an app: a durable object, a program, and tests.

    DIR is its folder: by default the current one, and created if missing. An
    existing file is never replaced.

    \b
    Examples:
      trio-durable init shop
      trio-durable init --name shop
      trio-durable init --web shop
    """
    if name is None:
        # Path.resolve raises RuntimeError for links that form a loop; realpath accepts them.
        name = package_name_from(os.path.basename(os.path.realpath(folder)))
    else:
        check_package(name)
    for path in create_files(folder, app_files(name, web=web)):
        click.echo(f"created {click.format_filename(path)}")
    click.echo(f"Continue with {click.format_filename(folder / 'README.md')}.")
