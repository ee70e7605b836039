"""Requirements of the scheduler on a process: its Python, its event loop, its packages."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from ..._errors import StorageUnavailable, WrongEventLoop
from ..._eventloop.loop import Loop

PYTHON = (3, 12)
_RELEASE = (0, 7)


def require_oban(loop: Loop, location: str, python: tuple[int, ...] = sys.version_info[:2]) -> None:
    """Check that Oban can run here.

    Args:
        loop: The event loop.
        location: The storage, for errors.
        python: The version of Python.

    Raises:
        WrongEventLoop: The event loop isn't asyncio's.
        StorageUnavailable: Python is too old, or the package is missing or of another release.
    """
    if not loop.is_asyncio:
        raise WrongEventLoop(
            "ObanScheduler was used on Trio; Oban runs on asyncio, so start the program with "
            "asyncio.run() or anyio.run(main, backend='asyncio'), or leave the scheduler out"
        )
    if python < PYTHON:
        raise StorageUnavailable(
            location,
            f"ObanScheduler needs Python 3.12 or newer, and this is {python[0]}.{python[1]}; "
            "upgrade it, or leave the scheduler out",
        )
    try:
        found = version("oban")
    except PackageNotFoundError:
        raise StorageUnavailable(
            location, "ObanScheduler needs Oban: pip install 'trio-durable[oban]'"
        ) from None
    if tuple(map(int, found.split(".")[:2])) != _RELEASE:
        raise StorageUnavailable(
            location,
            f"ObanScheduler needs oban >= 0.7, < 0.8, and {found} is installed; "
            "pip install 'trio-durable[oban]'",
        )
