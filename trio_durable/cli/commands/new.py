"""``trio-durable new``."""

from __future__ import annotations

from pathlib import Path

import click

from ..scaffold.annotations import OFFERED_TYPES
from ..scaffold.app_package import AppPackage
from ..scaffold.fields import parse_fields
from ..scaffold.files import create_files
from ..scaffold.new_object import NewObject


@click.command()
@click.argument("name")
@click.option(
    "--fields",
    default="count:int",
    show_default=True,
    metavar="NAME:TYPE,…",
    help=f"Fields of the state. Types are {OFFERED_TYPES}, and unions such as str | None.",
)
@click.option("--alarm", metavar="NAME", help="Name of an alarm that the handler sets.")
@click.option(
    "--package", metavar="NAME", help="Package for the module; by default, the app's own."
)
def new(name: str, fields: str, alarm: str | None, package: str | None) -> None:
    """Add an object and its test to an app.

    Run it in the app's folder. A module with the class is written to the app's
    package, and its test to tests/. The class has one handler, which changes the
    first field as its type suggests. An existing file is never replaced.

    \b
    Examples:
      trio-durable new Counter
      trio-durable new Cart --fields 'items:dict[str, int],paid_at:datetime|None'
      trio-durable new Session --fields user:str --alarm expire
      trio-durable new Room --fields 'members:set[str]' --package chat.objects
    """
    new_object = NewObject(name, parse_fields(fields), alarm)
    app = Path()
    package_of_app = AppPackage.find(app) if package is None else AppPackage.named(app, package)
    created = create_files(
        app,
        {
            f"{package_of_app.folder / new_object.module}.py": new_object.source(),
            f"tests/test_{new_object.module}.py": new_object.test(package_of_app.name),
        },
    )
    for path in created:
        click.echo(f"created {click.format_filename(path)}")
    module = f"{package_of_app.name}.{new_object.module}"
    handler = new_object.handler
    call = f'await runtime.get({name}, "one").{handler.name}({handler.arguments})'
    click.echo("Run its first tests with pytest. Call it where a runtime is open:")
    click.echo(f"  from {module} import {name}\n  {call}")
