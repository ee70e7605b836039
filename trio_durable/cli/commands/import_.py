"""``trio-durable import``."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

import attrs
import click

from ..._api.tenant import check_tenant
from ..._clock import SystemClock
from ..._keys import ObjectKey
from ...storage import DeadMessage, OnceKey, OnceReply, Reader, StoredMessage, StoredObject
from ..errors import CommandError
from ..options import storage_options
from ..output import console, progress_bar
from ..storage.open import open_reader, resolve_storage
from ..storage.owner import Owner, open_owner
from ..storage.paging import existing_alarms, is_empty, present_mail
from ..storage.restore import Mail
from ..transfer.export_file import (
    Chunk,
    check_export,
    ensure_seekable,
    name_of,
    read_chunks,
    tenant_of,
)
from ..transfer.format import EndLine, count_text

Advance = Callable[[int], None]


@click.command("import")
@click.argument("source", metavar="[FILE]", default="-")
@storage_options(tenant_help="Import only this tenant; by default, all.")
@click.option("--replace", is_flag=True, help="Replace objects and alarms that are stored already.")
@click.option("--skip", is_flag=True, help="Skip objects and alarms that are stored already.")
def import_(source: str, storage: str, tenant: str | None, replace: bool, skip: bool) -> None:
    """Import objects, alarms and messages from an export.

    The export is FILE, or standard input.

    The whole file is checked before anything is written. If an object, alarm or
    message is stored already, nothing is written, unless --replace or --skip is
    given; with both, messages and once-keys that are there stay as they are. A
    missing storage is created.

    A message that was handled isn't stored any more, and is imported again. So
    don't let a runtime open the storage between two imports of the same file.

    \b
    Examples:
      trio-durable import -s new.db app.jsonl
      trio-durable import -s app.db --skip app.jsonl
      gunzip < acme.jsonl.gz | trio-durable import -s app.db -t acme
    """
    if replace and skip:
        raise CommandError("--replace and --skip exclude each other; use one of them")
    if tenant is not None:
        check_tenant(tenant)
    name = "standard input" if source == "-" else source
    store = resolve_storage(storage, "normal")
    with (
        click.open_file(source, "rb") as given,
        ensure_seekable(given) as file,
        progress_bar(console(stderr=True)) as progress,
    ):
        size = file.seek(0, 2)
        task = progress.add_task("importing", total=3 * size)  # it is read three times

        def advance(count: int) -> None:
            progress.advance(task, count)

        has_mail = check_export(file, name, tenant, advance)
        if has_mail and not store.keeps_messages:
            raise CommandError(f"{name} has messages, which {store.location} can't keep")
        # The writer is closed last, because the last connection to an SQLite file syncs it on
        # closing, and the commits did not.
        with open_owner(store) as owner, open_reader(store) as reader:
            if has_mail and not owner.may_restore_messages:
                raise CommandError(
                    f"{name} has messages, which can't be imported while runtimes are open; stop "
                    "them first"
                )
            may_have_duplicates = not is_empty(reader)
            if may_have_duplicates and not (replace or skip):
                _reject_duplicates(reader, file, name, tenant, advance)
            else:
                advance(size)
            importer = _Import(reader, owner, SystemClock().now(), skip, may_have_duplicates)
            for chunk in read_chunks(file, tenant, advance):
                importer.write(chunk)
    message = f"Imported {count_text(importer.imported)}."
    left = attrs.asdict(importer.skipped)
    if skip or any(left.values()):
        message += f" Skipped {count_text(importer.skipped)}."
    click.echo(message)


def _reject_duplicates(
    reader: Reader, file: IO[bytes], name: str, tenant: str | None, advance: Advance
) -> None:
    now = SystemClock().now()
    for chunk in read_chunks(file, tenant, advance):
        stored = reader.load([row.key for _, row in chunk.objects])
        duplicates = [
            (number, str(row.key))
            for (number, row), found in zip(chunk.objects, stored, strict=True)
            if found is not None
        ]
        present = existing_alarms(reader, [row.alarm.key for _, row in chunk.alarms], now)
        duplicates += [
            (number, f"alarm {row.alarm.key}")
            for number, row in chunk.alarms
            if row.alarm.key in present
        ]
        if chunk.mail:
            tokens, keys = present_mail(reader, {tenant_of(row) for _, row in chunk.mail})
            duplicates += [
                (number, name_of(row)) for number, row in chunk.mail if _is_in(row, tokens, keys)
            ]
        if duplicates:
            number, row_name = min(duplicates)
            raise CommandError(
                f"{name}, line {number}: {row_name} is stored already; use --replace or --skip"
            )


def _is_in(
    row: StoredMessage | DeadMessage | OnceReply, tokens: set[int], keys: set[OnceKey]
) -> bool:
    match row:
        case StoredMessage():
            return row.key.token in tokens
        case DeadMessage():
            return row.message.key.token in tokens
        case OnceReply():
            return row.key in keys


def _count(mail: Mail) -> EndLine:
    return EndLine(0, 0, len(mail.waiting), len(mail.dead), len(mail.once))


@attrs.define
class _Import:
    """Writes an export, chunk by chunk."""

    _reader: Reader
    _owner: Owner
    _now: int
    _skip: bool
    _may_have_duplicates: bool
    imported: EndLine = attrs.field(factory=EndLine)
    skipped: EndLine = attrs.field(factory=EndLine)

    def write(self, chunk: Chunk) -> None:
        """Write the rows of a chunk.

        Raises:
            StorageFault: A row can't be written.
        """
        objects = [row for _, row in chunk.objects]
        alarms = [row for _, row in chunk.alarms]
        stored: dict[ObjectKey, StoredObject] = {}
        if self._may_have_duplicates:
            keys = [row.key for row in objects]
            found = zip(keys, self._reader.load(keys), strict=True)
            stored = {key: row for key, row in found if row is not None}
        if self._may_have_duplicates and self._skip:
            present = existing_alarms(self._reader, [row.alarm.key for row in alarms], self._now)
            self.skipped += EndLine(len(stored), len(present))
            objects = [row for row in objects if row.key not in stored]
            alarms = [row for row in alarms if row.alarm.key not in present]
        if objects:
            self._owner.restore_objects(objects, stored)
        if alarms:
            self._owner.restore_alarms(alarms, self._now)
        self.imported += EndLine(len(objects), len(alarms))
        for tenant in dict.fromkeys(tenant_of(row) for _, row in chunk.mail):
            mail = Mail()
            for _, row in chunk.mail:
                if tenant_of(row) == tenant:
                    mail.add(row)
            left = self._owner.restore_mail(mail, self._now)
            self.imported += _count(mail) - _count(left)
            self.skipped += _count(left)
