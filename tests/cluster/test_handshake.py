"""The handshake: only nodes of one cluster that have its secret get a link."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.streams import MemoryStream, stream_pair
from support.tasks import Calls, Outcome, calls

from trio_durable._cluster.frames import FRAME_SIZE, encode_frame
from trio_durable._cluster.handshake import (
    INFO_SIZE,
    Connection,
    Credentials,
    HandshakeFailed,
    Introduction,
    OtherCluster,
    OtherNode,
    OtherProtocol,
    WrongSecret,
    greet,
    welcome,
)

from .nodes import MAX_FRAME, SECRET, Raw, credentials, handshake, introduction

pytestmark = pytest.mark.anyio

NONCE = "00" * 32


async def both(
    group: Calls, one: Credentials, two: Credentials, node_id: str | None = "b"
) -> tuple[Outcome[Connection], Outcome[Connection], tuple[MemoryStream, MemoryStream]]:
    """The ends of a handshake on both sides."""
    streams = stream_pair()
    outcomes = (
        group.start(greet, streams[0], one, node_id),
        group.start(welcome, streams[1], two),
    )
    for outcome in outcomes:
        await outcome.wait()
    return *outcomes, streams


@asynccontextmanager
async def accepting() -> AsyncIterator[tuple[Outcome[Connection], Raw]]:
    """The accepting side of a handshake, and the other side as a test writes it."""
    mine, others = stream_pair()
    async with calls() as group:
        yield group.start(welcome, mine, credentials("b")), Raw(others)


async def test_both_sides_learn_who_the_other_is() -> None:
    streams = stream_pair()
    one = credentials("a", max_calls=3, info={"types": ["Counter"]})
    two = credentials("b", max_frame=FRAME_SIZE, info=True)
    a, b = await handshake(*streams, one, two)
    assert (a.them, b.them) == (two.me, one.me)
    assert a.protocol == b.protocol == 1
    assert (a.decoder.limit, b.decoder.limit) == (MAX_FRAME, FRAME_SIZE)


async def test_pieces_of_one_byte_do() -> None:
    streams = stream_pair()
    for stream in streams:
        stream.most = 1
    a, b = await handshake(*streams)
    assert (a.them.node_id, b.them.node_id) == ("b", "a")


async def test_what_comes_behind_the_handshake_is_for_the_link() -> None:
    async with accepting() as (accepted, raw):
        dialer = ["h", 1, 1, "shop", "a", "b", NONCE]
        await raw.send(dialer)
        acceptor = await raw.receive()
        behind = [proof("dialer", dialer, acceptor), ["w", "2.0", 5, MAX_FRAME, None], ["p"]]
        await raw.stream.send(b"".join(encode_frame([orjson.dumps(each)]) for each in behind))
        await accepted.wait()
        assert accepted.value.decoder.pop() == [["p"]]


async def test_without_the_secret_neither_side_accepts_the_other() -> None:
    async with calls() as group:
        dialed, accepted, streams = await both(
            group, credentials("a", secret=b"x" * 32), credentials("b")
        )
        for outcome in (dialed, accepted):
            with pytest.raises(WrongSecret, match="doesn't have this cluster's secret"):
                _ = outcome.value
        assert all(stream.is_closed for stream in streams)


async def test_another_cluster_is_named_before_the_secret() -> None:
    async with calls() as group:
        dialed, accepted, _ = await both(
            group, credentials("a", cluster="bank", secret=b"x" * 32), credentials("b")
        )
        assert type(dialed.error) is type(accepted.error) is OtherCluster


async def test_a_node_that_isnt_the_one_that_was_dialled_refuses() -> None:
    async with calls() as group:
        dialed, accepted, _ = await both(group, credentials("a"), credentials("c"))
        assert type(dialed.error) is type(accepted.error) is OtherNode


async def test_any_node_will_do_if_none_is_named() -> None:
    async with calls() as group:
        dialed, _, _ = await both(group, credentials("a"), credentials("c"), node_id=None)
        assert dialed.value.them.node_id == "c"


@pytest.mark.parametrize(("low", "high"), [(2, 7), (-3, 0), (5, 4)])
async def test_protocols_without_a_common_one_are_refused(low: int, high: int) -> None:
    async with accepting() as (accepted, raw):
        await raw.send(["h", low, high, "shop", "a", None, NONCE])
        assert await raw.receive() == ["no", "protocol"]
        await accepted.wait()
        assert type(accepted.error) is OtherProtocol


async def test_a_range_of_protocols_gets_the_newest_that_both_speak() -> None:
    async with accepting() as (accepted, raw):
        await raw.send(["h", 0, 9, "shop", "a", None, NONCE, "a later field"])
        assert (await raw.receive())[:2] == ["h", 1]
        accepted.cancel()


async def test_a_dialer_refuses_a_protocol_that_it_didnt_offer() -> None:
    mine, others = stream_pair()
    raw = Raw(others)
    async with calls() as group:
        dialed = group.start(greet, mine, credentials("a"), "b")
        await raw.receive()
        await raw.send(["h", 2, "shop", "b", NONCE])
        await dialed.wait()
        assert type(dialed.error) is OtherProtocol


def proof(role: str, dialer: Any, acceptor: Any, secret: bytes = SECRET) -> list[str]:
    proven = orjson.dumps(["trio_durable link", role, dialer, acceptor])
    return ["p", hmac.new(secret, proven, "sha256").hexdigest()]


async def test_the_proof_is_the_documented_one() -> None:
    async with accepting() as (accepted, raw):
        dialer = ["h", 1, 1, "shop", "a", "b", NONCE]
        await raw.send(dialer)
        acceptor = await raw.receive()
        assert await raw.receive() == proof("acceptor", dialer, acceptor)
        await raw.send(proof("dialer", dialer, acceptor))
        await raw.send(["w", "2.0", 5, MAX_FRAME, None])
        await accepted.wait()
        assert accepted.value.them == Introduction("a", "2.0", 5, MAX_FRAME)


async def test_a_recorded_handshake_is_refused() -> None:
    streams = stream_pair()
    await handshake(*streams)
    async with accepting() as (accepted, raw):
        for part in streams[0].sent:
            await raw.stream.send(part)
        await accepted.wait()
        assert type(accepted.error) is WrongSecret


async def test_a_proof_sent_back_is_refused() -> None:
    async with accepting() as (accepted, raw):
        await raw.send(["h", 1, 1, "shop", "a", "b", NONCE])
        await raw.receive()
        await raw.send(await raw.receive())
        await accepted.wait()
        assert type(accepted.error) is WrongSecret


@pytest.mark.parametrize("changed", [1, 2, 4, 5, 6])
async def test_a_proof_holds_for_its_own_hello_alone(changed: int) -> None:
    async with accepting() as (accepted, raw):
        dialer = ["h", 1, 1, "shop", "a", "b", NONCE]
        await raw.send(dialer)
        acceptor = await raw.receive()
        dialer[changed] = 0 if changed < 3 else "other"
        await raw.send(proof("dialer", dialer, acceptor))
        await accepted.wait()
        assert type(accepted.error) is WrongSecret


async def test_two_handshakes_have_different_nonces() -> None:
    hellos = set()
    for _ in range(2):
        streams = stream_pair()
        await handshake(*streams)
        hellos |= {streams[0].sent[0], streams[1].sent[0]}
    assert len(hellos) == 4


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        encode_frame([b'["h"]']),
        encode_frame([b'["h",1,1,"shop","a",null]']),
        encode_frame([b'["h",1,1,"shop","a",null,5]']),
        encode_frame([b'["h",true,1,"shop","a",null,"0"]']),
        encode_frame([b'["p","00"]']),
        encode_frame([b'["no"]']),
        encode_frame([b'["no",["x"]]']),
        encode_frame([b'["no","secret"]']),
        encode_frame([b'["c",1,null]']),
        encode_frame([b"{}"]),
        encode_frame([]),
        encode_frame([b'["h",1,1,"shop","a",null,"0"]'] * 2),
        encode_frame([b'"h"', b"1"]),
        encode_frame([b"[" * 500 + b"]" * 500]),
        (2049).to_bytes(4, "big"),
    ],
)
async def test_anything_else_ends_the_connection_with_a_named_error(noise: bytes) -> None:
    mine, others = stream_pair()
    async with calls() as group:
        accepted = group.start(welcome, mine, credentials("b"))
        await others.send(noise)
        await accepted.wait()
        assert isinstance(accepted.error, HandshakeFailed)
        assert mine.is_closed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(noise=st.binary(max_size=300), frames=st.lists(st.binary(max_size=50), max_size=3))
async def test_noise_ends_the_connection_with_a_named_error(
    noise: bytes, frames: list[bytes]
) -> None:
    for dials in (True, False):
        mine, others = stream_pair()
        async with calls() as group:
            outcome = (
                group.start(greet, mine, credentials("a"), None)
                if dials
                else group.start(welcome, mine, credentials("b"))
            )
            await others.send(b"".join(encode_frame([frame]) for frame in frames) + noise)
            await others.send_eof()
            await outcome.wait()
            assert isinstance(outcome.error, HandshakeFailed)
            assert mine.is_closed


async def test_an_unproved_peer_can_store_no_more_than_a_hello() -> None:
    mine, others = stream_pair(capacity=1 << 20)
    async with calls() as group:
        accepted = group.start(welcome, mine, credentials("b"))
        await others.send(b"\0\0\x08\0" + b" " * 500_000)
        await accepted.wait()
        assert isinstance(accepted.error, HandshakeFailed)
        left = len(others._outgoing.data)
        assert left > 500_000 - 3 * 4096


async def test_a_large_info_arrives_and_a_larger_one_is_refused_where_it_is_sent() -> None:
    streams = stream_pair(capacity=100)
    info = "x" * (INFO_SIZE - 100)
    a, b = await handshake(*streams, credentials("a", info=info), credentials("b", info=info))
    assert a.them.info == b.them.info == info
    with pytest.raises(ValueError, match="at most 65,536 bytes"):
        introduction("a", info="x" * INFO_SIZE).encoded()


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"max_calls": 0}, "max_calls must be"),
        ({"max_calls": 10**7}, "max_calls must be"),
        ({"max_frame": FRAME_SIZE - 1}, "max_frame must be"),
        ({"max_frame": 2**32}, "max_frame must be"),
    ],
)
async def test_limits_out_of_range_are_refused(limits: dict[str, int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        introduction("a", **limits)
    async with accepting() as (accepted, raw):
        dialer = ["h", 1, 1, "shop", "a", "b", NONCE]
        await raw.send(dialer)
        acceptor = await raw.receive()
        await raw.send(proof("dialer", dialer, acceptor))
        await raw.send(
            ["w", "2.0", *({"max_calls": 1, "max_frame": MAX_FRAME} | limits).values(), 0]
        )
        await accepted.wait()
        assert isinstance(accepted.error, HandshakeFailed)
        assert problem in str(accepted.error)


async def test_a_secret_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="secret"):
        credentials("a", secret=b"password")


def test_credentials_dont_show_the_secret() -> None:
    assert "sss" not in repr(credentials("a"))


@pytest.mark.parametrize("dials", [True, False])
async def test_a_cancelled_handshake_closes_the_connection(dials: bool) -> None:
    mine, _ = stream_pair()
    with anyio.move_on_after(3) as scope:
        if dials:
            await greet(mine, credentials("a"), None)
        else:
            await welcome(mine, credentials("b"))
    assert scope.cancelled_caught
    assert mine.is_closed
