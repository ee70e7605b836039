"""A disk that loses power: what of the writes to it may be there afterwards.

Prior art: ALICE (Pillai et al., OSDI 2014) and CrashMonkey (Mohan et al., OSDI 2018), which record
what a program asks of its file system and derive from that in which states a crash may leave the
disk. A recording is made once; then every moment of it can be the one of the power cut, any number
of times.

The trade-off: it is harsher than the usual file systems, which order more than they promise.

- A write goes to a volatile cache. Until the file is synced, each sector of it is on the disk or
  not, by itself: sectors arrive in any order, and a write may be torn between them. A sector that
  was written several times may be in any of these versions. What is in a sector besides the bytes
  that a write changes stays (SQLite calls that powersafe overwrite and relies on it).
- The size of a file is as uncertain as its content. What it has grown by unwritten is zeroes.
- Making and removing a file changes the folder. That is durable when the folder is synced, and not
  with a sync of the file.
- After a sync that failed, what it was about is adrift: the kernel has dropped it, and no later
  sync brings it to the disk, though that one reports success (known as fsyncgate). Only writing the
  same bytes anew does.
"""

from __future__ import annotations

import random
from typing import Literal

import attrs

SECTOR = 512

Loss = Literal["all", "none", "some", "one", "all but one"]
"""What the power cut takes of that which isn't synced."""
LOSSES: tuple[Loss, ...] = ("all", "none", "some", "one", "all but one")


@attrs.frozen
class Created:
    """A file was made. Each has a number of its own, for a name may be used again."""

    file: int
    name: str


@attrs.frozen
class Removed:
    name: str
    folder_synced: bool


@attrs.frozen
class Written:
    file: int
    offset: int
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen
class Resized:
    file: int
    size: int


@attrs.frozen
class Synced:
    file: int
    folder_synced: bool
    """Whether it made durable which files there are, too."""


@attrs.frozen
class SyncFailed:
    file: int


@attrs.frozen
class Mark:
    """What somebody outside knew at this moment, such as an acknowledgement."""

    value: object


Event = Created | Removed | Written | Resized | Synced | SyncFailed | Mark


@attrs.define
class _Change:
    """A write that isn't durable, or a change of size if ``data`` is None."""

    start: int
    data: bytes | None
    adrift: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.data or b"")

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.start :]
            content.extend(bytes(self.start - len(content)))
        else:
            content.extend(bytes(max(0, self.start - len(content))))
            content[self.start : self.end] = self.data

    def without(self, other: _Change) -> list[_Change]:
        """What ``other``, which came later, leaves of it."""
        if self.data is None or other.data is None:
            return [self]
        before, after = other.start - self.start, other.end - self.start
        parts = [(self.start, self.data[: max(0, before)])]
        if before < len(self.data) and after < len(self.data):
            parts.append((self.start + max(0, after), self.data[max(0, after) :]))
        if after <= 0:
            return [self]
        return [_Change(start, data, self.adrift) for start, data in parts if data]


class _File:
    def __init__(self) -> None:
        self.durable = bytearray()
        self.pending: list[_Change] = []

    def sync(self) -> None:
        adrift: list[_Change] = []
        for change in self.pending:
            if change.adrift and change.data is not None:
                adrift.append(change)
            else:
                change.apply(self.durable)
                adrift = [part for each in adrift for part in each.without(change)]
        self.pending = adrift

    def fail_to_sync(self) -> None:
        for change in self.pending:
            change.adrift = True

    def survivor(self, rng: random.Random, loss: Loss) -> bytes:
        """What may be on the disk after a power cut now."""
        content = bytearray(self.durable)
        sizes = [len(content)]
        pieces: dict[int, list[_Change]] = {}
        for change in self.pending:
            if change.data is None:
                sizes.append(change.start)
                # What it cuts off and is written again was zeroes in between.
                for sector in range(-(-change.start // SECTOR), -(-max(sizes) // SECTOR)):
                    zeroes = _Change(sector * SECTOR, bytes(SECTOR), change.adrift)
                    pieces.setdefault(sector, []).append(zeroes)
                continue
            sizes.append(max(sizes[-1], change.end))
            start = change.start
            while start < change.end:
                sector = start // SECTOR
                end = min(change.end, (sector + 1) * SECTOR)
                part = change.data[start - change.start : end - change.start]
                pieces.setdefault(sector, []).append(_Change(start, part, change.adrift))
                start = end
        chosen = rng.choice(list(pieces)) if pieces else None
        for sector, versions in pieces.items():
            keep = _how_many(rng, loss, sector == chosen, len(versions))
            for number, change in enumerate(versions):
                if number < keep or (change.adrift and loss != "all" and rng.random() < 0.5):
                    change.apply(content)
        size = sizes[_how_many(rng, loss, False, len(sizes) - 1)]
        _Change(size, None).apply(content)
        return bytes(content)


def _how_many(rng: random.Random, loss: Loss, is_chosen: bool, number: int) -> int:
    """How many of the versions of a thing have reached the disk, the first ones."""
    match loss:
        case "all":
            return 0
        case "none":
            return number
        case "some":
            return rng.randint(0, number)
        case "one":
            return rng.randint(0, max(0, number - 1)) if is_chosen else number
        case "all but one":
            return rng.randint(min(1, number), number) if is_chosen else 0


class Platter:
    """What is on a disk, and what is on its way there."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._names: dict[str, list[int | None]] = {}
        """What each name meant, from what is durable to what is the case."""

    def take(self, event: Event) -> None:
        """Note what happened next."""
        match event:
            case Created(file, name):
                self._files[file] = _File()
                self._names.setdefault(name, [None]).append(file)
            case Removed(name, folder_synced):
                self._names.setdefault(name, [None]).append(None)
                if folder_synced:
                    self._sync_folder()
            case Written(file, offset, data):
                self._files[file].pending.append(_Change(offset, data))
            case Resized(file, size):
                self._files[file].pending.append(_Change(size, None))
            case Synced(file, folder_synced):
                self._files[file].sync()
                if folder_synced:
                    self._sync_folder()
            case SyncFailed(file):
                self._files[file].fail_to_sync()
            case Mark():
                pass

    def _sync_folder(self) -> None:
        for name, meanings in self._names.items():
            self._names[name] = meanings[-1:]

    def survivors(self, rng: random.Random, loss: Loss) -> dict[str, bytes]:
        """The files that may be there after a power cut now, and what is in them."""
        found = {}
        for name, meanings in self._names.items():
            file = meanings[_how_many(rng, loss, False, len(meanings) - 1)]
            if file is not None:
                found[name] = self._files[file].survivor(rng, loss)
        return found
