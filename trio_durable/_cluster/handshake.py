"""Handshake of a link: mutual proof of the cluster's secret.

    dialer    → hello: protocols it speaks, cluster, node, the node it wants, nonce
    acceptor  → hello: the protocol chosen, cluster, node, nonce · proof
    dialer    → proof · welcome: release, limits, info
    acceptor  → welcome

A proof is the HMAC-SHA256, by the secret, of the role of the side that proves and of both hellos.
So it holds for these two nonces, nodes, roles and protocols alone: a recorded proof can't be used
again, one of the other side can't be sent back, and no third party can lower the protocol. It
doesn't bind the connection: a third party that passes bytes on can change them afterwards, unless
TLS prevents that.

Before its proof a peer can make this node buffer one frame of `_HELLO_LIMIT` bytes, no more.
"""

from __future__ import annotations

import hmac
import secrets
from contextlib import suppress
from typing import Any, ClassVar, NoReturn

import anyio
import attrs
import orjson
from anyio.abc import ByteStream

from .._text import short_repr
from .frames import BRACKETS, FrameDecoder, Message, ProtocolError, check_limits, encode_frame

PROTOCOLS = (1, 1)
"""The oldest and the newest protocol that this release speaks."""

INFO_SIZE = 64 * 1024
"""Bytes of the welcome, at most, which ``info`` is most of."""

_HELLO_LIMIT = 2048
_WELCOME_LIMIT = INFO_SIZE + BRACKETS
_NONCE_SIZE = 32
_RECEIVE_SIZE = 4096


class HandshakeFailed(Exception):
    """Base of the errors of a handshake. The connection was closed."""

    code: ClassVar[str] = ""
    """Sent to the other side, so that its error says the same."""
    problem = "the other side ended it"

    def __str__(self) -> str:
        return f"the handshake failed: {self.args[0] if self.args else self.problem}"


class WrongSecret(HandshakeFailed):
    """The two sides don't have the same secret, or a third party stands between them."""

    code = "secret"
    problem = "the other side doesn't have this cluster's secret"


class OtherProtocol(HandshakeFailed):
    """The two sides have no version of the protocol in common."""

    code = "protocol"
    problem = (
        f"the other side speaks none of the protocols {PROTOCOLS[0]} to {PROTOCOLS[1]}; "
        "its release of trio_durable is too old or too new"
    )


class OtherCluster(HandshakeFailed):
    """The other side is a node of another cluster."""

    code = "cluster"
    problem = "the other side is a node of another cluster"


class OtherNode(HandshakeFailed):
    """Another node than the one that was dialled has this address now."""

    code = "node"
    problem = "another node than the one that was dialled has this address"


_REFUSALS = {each.code: each for each in (WrongSecret, OtherProtocol, OtherCluster, OtherNode)}


@attrs.frozen
class Introduction:
    """The name and the limits of a node, for its peer.

    Raises:
        ValueError: A limit is out of its range, or ``info`` is too large.
    """

    node_id: str
    release: str
    max_calls: int
    """Requests that it accepts on this link before the first of them is answered."""
    max_frame: int
    """Bytes of the body of a frame that it accepts: `FRAME_SIZE` or more."""
    info: Any = None
    """A JSON value for the layer above."""

    def __attrs_post_init__(self) -> None:
        check_limits(self.max_calls, self.max_frame)

    def encoded(self) -> bytes:
        """The welcome with it.

        Raises:
            ValueError: ``info`` is too large.
        """
        message = orjson.dumps(["w", self.release, self.max_calls, self.max_frame, self.info])
        if len(message) > INFO_SIZE:
            raise ValueError(f"the info of a node must be at most {INFO_SIZE:,} bytes of JSON")
        return message


@attrs.frozen
class Credentials:
    """The name, secret and introduction with which this node takes part in handshakes."""

    cluster: str
    """Names the cluster: nodes of different clusters that have one address by mistake get
    `OtherCluster`, not `WrongSecret`."""
    secret: bytes = attrs.field(repr=False, validator=attrs.validators.min_len(16))
    me: Introduction


@attrs.frozen
class Connection:
    """A connection after its handshake."""

    stream: ByteStream
    decoder: FrameDecoder
    """It may hold bytes that arrived after the handshake."""
    protocol: int
    me: Introduction
    them: Introduction


async def greet(stream: ByteStream, credentials: Credentials, node_id: str | None) -> Connection:
    """The handshake of the side that has dialled.

    The caller bounds its time. Unless it succeeds, the stream is closed.

    Args:
        stream: The connection.
        credentials: This node's.
        node_id: The node that was dialled; None if any node of the cluster will do.

    Raises:
        HandshakeFailed: Or a subclass, which says why.
    """
    return await _guarded(_Handshake(stream, credentials), node_id, dials=True)


async def welcome(stream: ByteStream, credentials: Credentials) -> Connection:
    """The handshake of the side that has accepted. See `greet`."""
    return await _guarded(_Handshake(stream, credentials), None, dials=False)


async def _guarded(handshake: _Handshake, node_id: str | None, dials: bool) -> Connection:
    stream = handshake.stream
    try:
        try:
            return await (handshake.dial(node_id) if dials else handshake.accept())
        except HandshakeFailed as failure:
            if failure.code and failure.__cause__ is None:  # else the other side has said it
                with suppress(anyio.BrokenResourceError, OSError):
                    await handshake.send([b'["no","%b"]' % failure.code.encode()])
            raise
        except ProtocolError as error:
            raise HandshakeFailed(str(error)) from error
    except (anyio.EndOfStream, anyio.BrokenResourceError, OSError) as error:
        await anyio.aclose_forcefully(stream)
        raise HandshakeFailed("the connection was lost") from error
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


class _Refusal(Exception):
    """The cause of an error that the other side has sent."""


class _Handshake:
    def __init__(self, stream: ByteStream, credentials: Credentials) -> None:
        self.stream = stream
        self._decoder = FrameDecoder(_HELLO_LIMIT)
        self._credentials = credentials
        self._inbox: list[Message] = []

    async def dial(self, node_id: str | None) -> Connection:
        """The dialer's part."""
        credentials = self._credentials
        mine: Message = [
            "h", *PROTOCOLS, credentials.cluster, credentials.me.node_id, node_id, _nonce()
        ]  # fmt: skip
        await self.send([orjson.dumps(mine)])
        theirs = await self._expect("h", int, str, str, str)
        _, protocol, cluster, name, _, *_ = theirs
        if not PROTOCOLS[0] <= protocol <= PROTOCOLS[1]:
            raise OtherProtocol
        self._check_cluster(cluster)
        if node_id is not None and name != node_id:
            raise OtherNode
        await self._verify("acceptor", mine, theirs)
        await self.send([self._proof("dialer", mine, theirs), credentials.me.encoded()])
        return await self._established(protocol, name)

    async def accept(self) -> Connection:
        """The acceptor's part."""
        credentials = self._credentials
        theirs = await self._expect("h", int, int, str, str, (str, type(None)), str)
        _, low, high, cluster, name, wanted, _, *_ = theirs
        protocol = min(high, PROTOCOLS[1])
        if protocol < max(low, PROTOCOLS[0]):
            raise OtherProtocol
        self._check_cluster(cluster)
        if wanted is not None and wanted != credentials.me.node_id:
            raise OtherNode
        mine: Message = ["h", protocol, credentials.cluster, credentials.me.node_id, _nonce()]
        await self.send([orjson.dumps(mine), self._proof("acceptor", theirs, mine)])
        await self._verify("dialer", theirs, mine)
        connection = await self._established(protocol, name)
        await self.send([credentials.me.encoded()])
        return connection

    async def send(self, messages: list[bytes]) -> None:
        """Send each message in a frame of its own."""
        await self.stream.send(b"".join(encode_frame([message]) for message in messages))

    def _check_cluster(self, cluster: str) -> None:
        if cluster != self._credentials.cluster:
            raise OtherCluster

    def _proof(self, role: str, dialer: Message, acceptor: Message) -> bytes:
        proven = orjson.dumps(["trio_durable link", role, dialer, acceptor])
        digest = hmac.digest(self._credentials.secret, proven, "sha256")
        return orjson.dumps(["p", digest.hex()])

    async def _verify(self, role: str, dialer: Message, acceptor: Message) -> None:
        """Read the proof of the other side, and allow it larger frames from then on."""
        _, proof, *_ = await self._expect("p", str)
        expected = orjson.loads(self._proof(role, dialer, acceptor))[1]
        if not hmac.compare_digest(proof.encode(), expected.encode()):
            raise WrongSecret
        self._decoder.limit = _WELCOME_LIMIT

    async def _established(self, protocol: int, name: str) -> Connection:
        me = self._credentials.me
        _, release, max_calls, max_frame, info, *_ = await self._expect("w", str, int, int, object)
        try:
            them = Introduction(name, release, max_calls, max_frame, info)
        except ValueError as error:
            raise ProtocolError(str(error)) from error
        self._decoder.limit = me.max_frame
        return Connection(self.stream, self._decoder, protocol, me, them)

    async def _expect(self, kind: str, *types: type | tuple[type, ...]) -> Message:
        """The next message, which must be of this kind and have values of these types.

        Raises:
            HandshakeFailed: It is a refusal.
            ProtocolError: It is another.
        """
        while (messages := self._decoder.pop()) is None:
            self._decoder.push(await self.stream.receive(_RECEIVE_SIZE))
        if len(messages) == 1 and type(message := messages[0]) is list:
            values = message[1 : 1 + len(types)]
            if (
                message[:1] == [kind]
                and len(values) == len(types)
                and all(map(_fits, values, types))
            ):
                return message
            if message[:1] == ["no"]:
                _raise_refusal(message[1:])
        raise ProtocolError(f"an unexpected message came: {short_repr(messages)}")


def _fits(value: object, types: type | tuple[type, ...]) -> bool:
    return isinstance(value, types) and not (types is int and isinstance(value, bool))


def _nonce() -> str:
    return secrets.token_hex(_NONCE_SIZE)


def _raise_refusal(reasons: Message) -> NoReturn:
    """Raise the error that the other side has named."""
    code = reasons[0] if reasons else None
    kind = _REFUSALS.get(code, HandshakeFailed) if isinstance(code, str) else HandshakeFailed
    raise kind from _Refusal
