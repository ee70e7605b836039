"""``trio-durable new``."""

from __future__ import annotations

from pathlib import Path

import click

from ..scaffold.app_package import AppPackage
from ..scaffold.fields import parse_fields
from ..scaffold.files import create_files
from ..scaffold.new_object import NewObject


@click.command()
@click.argument("name")
@click.option(
    "--fields",
    required=True,
    metavar="NAME:TYPE,…",
    help="Its state, such as count:int,name:str. A type is what state may have: int, float, str, "
    "bool, bytes, datetime, date, time, timedelta, Decimal, UUID, Any, list[…], dict[…, …], "
    "set[…], frozenset[…], tuple[…], and unions such as str | None.",
)
@click.option("--alarm", metavar="NAME", help="An alarm, which its handler sets.")
@click.option(
    "--package", metavar="NAME", help="Where to put it; else what pyproject.toml speaks of."
)
def new(name: str, fields: str, alarm: str | None, package: str | None) -> None:
    """Add an object and its test to the app in the current folder.

    Writes a module to the app's package and one to tests/, for you to go on
    from. No file is ever replaced.

    \b
    Examples:
      trio-durable new Counter --fields count:int,name:str
      trio-durable new Cart --fields 'items:dict[str, int],paid_at:datetime|None'
      trio-durable new Session --fields user:str --alarm expire
      trio-durable new Room --fields members:set[str] --package chat.objects
    """
    new_object = NewObject(name, parse_fields(fields), alarm)
    app = Path()
    home = AppPackage.find(app) if package is None else AppPackage.named(app, package)
    made = create_files(
        app,
        {
            f"{home.folder / new_object.module}.py": new_object.source(),
            f"tests/test_{new_object.module}.py": new_object.test(home.name),
        },
    )
    for path in made:
        click.echo(f"created {click.format_filename(path)}")
    click.echo("Its first tests are there: run pytest.")
