"""A storage at work on a watched disk, and what it has promised at each moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from support.watched_disk import StorageOnDisk, WatchedDisk

from trio_durable import StorageUnavailable
from trio_durable.storage import Reader, StorageFault, Writer

from .history import Contents, Job, Work, opened

Allowed = tuple[Contents, ...]
"""A mark: what may be found from now on, whatever happens."""


@contextmanager
def watched(folder: Path) -> Iterator[WatchedDisk]:
    """A new disk, in a new folder."""
    folder.mkdir()
    disk = WatchedDisk(folder)
    try:
        yield disk
    finally:
        disk.unregister()


def work_on(
    disk: WatchedDisk, storage: StorageOnDisk, work: Work, *, steps: int, times: int = 3
) -> None:
    """Let the storage work, and be closed and opened again on the way.

    Only what the disk does wrong may fail, and then as a whole.
    """
    disk.mark((work.contents(),))
    failed: list[Job] = []
    """What failed since something succeeded. It is not there, but when the file is opened anew one
    of these may be: if all of it had got into the log, and nothing came to be written over it."""
    for _ in range(times):
        with opened_at_last(disk, storage) as (writer, reader):
            work.reopen()
            found = read_at_last(disk, reader)
            if found != work.contents():
                work.done(next(job for job in failed if work.after(job) == found))
                work.reopen()
            failed = []
            for _ in range(steps):
                if not one_job(disk, work, writer, reader, failed):
                    break  # what it may have claimed nobody knows; to open gives it back


def one_job(
    disk: WatchedDisk, work: Work, writer: Writer, reader: Reader, failed: list[Job]
) -> bool:
    """Do one thing; False if nobody can tell whether it was done."""
    job = work.draw()
    before, after = work.contents(), work.after(job)
    disk.mark((before, after, *map(work.after, failed)))
    faults = disk.failed
    try:
        outcome = job.do(writer)
        writer.maintain()  # as a runtime does
    except StorageFault:
        assert disk.failed > faults, "it failed, and the disk did not"
        failed.append(job)
        if job.kind == "claim":
            return False
        assert work.unclaimed(read_at_last(disk, reader)) == before
        return True
    if after != before:
        failed.clear()
    assert outcome == work.done(job)
    disk.mark((after, *map(work.after, failed)))
    return True


def read_at_last(disk: WatchedDisk, reader: Reader) -> Contents:
    """What there is to see, once reading succeeds."""
    while True:
        failed = disk.failed
        try:
            return Contents.read(reader)
        except StorageFault:
            assert disk.failed > failed, "it failed, and the disk did not"


@contextmanager
def opened_at_last(disk: WatchedDisk, storage: StorageOnDisk) -> Iterator[tuple[Writer, Reader]]:
    """Both sides of a storage, once it can be opened."""
    while True:
        failed = disk.failed
        opening = opened(storage)
        try:
            sides = opening.__enter__()
        except StorageUnavailable:
            assert disk.failed > failed, "it can't be opened, and the disk is well"
            continue
        try:
            yield sides
        finally:
            opening.__exit__(None, None, None)
        return


def integrity(path: Path) -> list[str]:
    """What SQLite finds wrong with a file."""
    with closing(sqlite3.connect(path)) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    return [] if found == ["ok"] else found
