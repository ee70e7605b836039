"""Addresses, and the sockets at them. These tests use real sockets."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_durable._cluster import address as address_module
from trio_durable._cluster.address import (
    MAX_SOCKET_PATH,
    AddressInUse,
    SocketPathTooLong,
    TCPAddress,
    UnixAddress,
    dial,
    listen,
    local_address,
    parse_address,
    unix_address,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix sockets")


@pytest.fixture
def anyio_backend(real_backend: tuple[str, dict[str, object]]) -> tuple[str, dict[str, object]]:
    return real_backend


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://10.0.0.5:7400", TCPAddress("10.0.0.5", 7400)),
        ("tcp://0.0.0.0:0", TCPAddress("0.0.0.0", 0)),  # noqa: S104
        ("tcp://node-1.example:65535", TCPAddress("node-1.example", 65535)),
        ("tcp://[::1]:7400", TCPAddress("::1", 7400)),
        ("unix:///run/app.db-socket", UnixAddress("/run/app.db-socket")),
        ("unix:///a b/ü", UnixAddress("/a b/ü")),
    ],
)
def test_addresses_are_read_and_written(text: str, address: TCPAddress | UnixAddress) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "localhost:7400", "http://a:1", "tcp://", "tcp://a", "tcp://:7400", "tcp://a:", "tcp://a:x",
        "tcp://a:65536", "tcp://a:-1", "tcp://a:1/", "tcp://a:1/path", "tcp://a:1?x", "tcp://u@a:1",
        "tcp://::1:7400", "tcp://a:1 ", "tcp://a:+1", "tcp://a:01", "unix://", "unix://relative", "unix:///",
        "unix:///dir/", "unix:///a\0b", "unix:/a",
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="isn't an address"):
        parse_address(text)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for each in (text, f"tcp://{text}", f"unix:///{text}"):
        try:
            address = parse_address(each)
        except ValueError:
            continue
        assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("tcp://127.0.0.1:1", True),
        ("tcp://127.9.9.9:1", True),
        ("tcp://[::1]:1", True),
        ("tcp://localhost:1", True),
        ("unix:///a", True),
        ("tcp://0.0.0.0:1", False),
        ("tcp://[::]:1", False),
        ("tcp://10.0.0.5:1", False),
        ("tcp://localhost.example:1", False),
    ],
)
def test_loopback_is_known(text: str, is_loopback: bool) -> None:
    assert parse_address(text).is_loopback is is_loopback


def test_a_path_that_is_too_long_is_a_named_error() -> None:
    longest = "/" + "x" * (MAX_SOCKET_PATH - 1)
    assert unix_address(longest) == UnixAddress(longest)
    for path in (longest + "x", "/" + "ü" * (MAX_SOCKET_PATH // 2 + 1)):
        with pytest.raises(SocketPathTooLong, match=rf"allows {MAX_SOCKET_PATH}; .*listen="):
            parse_address(f"unix://{path}")


def test_the_limit_of_a_path_is_the_systems(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        longest = str(tmp_path) + "/" + "x" * (MAX_SOCKET_PATH - len(str(tmp_path)) - 1)
        one.bind(longest)
        with pytest.raises(OSError, match="too long"):
            two.bind(longest + "x")


def test_without_unix_sockets_the_local_address_is_on_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert local_address("/run/app") == UnixAddress("/run/app")
    monkeypatch.setattr(address_module, "HAS_UNIX_SOCKETS", False)
    assert local_address("/run/app") == TCPAddress("127.0.0.1", 0)


# --- sockets -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_free_port_is_found_and_told() -> None:
    listening = await listen(TCPAddress("127.0.0.1", 0))
    assert isinstance(listening.address, TCPAddress)
    assert listening.address.port > 0
    stream = await dial(listening.address)
    await stream.aclose()
    await listening.close()
    with pytest.raises(OSError, match=r".*"):
        await dial(listening.address)


@pytest.mark.anyio
async def test_a_port_that_is_taken_is_a_named_error() -> None:
    listening = await listen(TCPAddress("127.0.0.1", 0))
    with pytest.raises(AddressInUse, match=rf"can't listen at {listening.address}"):
        await listen(listening.address)
    await listening.close()


@pytest.mark.anyio
async def test_a_unix_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    old = os.umask(0)
    try:
        listening = await listen(unix_address(path))
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    stream = await dial(listening.address)
    await stream.aclose()
    await listening.close()
    assert not path.exists()


@pytest.mark.anyio
async def test_a_unix_socket_has_its_mode_before_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    original = socket.socket.listen

    def record(self: socket.socket, *args: int) -> None:
        modes.append(stat.S_IMODE(os.stat(self.getsockname()).st_mode))
        original(self, *args)

    monkeypatch.setattr(socket.socket, "listen", record)
    listening = await listen(unix_address(tmp_path / "s"))
    await listening.close()
    assert modes == [0o600]


@pytest.mark.anyio
async def test_a_socket_that_is_served_isnt_replaced(tmp_path: Path) -> None:
    listening = await listen(unix_address(tmp_path / "s"))
    for _ in range(300):  # more than its queue holds
        with pytest.raises(AddressInUse):
            await listen(listening.address)
    await listening.close()


@pytest.mark.anyio
async def test_a_socket_that_nobody_serves_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    assert path.is_socket()
    listening = await listen(unix_address(path))
    stream = await dial(listening.address)
    await stream.aclose()
    await listening.close()


@pytest.mark.anyio
async def test_another_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("data")
    with pytest.raises(AddressInUse, match="isn't a socket"):
        await listen(unix_address(path))
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(AddressInUse, match="isn't a socket"):
        await listen(unix_address(link))
    assert path.read_text() == "data"
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as unserved:
        unserved.bind(str(left))
    link.unlink()
    link.symlink_to(left)
    with pytest.raises(AddressInUse, match="isn't a socket"):
        await listen(unix_address(link))
    assert link.is_symlink()


@pytest.mark.anyio
async def test_a_socket_of_another_process_isnt_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listening = await listen(unix_address(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        await listening.close()
        assert path.is_socket()


@pytest.mark.anyio
async def test_dialling_nobody_is_an_os_error(tmp_path: Path) -> None:
    with anyio.fail_after(10), pytest.raises(OSError, match=r".*"):
        await dial(unix_address(tmp_path / "none"))


FORK = """
import os, socket, sys
import anyio
from trio_durable._cluster.address import close_copy

async def main():
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[2])
    server.listen()
    stream = await anyio.connect_unix(sys.argv[2])
    accepted, _ = server.accept()
    accepted.settimeout(20)
    done, closed = os.pipe()
    end, alive = os.pipe()
    if os.fork() == 0:
        os.close(alive)
        close_copy(stream)
        os.write(closed, b"x")
        os.read(end, 1)  # the child lives as long as its parent
        os._exit(0)
    os.read(done, 1)
    await stream.send(b"from the parent")  # its connection is open
    assert accepted.recv(100) == b"from the parent"
    await stream.aclose()
    assert accepted.recv(1) == b"", "the other side noticed nothing"
    print("ended")

options = {"use_uvloop": True} if sys.argv[1] == "uvloop" else {}
anyio.run(main, backend=sys.argv[1].replace("uvloop", "asyncio"), backend_options=options)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("loop", ["trio", "asyncio", "uvloop"])
def test_a_forked_process_doesnt_keep_a_connection_open(loop: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK, loop, str(tmp_path / "s")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout == "ended\n", run.stderr
