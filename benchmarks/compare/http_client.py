"""An HTTP client with next to nothing in it, so that it is the server that is measured.

Connections are kept open, one for each caller, and each has one request under way. It knows no more
of HTTP than what the contenders answer: a status and a body of ``Content-Length`` bytes.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class UnexpectedAnswer(Exception):
    """A server answered something else than 200 and a number."""


class Client:
    """Asks one server for numbers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for _, writer in self._idle:
            writer.close()

    async def number(self, method: str, path: str) -> int:
        """What the server says to that.

        Raises:
            UnexpectedAnswer: Not a number.
        """
        reader, writer = await self._connection()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, _, rest = head.partition(b"\r\ncontent-length:")
        if not rest or not head.startswith(b"http/1.1 200 "):
            writer.close()
            raise UnexpectedAnswer(f"{method} {path}: {head.decode()}")
        body = await reader.readexactly(int(rest[: rest.index(b"\r")]))
        self._idle.append((reader, writer))
        return int(body)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()  # the server has closed it: it was idle for too long
        return await asyncio.open_connection("127.0.0.1", self._port)
