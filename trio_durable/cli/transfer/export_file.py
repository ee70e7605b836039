"""Reading of exports: a file is checked as a whole first, and can then be read repeatedly.

A checked file has only lines that can be stored exactly, in the order of an export, and none is
missing. Because of the order, duplicates are found in constant memory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import attrs
import orjson

from ..._json import exact
from ..._keys import ObjectKey
from ..._messages.message import message_id
from ...storage import AlarmRow, DeadMessage, ObjectRow, OnceReply, StoredMessage
from ..errors import CommandError
from ..output import quantity
from ..storage.batches import batches
from .format import EndLine, Row, decode_line, is_header


@contextmanager
def ensure_seekable(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """``file`` itself if it is seekable, or a temporary copy of it."""
    if file.seekable():
        yield file
        return
    with tempfile.TemporaryFile(prefix="trio_durable-import-") as copy:
        shutil.copyfileobj(file, copy)
        yield copy


def check_export(
    file: IO[bytes], name: str, tenant: str | None, advance: Callable[[int], None]
) -> bool:
    """Check a whole export. Returns whether it has messages or once-keys.

    Args:
        file: The export.
        name: The name of the file, for messages.
        tenant: A tenant that must have rows in it; None if there is no such condition.
        advance: Called with the number of bytes of each line.

    Raises:
        CommandError: A line is invalid, or the tenant has no rows.
    """
    checker = _ExportChecker(tenant)
    file.seek(0)
    number = 0
    for number, line in enumerate(file, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise CommandError(
                f"{name}, line {number}: not UTF-8 text; name a file that `trio-durable export` "
                "wrote"
            ) from None
        try:
            checker.take(exact.parse(text))
        except ValueError as error:
            raise CommandError(
                f"{name}, line {number}: {error}; fix the file, or export again"
            ) from None
        advance(len(line))
    if not checker.has_ended:
        raise CommandError(
            f"{name}, line {number + 1}: the end is missing; the file is truncated, or not "
            "an export: export again"
        )
    if not (tenant is None or checker.has_wanted):
        raise CommandError(
            f"{name} has no rows of tenant {tenant}; check the name, or leave out -t"
        )
    return checker.has_mail


class _ExportChecker:
    """Checks the lines of an export, one by one."""

    def __init__(self, wanted: str | None) -> None:
        self.has_ended = False
        self.has_mail = False
        self.has_wanted = False
        self._wanted = wanted
        self._has_begun = False
        self._counts: Counter[type[Row]] = Counter()
        self._last: tuple[bytes, ...] = ()

    def take(self, data: object) -> None:
        """Check the next line.

        Raises:
            ValueError: It is invalid in itself, or in this place.
        """
        if not self._has_begun:
            if not is_header(data):
                raise ValueError("not the first line of an export; the header is missing")
            self._has_begun = True
            return
        line = decode_line(data)
        if self.has_ended:
            raise ValueError("the line is after the end")
        if isinstance(line, EndLine):
            counts = self._counts
            found = EndLine(
                *(counts[ObjectRow], counts[AlarmRow], counts[StoredMessage], counts[DeadMessage]),
                counts[OnceReply],
            )
            if line != found:
                mail = ""
                if line.mail or found.mail:
                    mail = f", and {line.mail:,} rows of messages, not {found.mail:,}"
                raise ValueError(
                    f"it says {quantity(line.objects, 'object')} and "
                    f"{quantity(line.alarms, 'alarm')}, but the file has {found.objects:,} and "
                    f"{found.alarms:,}{mail}; lines are missing or were added"
                )
            self.has_ended = True
            self.has_mail = found.mail > 0
            return
        self._check_order(line)
        self._counts[type(line)] += 1

    def _check_order(self, line: Row) -> None:
        name, tenant = name_of(line), tenant_of(line)
        self.has_wanted |= tenant == self._wanted
        place = (tenant.encode(), *_place(line))
        if place == self._last:
            raise ValueError(f"{name} is there twice")
        if place < self._last:
            raise ValueError(
                f"{name} is not in order; lines are sorted by tenant, objects before alarms, "
                "these before dead messages, messages and once-keys, then by type, id and name"
            )
        self._last = place


def tenant_of(row: Row) -> str:
    """The tenant of a row."""
    match row:
        case ObjectRow() | StoredMessage() | OnceReply():
            key = row.key
            return key.tenant if isinstance(key, ObjectKey) else key.to.tenant
        case AlarmRow():
            return row.alarm.key.tenant
        case DeadMessage():
            return row.message.key.to.tenant


def name_of(row: Row) -> str:
    """A row, for messages of errors."""
    match row:
        case ObjectRow():
            return str(row.key)
        case AlarmRow():
            return str(row.alarm.key)
        case StoredMessage():
            return f"message {message_id(row.key.token)}"
        case DeadMessage():
            return f"dead message {message_id(row.message.key.token)}"
        case OnceReply():
            return f"once-key {row.key.key!r} of {row.key.to}"


def _place(row: Row) -> tuple[bytes, ...]:
    """The place of a row among those of its tenant."""
    match row:
        case ObjectRow():
            key = row.key
            return b"0", key.type_name.encode(), key.object_id.encode()
        case AlarmRow():
            alarm = row.alarm.key
            return (
                *(b"1", alarm.type_name.encode(), alarm.object_id.encode()),
                alarm.name.encode(),
            )
        case DeadMessage():
            return b"2", row.message.key.seq.to_bytes(8, "big")
        case StoredMessage():
            to, lane, number, _ = row.key
            return (
                *(b"3", to.type_name.encode(), to.object_id.encode(), lane.encode()),
                number.to_bytes(8, "big"),
            )
        case OnceReply():
            to, name = row.key
            return b"4", to.type_name.encode(), to.object_id.encode(), name.encode()


@attrs.frozen
class Chunk:
    """Some rows of an export, each with the number of its line."""

    objects: list[tuple[int, ObjectRow]]
    alarms: list[tuple[int, AlarmRow]]
    mail: list[tuple[int, StoredMessage | DeadMessage | OnceReply]]


def read_chunks(
    file: IO[bytes], tenant: str | None, advance: Callable[[int], None]
) -> Iterator[Chunk]:
    """Read the rows of a checked export, in chunks that fit into memory.

    Args:
        file: The export.
        tenant: The tenant whose rows are read; None for all rows.
        advance: Called with the number of bytes of each line.
    """
    for batch in batches(_rows(file, tenant, advance), lambda row: row[2]):
        yield Chunk(
            [(number, line) for number, line, _ in batch if isinstance(line, ObjectRow)],
            [(number, line) for number, line, _ in batch if isinstance(line, AlarmRow)],
            [
                (number, line)
                for number, line, _ in batch
                if isinstance(line, (StoredMessage, DeadMessage, OnceReply))
            ],
        )


def _rows(
    file: IO[bytes], tenant: str | None, advance: Callable[[int], None]
) -> Iterator[tuple[int, Row, int]]:
    """Rows with the number and the length of their lines."""
    file.seek(0)
    for number, text in enumerate(file, 1):
        advance(len(text))
        # orjson is fast and lenient; the line was checked by the strict parser before.
        line = None if number == 1 else decode_line(orjson.loads(text))
        if line is None or isinstance(line, EndLine):
            continue
        if tenant in (None, tenant_of(line)):
            yield number, line, len(text)
