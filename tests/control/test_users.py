"""Other users at the socket of a runtime."""

from __future__ import annotations

import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from trio_durable._cluster import address

from .test_control import alone

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system has no SO_PEERCRED"),
]

OTHER_USER = 65534


@pytest.fixture
def anyio_backend(real_backend: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return real_backend


CONNECT = f"""
import os, socket
os.seteuid({OTHER_USER})
with socket.socket(socket.AF_UNIX) as connected:
    try:
        connected.connect("app.db-socket")
    except PermissionError:
        print("refused by the mode")
    else:
        print(connected.recv(1))
"""


async def connect_as_other_user(folder: Path) -> str:
    ran = await anyio.run_process([sys.executable, "-c", CONNECT], cwd=folder)
    return ran.stdout.decode().strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused_by_the_mode_and_by_the_runtime(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.chmod(tmp_path, 0o755)  # noqa: S103  # so that the mode of the socket alone decides
    async with alone(tmp_path / "app.db"):
        assert await connect_as_other_user(tmp_path) == "refused by the mode"
        os.chmod(tmp_path / "app.db-socket", 0o666)  # noqa: S103  # as it must not be
        assert await connect_as_other_user(tmp_path) == "b''"
    assert f"the other side runs as user {OTHER_USER}, and this process as user 0" in caplog.text


class OtherSide:
    """A stream whose other side runs as a user."""

    family = socket.AF_UNIX

    def __init__(self, user: int) -> None:
        self._user = user

    def extra(self, attribute: object, default: object = None) -> object:
        return self if attribute is SocketAttribute.raw_socket else default

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.pack("iII", 1, self._user, 1)


@pytest.mark.parametrize(
    ("me", "user", "dials", "accepts"),
    [
        (1000, 1000, True, True),
        (1000, 0, True, True),
        (1000, 1001, False, False),
        (0, 1000, True, False),
        (0, 0, True, True),
    ],
)
async def test_the_users_who_may_connect(
    me: int, user: int, dials: bool, accepts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: me)
    stream = cast("SocketStream", OtherSide(user))
    for has_dialled, may in ((True, dials), (False, accepts)):
        if may:
            address.check_user(stream, has_dialled=has_dialled)
        else:
            with pytest.raises(PermissionError, match=f"runs as user {user}"):
                address.check_user(stream, has_dialled=has_dialled)


async def test_a_dialled_socket_of_another_user_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(stream: SocketStream, *, has_dialled: bool) -> None:
        assert has_dialled
        raise PermissionError("another user")

    monkeypatch.setattr(address, "check_user", refuse)
    listening = await address.listen(address.unix_address(tmp_path / "socket"))
    try:
        with pytest.raises(PermissionError, match="another user"):
            await address.dial(listening.address)
    finally:
        await listening.close()
