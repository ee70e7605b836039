"""Sides of a storage that outlives its processes, with faults between a process and each side."""

from __future__ import annotations

from trio_durable.testing._intercepted import InterceptedReader, InterceptedWriter


class MountedWriter(InterceptedWriter):
    """A process's own face of a writer that other processes use as well."""

    def close(self) -> None:
        pass  # the others go on


class MountedReader(InterceptedReader):
    """A process's own face of a reader that other processes use as well."""

    def close(self) -> None:
        pass
