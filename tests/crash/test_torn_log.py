"""The log is cut off or corrupt: what is before that place is there, and nothing of what is behind.

The write-ahead log of a process that died is shortened to every length, as a power cut may leave it
where syncs lie, and bits in it are flipped. What the storage then finds is what was there after one
of the commits: the later, the longer the log.
"""

from __future__ import annotations

import random
from pathlib import Path

import attrs
import pytest

from trio_durable import SQLiteStorage

from .history import Contents, Work, opened
from .workload import integrity

STEP = 1021
"""Bytes from one length to the next: a prime, so as to meet frames in every place."""
_HEADER = 32


@attrs.frozen
class Dead:
    """The files of a process that died, and what was there after each piece of its work."""

    database: bytes
    log: bytes
    contents: list[Contents]
    ends: list[int]
    """The length of the log after each."""

    def whole_before(self, length: int) -> int:
        """Which piece of work is the last that is wholly in the first so many bytes of the log."""
        return max((n for n, end in enumerate(self.ends) if end <= length), default=0)

    def found(self, folder: Path, log: bytes) -> int:
        """After which piece of work the storage finds itself with this log instead."""
        for old in folder.iterdir():
            old.unlink()
        path = folder / "objects.db"
        path.write_bytes(self.database)
        (folder / "objects.db-wal").write_bytes(log)
        with opened(SQLiteStorage(path)) as (_, reader):
            contents = Contents.read(reader)
        assert integrity(path) == []
        # The last of several pieces of work that changed nothing.
        return max(at for at, there in enumerate(self.contents) if there == contents)


@pytest.fixture
def dead(folder: Path, unstamped: None) -> Dead:
    """Some work in a file that had been there before, and then a sudden end."""
    path = folder / "alive" / "objects.db"
    path.parent.mkdir()
    storage, work = SQLiteStorage(path), Work("torn")
    with opened(storage) as (writer, _):
        for _ in range(5):
            job = work.draw()
            assert job.do(writer) == work.done(job)
    work.reopen()
    with opened(storage) as (writer, reader):
        log = path.with_name("objects.db-wal")
        contents, ends = [work.contents()], [log.stat().st_size]
        for _ in range(14):
            job = work.draw()
            assert job.do(writer) == work.done(job)
            contents.append(work.contents())
            ends.append(log.stat().st_size)
        assert Contents.read(reader).objects == work.contents().objects
        return Dead(path.read_bytes(), log.read_bytes(), contents, ends)


def test_a_log_of_any_length(dead: Dead, folder: Path) -> None:
    again = folder / "again"
    again.mkdir()
    found = [dead.found(again, dead.log[:length]) for length in range(0, len(dead.log), STEP)]
    for length, at in zip(range(0, len(dead.log), STEP), found, strict=True):
        assert dead.contents[at] == dead.contents[dead.whole_before(length)]
    assert len(set(found)) > 5


@pytest.mark.parametrize("seed", range(3))
def test_a_corrupt_log(dead: Dead, folder: Path, seed: int) -> None:
    """Behind a flipped bit nothing counts, and before it all does."""
    again = folder / "again"
    again.mkdir()
    rng = random.Random(seed)
    # Mostly in the latest frames, as where a crash came upon a disk at work.
    places = [rng.randrange(len(dead.log)) for _ in range(10)]
    places += [rng.randrange(dead.ends[-3], len(dead.log)) for _ in range(20)]
    for place in places:
        log = bytearray(dead.log)
        log[place] ^= 1 << rng.randrange(8)
        at = dead.found(again, bytes(log))
        # Without its header, there is no log.
        whole = 0 if place < _HEADER else dead.whole_before(place)
        assert dead.contents[at] == dead.contents[whole]
