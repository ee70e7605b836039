"""Options and types of values that commands share."""

from __future__ import annotations

import math
from typing import Any

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, and nothing else, to standard output."
)

storage_option = click.option(
    "--storage",
    "-s",
    metavar="PATH",
    envvar="TRIO_DURABLE_STORAGE",
    show_envvar=True,
    required=True,
    help="The SQLite file of the runtime, or sqlite:///path.",
)


class Seconds(click.FloatRange):
    """A number of seconds, from ``minimum`` to an hour."""

    name = "number"

    def __init__(self, minimum: float) -> None:
        super().__init__(minimum, 3600)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that was written."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):  # which is beyond no bound
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds
