"""``trio-durable migrate-states``."""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import nullcontext

import click

from ..._clock import SystemClock
from ...storage import Reader
from ..options import output_option, storage_options
from ..output import (
    Output,
    console,
    print_reply,
    print_rows,
    printable,
    progress_bar,
    quantity,
)
from ..storage.app_classes import AppClasses, app_option
from ..storage.formatting import key_members
from ..storage.open import open_reader, resolve_storage
from ..storage.owner import open_owner
from ..storage.paging import select_tenants
from ..storage.state_upgrade import FailedUpgrade, StateUpgrade

_COLUMNS = ("type", "schema", "upgraded", "current", "failed")


@click.command("migrate-states")
@storage_options(tenant_help="Upgrade only this tenant; by default, all.")
@app_option(required=True, help="Module with the classes.")
@click.option("--dry-run", is_flag=True, help="Count only, and write nothing.")
@output_option(json_is="jsonl")
def migrate_states(
    storage: str, tenant: str | None, apps: tuple[str, ...], dry_run: bool, output: Output
) -> int:
    """Upgrade all stored states to the schemas of their classes.

    A runtime upgrades each state when it loads the object; this command upgrades
    all of them now. It can be interrupted at any moment: the next run continues.
    States that can't be upgraded are listed and not changed; exit status 1 then.
    CSV has the types, and standard error these states.

    \b
    Examples:
      trio-durable migrate-states -s app.db --app shop --dry-run
      trio-durable migrate-states -s app.db --app shop.objects:Cart,Basket
    """
    classes = AppClasses(apps)
    # Looking each class up by its stored name rejects two with the same name.
    found = {each.name: classes.of_type(each.name) for each in classes if each.schema > 1}
    upgrades = [StateUpgrade(definition) for definition in found.values()]
    store = resolve_storage(storage)
    err = console(stderr=True)
    failures: list[dict[str, object]] = []
    with (
        open_reader(store, tenant) as reader,
        nullcontext() if dry_run else open_owner(store) as owner,
        progress_bar(err) as progress,
    ):
        tenants = select_tenants(reader, tenant)
        total = _count_objects(reader, tenants, found.keys()) if err.is_terminal else None
        task = progress.add_task("upgrading", total=total)
        for upgrade in upgrades:
            for name in tenants:
                for failure in upgrade.run(reader, owner, name, lambda: progress.advance(task)):
                    if output == "json":
                        failures.append(_failure_json(failure))
                    elif output == "jsonl":
                        print_reply(_failure_json(failure), indent=None)
                    else:
                        click.echo(printable(failure.problem), err=True)
    failed = sum(upgrade.failed for upgrade in upgrades)
    types = [_json_counts(each) for each in upgrades]
    match output:
        case "table":
            _print_summary(upgrades, dry_run)
        case "csv":
            print_rows(output, _COLUMNS, types)
        case "jsonl":
            print_reply({"types": types}, indent=None)
        case "json":
            print_reply({"failures": failures, "types": types})
    return 1 if failed else 0


def _count_objects(reader: Reader, tenants: Sequence[str], types: Container[str]) -> int:
    now = SystemClock().now()
    return sum(
        each.objects
        for name in tenants
        for each in reader.summarize(now, name)
        if each.type_name in types
    )


def _failure_json(failure: FailedUpgrade) -> dict[str, object]:
    return {**key_members(failure.key), "error": failure.problem}


def _print_summary(upgrades: Sequence[StateUpgrade], dry_run: bool) -> None:
    if not upgrades:
        click.echo("Nothing to upgrade: all classes are at schema 1.")
    for each in upgrades:
        definition = each.definition
        failed = f", {each.failed:,} can't be upgraded" if each.failed else ""
        click.echo(
            f"{printable(definition.name)}: {quantity(each.upgraded, 'state')} "
            f"{'to upgrade' if dry_run else 'upgraded'} to schema {definition.schema}, "
            f"{each.current:,} had it already{failed}."
        )


def _json_counts(upgrade: StateUpgrade) -> dict[str, object]:
    return {
        "type": upgrade.definition.name,
        "schema": upgrade.definition.schema,
        "upgraded": upgrade.upgraded,
        "current": upgrade.current,
        "failed": upgrade.failed,
    }
