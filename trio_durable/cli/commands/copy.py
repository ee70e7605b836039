"""``trio-durable copy``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import zip_longest
from typing import TypeVar

import attrs
import click

from ..._browsing import iter_alarms
from ..._clock import SystemClock
from ..._keys import AlarmKey, ObjectKey
from ..._persistence.restoring import can_restore, restore_alarms
from ...storage import (
    AlarmRow,
    DeadMessage,
    ObjectRow,
    OnceReply,
    Reader,
    SQLiteStorage,
    Storage,
    StorageFault,
    StoredMessage,
    Writer,
)
from ..command_line import command_line
from ..errors import CommandError
from ..options import Seconds
from ..output import console, printable, progress_bar
from ..storage.batches import batches
from ..storage.draining import Patience, waiting_in, waiting_text, writer_in_time
from ..storage.draining import drain as wait_until_drained
from ..storage.open import open_reader, open_writer, resolve_storage
from ..storage.paging import (
    existing_alarms,
    has_mail,
    is_empty,
    iter_dead_messages,
    iter_messages,
    iter_objects,
    iter_once,
    select_tenants,
)
from ..storage.restore import Mail, restore_mail, restore_objects
from ..storage.totals import Total
from ..transfer.export_file import name_of
from ..transfer.fields import unrepresentable_instant
from ..transfer.format import EndLine, count_text

R = TypeVar("R", ObjectRow, AlarmRow)
K = TypeVar("K", ObjectKey, AlarmKey)

Mailed = StoredMessage | DeadMessage | OnceReply
Advance = Callable[[int], None]


@click.command("copy")
@click.argument("source")
@click.argument("target")
@click.option("--tenant", "-t", metavar="NAME", help="Copy only this tenant; by default, all.")
@click.option("--resume", is_flag=True, help="Continue an interrupted copy.")
@click.option("--move", is_flag=True, help="Mark the source as moved, so that no runtime opens it.")
@click.option(
    "--drain",
    type=Seconds(minimum=0),
    metavar="SECONDS",
    help="First wait until no messages wait and no runtime is open.",
)
def copy_(
    source: str, target: str, tenant: str | None, resume: bool, move: bool, drain: float | None
) -> int:
    """Copy all objects, alarms and messages to a storage.

    SOURCE and TARGET are paths of SQLite files or URLs. The target must be empty,
    or with --resume contain an interrupted copy. At the end all rows of both are
    compared; exit status 1 if they differ.

    Stop all runtimes on the source first. An SQLite file that a runtime has open
    is rejected, and a PostgreSQL database with --move or --drain; without these,
    an open runtime is not detected there.

    Messages that wait would happen in both storages. So a source with some is
    rejected, unless --move marks it as moved once the copy is complete (`reopen`
    takes that back), or --drain lets them be handled before.

    \b
    Examples:
      trio-durable copy app.db postgresql://app@db.example.com/app --move
      trio-durable copy postgresql://app@db.example.com/app app.db --drain 60
      trio-durable copy app.db acme.db -t acme --move
    """
    old = resolve_storage(source, option="SOURCE")
    new = resolve_storage(target, "normal", option="TARGET")
    if old.location == new.location:
        raise CommandError(f"SOURCE and TARGET are the same, {old.location}; name two storages")
    _refuse_moved(old, tenant)
    patience = Patience(drain or 0)
    if drain is not None:
        wait_until_drained(old, tenant, patience)
    excludes = move or drain is not None or isinstance(old, SQLiteStorage)
    # The writer of an SQLite file keeps all others from changing it during the copy. PostgreSQL has
    # no such lock, and a role that may only read can copy from it. No other storage is locked:
    # opening its writer may change it, and need not exclude others. The comparison at the end
    # reports the changes of others.
    with (
        open_reader(old, tenant) as source_reader,
        writer_in_time(old, patience) if excludes else nullcontext() as source_writer,
        progress_bar(console(stderr=True)) as progress,
    ):
        tenants = select_tenants(source_reader, tenant)
        now = SystemClock().now()
        if not move and (waiting := waiting_in(source_reader, tenants)):
            raise CommandError(
                f"{waiting_text(waiting)} would happen in both storages; mark "
                f"{old.location} as moved with --move, or have them handled first with --drain"
            )
        # Checked before the target is changed.
        for name in tenants:
            for row in iter_alarms(source_reader, now, None, name):
                if not can_restore(row):
                    raise unrepresentable_instant(row.alarm.key)
        if not new.keeps_messages and any(has_mail(source_reader, name) for name in tenants):
            raise CommandError(
                f"{old.location} has messages or once-keys, which {new.location} can't keep; let "
                "them be handled first, and drop the dead ones"
            )
        total = [Total.of(source_reader.summarize(now, name)) for name in tenants]
        task = progress.add_task("copying", total=2 * sum(s.objects + s.alarms for s in total))

        def advance(count: int) -> None:
            progress.advance(task, count)

        with open_writer(new) as writer, open_reader(new) as target_reader:
            if not (resume or is_empty(target_reader)):
                raise CommandError(
                    f"{new.location} isn't empty; name an empty storage, or continue an "
                    "interrupted copy with --resume"
                )
            copy = StorageCopy(source_reader, target_reader, now, resume, advance)
            last = copy.all_but_the_last(tenants, writer)
        with open_writer(resolve_storage(target, "full", option="TARGET")) as writer:
            # This commit is synced, and all earlier ones with it.
            copy.write(last, writer)
        progress.update(task, description="comparing")
        with open_reader(new) as target_reader:
            difference = next(copy.differences(tenants, target_reader), None)
        if move and difference is None:
            # Only now: a copy that was interrupted leaves the source as it was. It is open until
            # here, so no runtime has changed it since the comparison.
            assert source_writer is not None
            source_writer.mark_moved(new.location, SystemClock().now(), tenant or "")
    if difference is not None:
        click.echo(printable(f"trio-durable copy: {difference}"), err=True)
        return 1
    click.echo(f"Copied {count_text(copy.copied)}, and found both storages equal, row by row.")
    if move:
        what = old.location if tenant is None else f"tenant {tenant} of {old.location}"
        back = command_line("reopen", storage=old.location, tenant=tenant)
        click.echo(printable(f"Marked {what} as moved; `{back}` takes that back."))
    return 0


def _refuse_moved(storage: Storage, tenant: str | None) -> None:
    """Refuse to copy what was moved: the other copy may be in use.

    Raises:
        CommandError: It was.
    """
    for move in storage.list_moves():
        if move.tenant in ("", tenant):
            what = f"tenant {tenant} of {storage.location}" if move.tenant else storage.location
            back = command_line("reopen", storage=storage.location, tenant=move.tenant)
            raise CommandError(
                f"{move.describe(what)}; copy that one, or take the mark back with `{back}` if it "
                "isn't used"
            )


@attrs.define
class _Batch:
    objects: list[ObjectRow] = attrs.field(factory=list)
    alarms: list[AlarmRow] = attrs.field(factory=list)
    mail: Mail = attrs.field(factory=Mail)


@attrs.define
class StorageCopy:
    """Copies rows from one storage to another."""

    _old: Reader
    _new: Reader
    _now: int
    _resume: bool
    _advance: Advance
    copied: EndLine = attrs.field(factory=EndLine)

    def all_but_the_last(self, tenants: Iterable[str], writer: Writer) -> _Batch:
        """Write all batches but the last, and return the last."""
        last = _Batch()
        for batch in self._batches(tenants):
            self.write(last, writer)
            last = batch
        return last

    def write(self, batch: _Batch, writer: Writer) -> None:
        """Write a batch.

        Raises:
            StorageFault: A row can't be written.
        """
        if batch.objects:
            restore_objects(writer, batch.objects, {})
        if batch.alarms:
            restore_alarms(writer, batch.alarms, self._now)
        if batch.mail:
            left = restore_mail(writer, batch.mail, self._now)
            if left and not self._resume:
                raise StorageFault("messages were stored in the target meanwhile")
            self.copied -= _count(left)
        self.copied += _count(batch.mail) + EndLine(len(batch.objects), len(batch.alarms))

    def _batches(self, tenants: Iterable[str]) -> Iterator[_Batch]:
        """Batches to write. A resumed copy leaves out the rows that the target has."""
        for tenant in tenants:
            for objects in batches(iter_objects(self._old, None, tenant), _object_size):
                self._advance(len(objects))
                if self._resume:
                    stored = self._new.load([row.key for row in objects])
                    pairs = zip(objects, stored, strict=True)
                    objects = [row for row, found in pairs if found is None]
                if objects:
                    yield _Batch(objects=objects)
            for alarms in batches(iter_alarms(self._old, self._now, None, tenant), _alarm_size):
                self._advance(len(alarms))
                if self._resume:
                    keys = [row.alarm.key for row in alarms]
                    present = existing_alarms(self._new, keys, self._now)
                    alarms = [row for row in alarms if row.alarm.key not in present]
                if alarms:
                    yield _Batch(alarms=alarms)
            yield from map(_batch_of, self._mail(tenant))

    def _mail(self, tenant: str) -> Iterator[Sequence[Mailed]]:
        """Messages and once-keys. The target leaves out what it has."""
        yield from batches(iter_dead_messages(self._old, None, tenant), _mail_size)
        yield from batches(iter_messages(self._old, tenant=tenant), _mail_size)
        yield from batches(iter_once(self._old, tenant), _mail_size)

    def differences(self, tenants: Iterable[str], copy: Reader) -> Iterator[str]:
        """A message for each object or alarm that differs between the storages."""
        for tenant in tenants:
            yield from self._compare(
                iter_objects(self._old, None, tenant),
                iter_objects(copy, None, tenant),
                _compared_object,
            )
            yield from self._compare(
                iter_alarms(self._old, self._now, None, tenant),
                iter_alarms(copy, self._now, None, tenant),
                _compared_alarm,
            )
            yield from self._compare_mail(tenant, copy)

    def _compare_mail(self, tenant: str, copy: Reader) -> Iterator[str]:
        pairs: tuple[tuple[Iterator[Mailed], Iterator[Mailed]], ...] = (
            (iter_dead_messages(self._old, None, tenant), iter_dead_messages(copy, None, tenant)),
            (iter_messages(self._old, tenant=tenant), iter_messages(copy, tenant=tenant)),
            (iter_once(self._old, tenant), iter_once(copy, tenant)),
        )
        for old, new in pairs:
            for row, other in zip_longest(old, new):
                first = other if row is None else row
                if first is not None and _compared_mail(row) != _compared_mail(other):
                    yield (
                        f"{name_of(first)} differs between the storages; stop all programs "
                        "that use them, and start over"
                    )

    def _compare(
        self, old: Iterator[R], new: Iterator[R], of: Callable[[R], tuple[K, object]]
    ) -> Iterator[str]:
        # Both are sorted by name, so the first of two different names is missing in one of them.
        for row, copy in zip_longest(old, new):
            self._advance(1)
            found = [of(each) for each in (row, copy) if each is not None]
            if len(found) < 2 or found[0] != found[1]:
                key = min((key for key, _ in found), key=lambda key: (key.type_name, key.object_id))
                yield (
                    f"{key} differs between the storages; stop all programs that use them, and "
                    "start over"
                )


def _compared_object(row: ObjectRow) -> tuple[ObjectKey, object]:
    return row.key, (row.state, row.updated_at)


def _compared_alarm(row: AlarmRow) -> tuple[AlarmKey, object]:
    return row.alarm.key, (row.alarm, row.available_at)


def _compared_mail(row: Mailed | None) -> object:
    """A row without the number that its storage gave it."""
    match row:
        case StoredMessage():
            return attrs.evolve(row, key=row.key._replace(seq=0))
        case DeadMessage():
            return _compared_mail(row.message), row.died_at, row.is_overtaken
        case _:
            return row


def _batch_of(rows: Sequence[Mailed]) -> _Batch:
    batch = _Batch()
    for row in rows:
        batch.mail.add(row)
    return batch


def _count(mail: Mail) -> EndLine:
    return EndLine(0, 0, len(mail.waiting), len(mail.dead), len(mail.once))


def _mail_size(row: Mailed) -> int:
    match row:
        case StoredMessage():
            return len(row.arguments)
        case DeadMessage():
            return len(row.message.arguments)
        case OnceReply():
            return len(row.reply or b"")


def _object_size(row: ObjectRow) -> int:
    return len(row.state)


def _alarm_size(row: AlarmRow) -> int:
    return len(row.alarm.payload or b"")
