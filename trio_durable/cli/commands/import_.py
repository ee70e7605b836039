"""``trio-durable import``."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import attrs
import click

from ..._api.tenant import check_tenant
from ..._clock import SystemClock
from ..._keys import ObjectKey
from ...storage import Reader, StoredObject, Writer
from ..errors import CommandError
from ..options import input_file, storage_options
from ..output import console, progress_bar, quantity
from ..storage.open import open_reader, open_writer, resolve_storage
from ..storage.paging import existing_alarms, is_empty
from ..transfer.export_file import Chunk, check_export, ensure_seekable, read_chunks
from ..transfer.restore import restore_alarms, restore_objects

Advance = Callable[[int], None]


@click.command("import")
@click.argument("source", metavar="[FILE]", default="-")
@storage_options(tenant_help="Only what the file has of it; else all there is.")
@click.option("--replace", is_flag=True, help="Write over what is stored already.")
@click.option("--skip", is_flag=True, help="Leave what is stored already as it is.")
def import_(source: str, storage: str, tenant: str | None, replace: bool, skip: bool) -> None:
    """Store what an export has, from FILE or standard input.

    All of the file is checked before anything is written. If something of it is
    stored already, nothing is written, unless --replace or --skip says what to
    do. The storage is made if it isn't there.

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
        input_file(source) as given,
        ensure_seekable(given) as file,
        progress_bar(console(stderr=True)) as progress,
    ):
        size = file.seek(0, 2)
        task = progress.add_task("importing", total=3 * size)  # for each time that it is read

        def advance(count: int) -> None:
            progress.advance(task, count)

        check_export(file, name, tenant, advance)
        # The reader goes first: what closes an SQLite file last syncs it, as its commits did not.
        with open_writer(store) as writer, open_reader(store) as reader:
            may_clash = not is_empty(reader)
            if may_clash and not (replace or skip):
                _refuse_clashes(reader, file, name, tenant, advance)
            else:
                advance(size)
            work = _Import(reader, writer, SystemClock().now(), skip, may_clash)
            for piece in read_chunks(file, tenant, advance):
                work.write(piece)
    message = f"Imported {quantity(work.objects, 'object')} and {quantity(work.alarms, 'alarm')}."
    if skip:
        message += f" Skipped {work.skipped_objects:,} and {work.skipped_alarms:,}."
    click.echo(message)


def _refuse_clashes(
    reader: Reader, file: BinaryIO, name: str, tenant: str | None, advance: Advance
) -> None:
    now = SystemClock().now()
    for piece in read_chunks(file, tenant, advance):
        stored = reader.load([row.key for _, row in piece.objects])
        clashes = [
            (number, str(row.key))
            for (number, row), found in zip(piece.objects, stored, strict=True)
            if found is not None
        ]
        present = existing_alarms(reader, [row.alarm.key for _, row in piece.alarms], now)
        clashes += [
            (number, f"alarm {row.alarm.key}")
            for number, row in piece.alarms
            if row.alarm.key in present
        ]
        if clashes:
            number, what = min(clashes)
            raise CommandError(
                f"{name}, line {number}: {what} is stored already; import with --replace or --skip"
            )


@attrs.define
class _Import:
    """Writes an export, piece by piece."""

    _reader: Reader
    _writer: Writer
    _now: int
    _skip: bool
    _may_clash: bool
    objects: int = 0
    alarms: int = 0
    skipped_objects: int = 0
    skipped_alarms: int = 0

    def write(self, piece: Chunk) -> None:
        """Write some rows.

        Raises:
            StorageFault: They, or some of them, can't be.
        """
        objects = [row for _, row in piece.objects]
        alarms = [row for _, row in piece.alarms]
        stored: dict[ObjectKey, StoredObject] = {}
        if self._may_clash:
            keys = [row.key for row in objects]
            found = zip(keys, self._reader.load(keys), strict=True)
            stored = {key: row for key, row in found if row is not None}
        if self._may_clash and self._skip:
            present = existing_alarms(self._reader, [row.alarm.key for row in alarms], self._now)
            self.skipped_objects += len(stored)
            self.skipped_alarms += len(present)
            objects = [row for row in objects if row.key not in stored]
            alarms = [row for row in alarms if row.alarm.key not in present]
        if objects:
            restore_objects(self._writer, objects, stored)
        if alarms:
            restore_alarms(self._writer, alarms, self._now)
        self.objects += len(objects)
        self.alarms += len(alarms)
