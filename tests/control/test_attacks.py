"""Attacks on the socket of a runtime: none of them ends it, or keeps others from being served."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from anyio.abc import SocketStream

from trio_durable import DurableRuntime, StorageUnavailable
from trio_durable._api.commands import CALL, EDIT, WATCH
from trio_durable._cluster import file_cluster
from trio_durable._cluster.address import UnixAddress, parse_address
from trio_durable._cluster.file_endpoint import FileNode
from trio_durable._cluster.frames import FRAME_SIZE, FrameDecoder, encode_frame
from trio_durable._cluster.handshake import (
    Connection,
    HandshakeFailed,
    OtherNode,
    WrongSecret,
    greet,
)
from trio_durable._cluster.listener import MAX_UNPROVED, Listener
from trio_durable._cluster.node_note import NodeNote, note_beside, read_note
from trio_durable._cluster.nodes import this_node
from trio_durable._runtime.control import MAX_COMMANDS

from .test_control import Point, Walk, alone, command

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no such sockets"),
]

TYPE = "control.Walk"


@pytest.fixture
def anyio_backend(real_backend: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return real_backend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def noted(path: Path) -> NodeNote:
    note = read_note(note_beside(path))
    assert note is not None
    return note


async def dialled(path: Path) -> SocketStream:
    """A connection that hasn't said anything."""
    address = parse_address(noted(path).address)
    assert isinstance(address, UnixAddress)
    stream = await anyio.connect_unix(address.path)
    assert isinstance(stream, SocketStream)
    return stream


@asynccontextmanager
async def greeted(
    path: Path,
    *,
    serves: bool = False,
    secret: str | None = None,
    node_id: str | None = None,
) -> AsyncIterator[Connection]:
    """A connection after its handshake."""
    me = FileNode(this_node("attacker", serves=serves, shards=0), 64, FRAME_SIZE)
    credentials = me.credentials(bytes.fromhex(secret or noted(path).secret))
    connection = await greet(await dialled(path), credentials, node_id)
    try:
        yield connection
    finally:
        await anyio.aclose_forcefully(connection.stream)


class Raw:
    """A connection after its handshake, whose messages are written by the test."""

    def __init__(self, connection: Connection) -> None:
        self._stream = connection.stream
        self._decoder = connection.decoder
        self._asked = 0

    async def send(self, data: bytes) -> None:
        await self._stream.send(data)

    async def ask(self, *message: object) -> tuple[str, Any]:
        """The kind and the value of the answer to a request."""
        self._asked += 1
        await self.send(encode_frame([orjson.dumps(["c", self._asked, 20, *message])]))
        while True:
            while (messages := self._decoder.pop()) is not None:
                for kind, *found in messages:
                    if kind in ("r", "e"):
                        assert found[0] == self._asked
                        return kind, found[1]
            self._decoder.push(await self._stream.receive())


@asynccontextmanager
async def attacked(path: Path) -> AsyncIterator[DurableRuntime]:
    """An app that serves commands before and after the attack."""
    async with alone(path) as runtime:
        await assert_serves(path)
        yield runtime
        await assert_serves(path)


async def assert_serves(path: Path) -> None:
    with anyio.fail_after(60):
        async with command(path) as far:
            walked = await far.get(Walk, "served").go(Point(1, 2))
            assert walked[-1] == Point(1, 2)


async def assert_ends(stream: SocketStream) -> bytes:
    """The bytes that come before the other side closes the connection."""
    received = b""
    with anyio.fail_after(20):
        try:
            while True:
                received += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return received
        finally:
            await anyio.aclose_forcefully(stream)


async def assert_refuses(raw: Raw) -> None:
    """The other side closes the connection in place of an answer."""
    with anyio.fail_after(60), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await raw.ask("n", "turns", [])


# --- before the proof ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\xff\xff\xff\xff" + b"x" * 100,
        b"\x00\x00\x00\x05[1,2",
        encode_frame([b"1"]),
        encode_frame([b'["c",1,5,"n","turns",[]]']),
        encode_frame([b'["h",1,1,"file","attacker",null,17]']),
        encode_frame([b"[" * 900 + b"]" * 900]),
    ],
)
async def test_garbage_ends_its_connection_alone(path: Path, noise: bytes) -> None:
    async with attacked(path):
        stream = await dialled(path)
        await stream.send(noise)
        if noise == b"\x00\x00\x00\x05[1,2":
            await stream.send_eof()
        assert await assert_ends(stream) == b""


async def test_the_secret_is_proved_by_both_sides(path: Path) -> None:
    async with attacked(path):
        with pytest.raises(WrongSecret):
            await greeted(path, secret="00" * 32).__aenter__()
        with pytest.raises(OtherNode):
            await greeted(path, node_id="another").__aenter__()


async def test_protocols_that_the_app_does_not_speak_are_refused(path: Path) -> None:
    async with attacked(path):
        for low, high in ((0, 0), (2, 9), (9, 2)):
            stream = await dialled(path)
            hello = ["h", low, high, "file", "attacker", None, "nonce"]
            await stream.send(encode_frame([orjson.dumps(hello)]))
            decoder = FrameDecoder(100)
            decoder.push(await assert_ends(stream))
            assert decoder.pop() == [["no", "protocol"]]


async def test_connections_that_say_nothing_are_bounded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow client has sent half of its hello. The newest connections are served."""
    assert Listener.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Listener.__init__.__kwdefaults__, "timeout", 3600.0)
    slow = 3 * MAX_UNPROVED
    async with attacked(path), AsyncExitStack() as stack:
        streams = []
        for _ in range(slow):
            streams.append(await dialled(path))
            stack.push_async_callback(anyio.aclose_forcefully, streams[-1])
            await streams[-1].send(encode_frame([b'["h",1,1,"file"]'])[:9])
        for stream in streams[: slow - MAX_UNPROVED]:
            assert await assert_ends(stream) == b""
        await assert_serves(path)


async def test_two_thousand_connections_are_served_or_closed(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (-1, resource.RLIM_INFINITY) and hard < 5000:
        pytest.skip("the system allows too few files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5000), hard))
    try:
        async with attacked(path):
            for _ in range(20):
                streams = [await dialled(path) for _ in range(100)]
                await assert_serves(path)
                for stream in streams:
                    await anyio.aclose_forcefully(stream)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- after the proof -----------------------------------------------------------------------------


async def test_commands_that_stay_are_bounded(path: Path) -> None:
    async with alone(path), AsyncExitStack() as stack:
        for _ in range(MAX_COMMANDS):
            connection = await stack.enter_async_context(greeted(path))
            assert await Raw(connection).ask("n", "turns", []) == ("r", [])
        async with greeted(path) as one_more:
            await assert_refuses(Raw(one_more))
        await stack.aclose()
        with anyio.fail_after(20):
            while True:
                try:
                    await assert_serves(path)
                    break
                except StorageUnavailable:
                    await anyio.sleep(0.001)


async def test_a_runtime_that_would_serve_is_refused(path: Path) -> None:
    async with attacked(path), greeted(path, serves=True) as connection:
        await assert_refuses(Raw(connection))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        encode_frame([b"17"]),
        encode_frame([b'"c"']),
        encode_frame([b'["?"]']),
        encode_frame([b'["c"]']),
        encode_frame([b'["c","1",5,"n","turns",[]]']),
        encode_frame([b'["c",1,"5","n","turns",[]]']),
        encode_frame([b'["c",1,-5,"n","turns",[]]']),
        encode_frame([b'["c",0,5,"n","turns",[]]']),
        encode_frame([b'["r",1,null]']),
        encode_frame([b'["x",7]']),
        encode_frame([b'["b",null,"x"]']),
    ],
)
async def test_a_message_that_is_not_allowed_ends_its_connection_alone(
    path: Path, data: bytes
) -> None:
    async with attacked(path), greeted(path) as connection:
        await connection.stream.send(data)
        assert isinstance(connection.stream, SocketStream)
        await assert_ends(connection.stream)


async def test_half_a_request_keeps_no_other_from_being_served(path: Path) -> None:
    async with attacked(path), greeted(path) as connection:
        await connection.stream.send(encode_frame([b'["c",1,5,"n","turns",[]]'])[:-3])
        await assert_serves(path)


@pytest.mark.parametrize(
    "request_",
    [
        ["n", "nonsense", []],
        ["n", "", []],
        ["n", None, []],
        ["n", ["turns"], []],
        ["n", {"turns": 1}, []],
        ["n", "turns"],
        ["n"],
        [],
        ["z", "turns", []],
        [17, "turns", []],
        [["n"], "turns", []],
        ["a", "nonsense", [TYPE, "a", ""]],
        ["a", CALL, []],
        ["a", CALL, None],
        ["a", CALL, 17],
        ["a", CALL, "abc"],
        ["a", CALL, {"1": 2}],
        ["a", CALL, [TYPE, "a", ""]],
        ["a", CALL, [17, "a", "", "go", {}, None, None]],
        ["a", CALL, [TYPE, 17, "", "go", {}, None, None]],
        ["a", CALL, [TYPE, None, "", "go", {}, None, None]],
        ["a", CALL, [TYPE, "", "", "go", {}, None, None]],
        ["a", CALL, [TYPE, "a\0b", "", "go", {}, None, None]],
        ["a", CALL, [TYPE, "x" * 600, "", "go", {}, None, None]],
        ["a", CALL, [TYPE, "a", 17, "go", {}, None, None]],
        ["a", CALL, [TYPE, "a", None, "go", {}, None, None]],
        ["a", CALL, [TYPE, "a", "../etc", "go", {}, None, None]],
        ["a", CALL, [TYPE, "a", "", 17, {}, None, None]],
        ["a", CALL, [TYPE, "a", "", "nonsense", {}, None, None]],
        ["a", CALL, [TYPE, "a", "", "__init__", {}, None, None]],
        ["a", CALL, [TYPE, "a", "", "go", [], None, None]],
        ["a", CALL, [TYPE, "a", "", "go", None, None, None]],
        ["a", CALL, [TYPE, "a", "", "go", {"point": [1, 2]}, None, None]],
        ["a", CALL, [TYPE, "a", "", "go", {"point": {"x": "1", "y": 2}}, None, None]],
        ["a", CALL, [TYPE, "a", "", "go", {"point": {"x": 1, "y": 2}}, None, "5"]],
        ["a", CALL, [TYPE, "a", "", "go", {"point": {"x": 1, "y": 2}}, None, -5]],
        ["a", CALL, [TYPE, "a", "", "go", {"point": {"x": 1, "y": 2}}, 17, None]],
        ["a", CALL, [TYPE, "a", "", "go", {"point": {"x": 1, "y": 2}}, [], 5]],
        ["a", EDIT, [TYPE, "a", "", {}, "1", None]],
        ["a", EDIT, [TYPE, "a", "", "not JSON", 0, None]],
        ["a", WATCH, [TYPE, "a", "", 17, "5"]],
        ["a", WATCH, [TYPE, "a", "", None, None]],
        ["a", "rewrite", [TYPE, "a", "", "1", None, None]],
        ["a", "schedule_alarm", [TYPE, "a", "", "nonsense", "soon", None]],
        ["a", "schedule_alarm", [TYPE, "a", "", 17, 17, None]],
        ["a", "schedule_alarm", [TYPE, "a", "", "ring", 2**63, None]],
        ["a", "schedule_alarm", [TYPE, "a", "", "ring", True, None]],
        ["a", "schedule_alarm", [TYPE, "", "", "ring", 17, None]],
        ["a", "schedule_alarm", [TYPE, "a", "", "", 17, None]],
        ["a", "schedule_alarm", [TYPE, "a", "../etc", "ring", 17, None]],
        ["a", "schedule_alarm", [TYPE, "a", "", "ring", 17, None, None, "nonsense"]],
        ["a", "restore_alarm", [TYPE, "a", "", "ring", 1, None, "soon", 0, None, None]],
        ["a", "send_message", [TYPE, "a", "", "1", "go", "[]", 0, None, None]],
        ["a", "send_message", [TYPE, "a", "", 1, "go", "[]", 0, None, ["k", 1, "s", 2]]],
        ["a", "retry_message", [TYPE, "a", "", "1"]],
        ["a", "put_state", [TYPE, "a", "", 17]],
        ["h", TYPE, "a", "go"],
        ["h", TYPE, 17, "go", [[], {}]],
        ["h", TYPE, "a", 17, [[], {}]],
        ["h", TYPE, "a", "go", 17],
        ["h", TYPE, "a", "go", [[], {}], 17, 17],
        ["h", 17, "a", "go", [[], {}]],
        ["h", [], "a", "go", [[], {}]],
        ["o", TYPE, "a", "go", [[{"x": 1, "y": 2}], {}], 17],
        ["o", TYPE, "a", "go", [[{"x": 1, "y": 2}], {}], ["k"]],
        ["o", TYPE, "a", "go", [[{"x": 1, "y": 2}], {}], ["k", 1, None]],
    ],
    ids=lambda value: orjson.dumps(value).decode()[:60],
)
async def test_a_request_of_other_types_is_answered_by_an_error(
    path: Path, request_: Sequence[object], caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked(path) as runtime:
        async with greeted(path) as connection:
            raw = Raw(connection)
            with anyio.fail_after(20):
                kind, value = await raw.ask(*request_)
                assert kind == "e", value
                assert await raw.ask("n", "types", []) == ("r", [TYPE])  # the connection lives on
        assert not await runtime.exists(Walk, "a")
        assert not await runtime.list_alarms(Walk, "a")
    assert not [each for each in caplog.records if each.levelname == "ERROR"], caplog.text


# --- the files -----------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    place = tmp_path / "elsewhere"
    place.write_text("mine")
    return place


def assert_untouched(elsewhere: Path) -> None:
    assert elsewhere.read_text() == "mine"
    assert not elsewhere.with_name("nowhere").exists()


def _a_file(place: Path, elsewhere: Path) -> None:
    place.write_text("a file")


def _a_link(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere)


def _a_dangling_link(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere.with_name("nowhere"))


def _a_folder(place: Path, elsewhere: Path) -> None:
    place.mkdir()


@pytest.mark.parametrize("make", [_a_file, _a_link, _a_dangling_link, _a_folder])
async def test_the_place_of_the_socket_is_taken(
    path: Path, elsewhere: Path, make: Callable[[Path, Path], None]
) -> None:
    """The app opens without the socket, and says why. The file stays."""
    place = path.with_name("app.db-socket")
    make(place, elsewhere)
    before = os.lstat(place)
    async with DurableRuntime(path, objects=[Walk]) as runtime:
        with anyio.fail_after(20):
            while "just been opened" in (problem := runtime.statistics().control_problem or ""):
                await anyio.sleep(0.001)
        assert "the path names a file that isn't a socket" in problem
        assert str(place) in problem
        assert await runtime.get(Walk, "a").go(Point(1, 2)) == [Point(1, 2)]
    assert os.lstat(place).st_ino == before.st_ino
    assert_untouched(elsewhere)


@pytest.mark.parametrize("name", ["app.db-node", "app.db-node-new"])
async def test_a_link_in_the_place_of_the_note_is_replaced_and_not_followed(
    path: Path, elsewhere: Path, name: str
) -> None:
    path.with_name(name).symlink_to(elsewhere)
    async with attacked(path):
        note = path.with_name("app.db-node")
        assert not note.is_symlink()
        assert note.stat().st_mode & 0o777 == 0o600
    assert_untouched(elsewhere)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "x" * 100_000, "[" * 50_000, '{"node": 1}', "\0\xff"]
)
async def test_a_note_that_is_garbage_is_named(
    path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_cluster, "ENTER_SECONDS", 0.0)
    path.with_name("app.db-node").write_text(text)
    with pytest.raises(StorageUnavailable, match="isn't the note of a runtime"):
        async with command(path):
            pass


_SERVE = """
import sys, anyio
from trio_durable import DurableRuntime

async def main():
    async with DurableRuntime("app.db", objects=[]) as runtime:
        while runtime.statistics().control_problem is not None:
            await anyio.sleep(0.001)
        print("open", flush=True)
        await anyio.sleep_forever()

anyio.run(main, backend="trio")
"""


def killed_while_open(path: Path) -> NodeNote:
    """Kill a process that has a file open; return the note that it leaves."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE], cwd=path.parent, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        process.kill()
    return noted(path)


async def test_a_killed_process_leaves_a_socket_that_the_next_one_replaces(path: Path) -> None:
    left = await anyio.to_thread.run_sync(killed_while_open, path)
    assert path.with_name("app.db-socket").is_socket()
    assert noted(path) == left
    async with attacked(path) as runtime:
        assert noted(path).node == runtime.node_id
        with pytest.raises(HandshakeFailed):
            await greeted(path, secret=left.secret).__aenter__()
    assert not path.with_name("app.db-socket").exists()
