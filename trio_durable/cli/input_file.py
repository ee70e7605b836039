"""Files that commands read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


@contextmanager
def input_file(name: str) -> Iterator[BinaryIO]:
    """The file of that name; standard input, if it is ``-``.

    Raises:
        OSError: It can't be read.
    """
    if name == "-":
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file
