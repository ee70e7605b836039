"""Addresses of nodes, and how to listen at one and to dial one.

``tcp://host:port`` and ``unix:///path``. An IPv6 host is in brackets, as in URLs.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import stat
import struct
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TypeAlias, cast
from urllib.parse import urlsplit

import anyio
import attrs
from anyio import TypedAttributeProvider
from anyio.abc import ByteStream, SocketAttribute, SocketListener, SocketStream
from anyio.streams.tls import TLSStream

HAS_UNIX_SOCKETS = hasattr(socket, "AF_UNIX")

MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103
"""Bytes of the path of a Unix socket: the size of ``sun_path``, less the byte that ends it."""

_BACKLOG = 128
_CREDENTIALS = struct.Struct("iII")
"""The ``struct ucred`` of Linux: process, user and group."""


class SocketPathTooLong(ValueError):
    """The path can't name a Unix socket, because the operating system limits its length."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"the path of the socket {self.path} has {len(os.fsencode(self.path))} bytes, and this "
            f"system allows {MAX_SOCKET_PATH}; choose another address with "
            "listen='unix:///a/shorter/path' or listen='tcp://127.0.0.1:0'"
        )


class AddressInUse(OSError):
    """Another process listens at the address, or the path names a file that isn't a socket."""

    def __init__(self, address: Address, problem: str) -> None:
        super().__init__(errno.EADDRINUSE, problem)
        self.address = address
        self.problem = problem

    def __str__(self) -> str:
        return f"can't listen at {self.address}: {self.problem}"


@attrs.frozen
class TCPAddress:
    """A host and a port. Port 0 is a free one, to listen at."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True if only processes of this machine can connect to it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@attrs.frozen
class UnixAddress:
    """The path of a Unix socket, absolute."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"

    @property
    def is_loopback(self) -> bool:
        """True: only processes of this machine can connect to it."""
        return True


Address: TypeAlias = TCPAddress | UnixAddress


def parse_address(text: str) -> Address:
    """The address that ``text`` names.

    Raises:
        ValueError: It names none. The message says what is allowed.
        SocketPathTooLong: Its path is too long for a Unix socket.
    """
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise ValueError(
                f"{text!r} isn't an address: unix:// needs the absolute path of a file"
            )
        return unix_address(path)
    if text.startswith("tcp://"):
        with suppress(ValueError):
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
            if host and port is not None:
                address = TCPAddress(host, port)
                if str(address) == text.lower():  # a URL may have more, such as a path
                    return address
    raise ValueError(f"{text!r} isn't an address: give tcp://HOST:PORT or unix:///PATH")


def unix_address(path: str | os.PathLike[str]) -> UnixAddress:
    """The address of the Unix socket at ``path``.

    Raises:
        SocketPathTooLong: The path is too long for one.
    """
    text = os.fspath(path)
    if len(os.fsencode(text)) > MAX_SOCKET_PATH:
        raise SocketPathTooLong(text)
    return UnixAddress(text)


def local_address(path: str | os.PathLike[str]) -> Address:
    """An address that only this machine can reach: the socket ``path``, or a port of loopback
    where there are no Unix sockets.

    Raises:
        SocketPathTooLong: See `unix_address`.
    """
    return unix_address(path) if HAS_UNIX_SOCKETS else TCPAddress("127.0.0.1", 0)


async def dial(address: Address, tls: ssl.SSLContext | None = None) -> ByteStream:
    """Connect to ``address``.

    The caller bounds the time. With ``tls`` the connection is encrypted, and the certificate of the
    other side is checked as the context says, its host name against the address.

    Raises:
        OSError: The connection failed, or the TLS handshake (`ssl.SSLError`).
    """
    stream: SocketStream
    if isinstance(address, UnixAddress):
        stream = await anyio.connect_unix(address.path)
        try:
            check_user(stream, has_dialled=True)
        except OSError:
            await anyio.aclose_forcefully(stream)
            raise
    else:
        stream = await anyio.connect_tcp(address.host, address.port)
    host = address.host if isinstance(address, TCPAddress) else "localhost"
    return stream if tls is None else await start_tls(stream, tls, hostname=host)


def check_user(stream: SocketStream, *, has_dialled: bool) -> None:
    """Check that the other side of a Unix socket runs as this user, or as root.

    The mode of the socket says the same, but a folder's owner or an administrator can change it.
    Root may dial the sockets of all users. Other sockets pass, and so do all on systems without
    ``SO_PEERCRED``.

    Raises:
        PermissionError: It runs as another user.
    """
    raw = stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610  # not Django's
    if raw is None or not hasattr(socket, "SO_PEERCRED") or raw.family != socket.AF_UNIX:
        return
    credentials = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    me = os.geteuid()
    if user not in (0, me) and not (has_dialled and me == 0):
        raise PermissionError(f"the other side runs as user {user}, and this process as user {me}")


async def start_tls(
    stream: SocketStream, tls: ssl.SSLContext, hostname: str | None = None
) -> ByteStream:
    """Encrypt a connection; as the client of ``hostname``, or as the server without one.

    The stream is closed if that fails.

    Raises:
        OSError: The other side refused, or isn't trusted; `ssl.SSLError` is one.
    """
    try:
        return await TLSStream.wrap(
            stream,
            server_side=hostname is None,
            hostname=hostname,
            ssl_context=tls,
            # The end of a link has a message of its own.
            standard_compatible=False,
        )
    except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
        await anyio.aclose_forcefully(stream)
        raise ConnectionError("the other side ended the TLS handshake") from error
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


class Listening:
    """A socket that listens. `close` also removes the path of a Unix socket.

    Args:
        address: Where it listens, with the port that was chosen.
        socket_: The listening socket.
    """

    def __init__(self, address: Address, socket_: SocketListener) -> None:
        self.address = address
        self.socket = socket_
        self._inode = _inode(address.path) if isinstance(address, UnixAddress) else None

    @property
    def is_at_path(self) -> bool:
        """False if the path of a Unix socket doesn't lead to it any more."""
        if not isinstance(self.address, UnixAddress):
            return True
        try:
            return _inode(self.address.path) == self._inode
        except FileNotFoundError:
            return False
        except OSError:
            return True  # the folder can't be read, so there is nothing to restore

    async def close(self) -> None:
        """Stop listening. If another process has put its own socket at the path, that stays."""
        if isinstance(self.address, UnixAddress) and self.is_at_path:
            _unlink(self.address.path)
        await anyio.aclose_forcefully(self.socket)


def _inode(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


async def listen(address: Address, *, replace: bool = False) -> Listening:
    """Listen at ``address``.

    A Unix socket has the mode 0600 before it accepts connections. A stale socket at its path, one
    without a listener, is replaced. Two processes must not do that at the same time; the caller's
    lock prevents it.

    Args:
        address: The address.
        replace: Replace a socket that something listens at, too: the caller knows that it is no
            owner's, such as a copy in a forked process.

    Raises:
        AddressInUse: Another process listens there, or the path names another file.
        OSError: The system refused.
    """
    if isinstance(address, UnixAddress):
        _check_free(address, may_be_served=replace)
        return Listening(address, await _unix_listener(address))
    try:
        multi = await anyio.create_tcp_listener(
            local_host=address.host, local_port=address.port, backlog=_BACKLOG
        )
    except OSError as error:
        raise _explained(error, address) from error
    # A name may have several addresses; one socket is one address that others can dial.
    listener, *others = cast("Sequence[SocketListener]", multi.listeners)
    for other in others:
        await anyio.aclose_forcefully(other)
    port: int = listener.extra(SocketAttribute.local_port)  # noqa: S610  # not Django's
    return Listening(TCPAddress(address.host, port), listener)


async def _unix_listener(address: UnixAddress) -> SocketListener:
    # Not AnyIO's function, which binds the socket in a thread: AnyIO's threads on asyncio keep a
    # process from ending whose event loop was left by SystemExit.
    with ExitStack() as undo:
        bound = undo.enter_context(socket.socket(socket.AF_UNIX))
        try:
            with suppress(FileNotFoundError):
                os.unlink(address.path)
            bound.bind(address.path)
            undo.callback(_unlink, address.path)
            os.chmod(address.path, 0o600)
            bound.setblocking(False)
            bound.listen(_BACKLOG)
        except OSError as error:
            raise _explained(error, address) from error
        listener = await SocketListener.from_socket(bound)
        undo.pop_all()
    return listener


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _explained(error: OSError, address: Address) -> OSError:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(address, "another process listens there")
    return error


def _check_free(address: UnixAddress, *, may_be_served: bool) -> None:
    """Check that the path of ``address`` is free, or has a stale socket. It never waits.

    Raises:
        AddressInUse: The path names another file, or a socket that has a listener. One whose queue
            of connections is full has one, too.
    """
    try:
        mode = os.lstat(address.path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressInUse(address, "the path names a file that isn't a socket")
    if may_be_served:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise AddressInUse(
                address, f"a socket is there that may be in use ({error.strerror})"
            ) from error
    raise AddressInUse(address, "another process listens there")


def close_copy(resource: TypedAttributeProvider) -> None:
    """Close the copy of a socket in a forked process.

    While the copy is open, the other side doesn't notice the end of the parent. The number of the
    descriptor stays in use, by the null device: the event loop's objects still close it later, when
    another file could have it.
    """
    raw = resource.extra(SocketAttribute.raw_socket, None)  # noqa: S610  # not Django's
    if raw is not None and (descriptor := raw.fileno()) >= 0:
        null = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(null, descriptor, inheritable=False)
        finally:
            os.close(null)
