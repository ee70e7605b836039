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
@click.option("--name", help="Of the package; else made from the folder's name.")
def init(folder: Path, name: str | None) -> None:
    """Start an app in DIR: a durable object, a program, and tests.

    DIR is the current folder unless given, and is made if need be. What is in
    it stays: no file is ever replaced.

    \b
    Examples:
      trio-durable init shop
      trio-durable init --name shop
    """
    if name is None:
        # Not Path.resolve, to which links that lead in a circle are a mistake of the program.
        name = package_name_from(os.path.basename(os.path.realpath(folder)))
    else:
        check_package(name)
    for path in create_files(folder, app_files(name)):
        click.echo(f"created {click.format_filename(path)}")
    click.echo(f"Go on from {click.format_filename(folder / 'README.md')}.")
