"""``trio-durable doctor``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import attrs
import click

from ..._clock import SystemClock
from ...storage import Finding, FindingStatus, Storage
from ..command_line import command_line
from ..errors import CommandError
from ..options import output_option, required_storage, storage_option_of_group
from ..output import Output, console, print_line, print_reply, print_rows, printable, quantity
from ..storage.app_classes import AppClasses, app_option
from ..storage.message_findings import message_findings, type_finding
from ..storage.open import open_reader, resolve_storage

_STYLES: dict[FindingStatus, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}
_WIDTH = max(map(len, _STYLES)) + 2


@click.command()
@click.argument("where", metavar="[STORAGE]", required=False)
@storage_option_of_group
@click.option(
    "--thorough",
    is_flag=True,
    help="Check every row, too, which takes time in a large storage.",
)
@app_option(required=False, help="Module with the classes, to find types that have none.")
@output_option(json_is="json")
@click.pass_context
def doctor(
    context: click.Context,
    where: str | None,
    storage: str | None,
    thorough: bool,
    apps: tuple[str, ...],
    output: Output,
) -> int:
    """Check a storage, and advise what to do.

    STORAGE is a path or URL, and may be given as --storage instead. Nothing is
    changed, and a runtime may be open. Exit status 1 if there is a problem; a
    warning alone is none. As jsonl and csv, a line is printed per finding.

    \b
    Examples:
      trio-durable doctor app.db
      trio-durable doctor --thorough app.db
      trio-durable doctor app.db --app shop
      trio-durable doctor postgresql://app@db.example.com/app --json
    """
    is_option_given = (
        context.get_parameter_source("storage") is click.core.ParameterSource.COMMANDLINE
    )
    if where is not None and is_option_given:
        raise CommandError("STORAGE is given twice; leave out --storage")
    if where is not None:
        store = resolve_storage(where, option="STORAGE")
    else:
        store = resolve_storage(required_storage(context, storage))
    known = {each.name for each in AppClasses(apps)} if apps else None
    found = _all_findings(store, thorough, known)
    findings = _printed(found) if output == "table" else list(found)
    counts = {status: sum(each.status == status for each in findings) for status in _STYLES}
    rows = map(attrs.asdict, findings)
    if output == "table":
        print_line(
            f"{store.location}: {quantity(len(findings), 'check')}, "
            f"{quantity(counts['warning'], 'warning')}, {quantity(counts['problem'], 'problem')}."
        )
    elif output == "json":
        print_reply({"location": store.location, "findings": list(rows)})
    else:
        print_rows(output, [field.name for field in attrs.fields(Finding)], rows)
    return 1 if counts["problem"] else 0


def _all_findings(
    store: Storage, thorough: bool, known: Collection[str] | None
) -> Iterator[Finding]:
    """Those of the storage, and those about messages if it can be read."""
    has_problem = False
    for finding in store.diagnose(thorough):
        has_problem = has_problem or finding.status == "problem"
        yield finding
    if store.keeps_messages and not has_problem and not store.pending_migrations():
        for move in store.list_moves():
            what = f"tenant {move.tenant}" if move.tenant else "the storage"
            back = command_line("reopen", storage=store.location, tenant=move.tenant)
            yield Finding(
                "moves",
                "warning",
                move.describe(what),
                f"open that storage, or take the mark back with `{back}`",
            )
        with open_reader(store) as reader:
            now = SystemClock().now()
            yield from message_findings(reader, now, store.location)
            yield type_finding(reader, now, known)


def _printed(findings: Iterable[Finding]) -> list[Finding]:
    """Print each finding as soon as its check has ended, since some take long."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    printed = []
    for finding in findings:
        printed.append(finding)
        lines = [printable(f"{finding.name}: {finding.text}")]
        if finding.advice:
            lines.append(printable(finding.advice))
        status = Text(finding.status.ljust(_WIDTH), style=_STYLES[finding.status])
        if out.is_terminal:
            row = Table.grid()
            row.add_column(no_wrap=True)
            row.add_column(overflow="fold")
            row.add_row(status, Text("\n".join(lines)))
            out.print(row)
        else:
            out.print(status + f"\n{' ' * _WIDTH}".join(lines), soft_wrap=True)
    return printed
