"""Links over sockets of the system, plain and with TLS."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from support.tasks import calls

from trio_durable._cluster.address import TCPAddress, UnixAddress, dial, listen
from trio_durable._cluster.handshake import Connection, HandshakeFailed, greet
from trio_durable._cluster.incoming import Incoming
from trio_durable._cluster.listener import Listener
from trio_durable._cluster.peer import Peer
from trio_durable._eventloop.running import running_loop
from trio_durable._eventloop.timeouts import Deadlines

from .nodes import TTL, credentials

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(real_backend: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return real_backend


@pytest.fixture(params=["tcp", "unix", "tls"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "unix":
        return UnixAddress(str(tmp_path / "s"))
    return TCPAddress("localhost" if request.param == "tls" else "127.0.0.1", 0)


@pytest.fixture
def contexts(
    address: Any, authority: trustme.CA
) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """Of the client and of the server; nodes check each other's certificates."""
    if address != TCPAddress("localhost", 0):
        return None, None
    return context(authority, server=False), context(authority, server=True)


async def test_requests_go_both_ways(
    address: Any, contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None]
) -> None:
    def echo(request: Incoming) -> None:
        request.reply(b'"%b"' % (b"y" * len(request.message[3])))

    loop = running_loop()
    deadlines = Deadlines(loop)
    peers: list[Peer] = []
    came = anyio.Event()

    def accepted(connection: Connection) -> None:
        peers.append(Peer(loop, connection, deadlines, ttl=TTL, serve=echo))
        came.set()

    with anyio.fail_after(60):
        place = await listen(address)
        listener = Listener(
            loop, place, credentials("b"), accepted=accepted, tls=contexts[1], timeout=30
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deadlines.run)
            tasks.start_soon(listener.run)
            connection = await greet(await dial(place.address, contexts[0]), credentials("a"), "b")
            peers.append(Peer(loop, connection, deadlines, ttl=TTL, serve=echo))
            await came.wait()
            for peer in peers:
                tasks.start_soon(peer.run)
            async with calls() as group:
                outcomes = [
                    group.start(peer.request, b'"%b"' % (b"x" * size), 50)
                    for size in (0, 10, 300_000, 1000, 900_000)
                    for peer in peers
                ]
            assert sorted(len(outcome.value) for outcome in outcomes) == [
                0, 0, 10, 10, 1000, 1000, 300_000, 300_000, 900_000, 900_000
            ]  # fmt: skip
            peers[0].close("done")
            while peers[1].end is None or peers[0].end is None:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("wrong", ["no tls", "no certificate", "another authority"])
async def test_tls_refuses_strangers(wrong: str, authority: trustme.CA) -> None:
    loop = running_loop()
    connections: list[Connection] = []
    place = await listen(TCPAddress("localhost", 0))
    listener = Listener(
        loop,
        place,
        credentials("b"),
        accepted=connections.append,
        tls=context(authority, server=True),
        timeout=30,
    )
    tls: ssl.SSLContext | None = None
    if wrong == "no certificate":
        tls = ssl.create_default_context()
        authority.configure_trust(tls)
    elif wrong == "another authority":
        tls = context(trustme.CA(), server=False)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.run)
            with pytest.raises((HandshakeFailed, OSError)):
                await greet(await dial(place.address, tls), credentials("a"), "b")
            tasks.cancel_scope.cancel()
    assert not connections


def context(authority: trustme.CA, server: bool) -> ssl.SSLContext:
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    made = ssl.create_default_context(purpose)
    made.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(made)
    authority.issue_cert("localhost").configure_cert(made)
    return made
