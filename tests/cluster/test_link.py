"""A link: silence, slow readers, and whatever a peer may send. It ends at worst, and once."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.clock import block, settle
from support.streams import stream_pair
from support.tasks import calls

from trio_durable._cluster.frames import FRAME_SIZE, FrameDecoder, Message, encode_frame
from trio_durable._cluster.incoming import Incoming
from trio_durable._cluster.link import EndKind, Link, LinkClosed, LinkEnd, MessageTooLarge
from trio_durable._cluster.outcomes import ErrorReply, RequestFailed
from trio_durable._eventloop.running import running_loop

from .nodes import MAX_FRAME, TTL, Raw, linked, raw_link

pytestmark = pytest.mark.anyio


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines that an operator reads."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "trio_durable.cluster" and record.levelno >= logging.INFO
    ]


# --- sending -------------------------------------------------------------------------------------


class Alone:
    """A link without a peer above it."""

    def __init__(self, capacity: int = 1 << 16, max_frame: int = MAX_FRAME) -> None:
        mine, others = stream_pair(capacity)
        self.raw = Raw(others)
        self.messages: list[Message] = []
        self.ends: list[LinkEnd] = []
        self.wrote = 0
        self.link = Link(
            running_loop(),
            mine,
            FrameDecoder(MAX_FRAME),
            name="raw",
            max_frame=max_frame,
            ttl=TTL,
            kinds={"m": self.messages.append},
            wrote=self._count,
            ended=self.ends.append,
        )

    def _count(self) -> None:
        self.wrote += 1


async def test_messages_of_one_tick_share_frames_in_order() -> None:
    alone = Alone()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alone.link.run)
        await settle()
        for n in range(100):
            assert alone.link.send(b"[%d]" % n) == n + 1
        assert await alone.raw.frame() == [[n] for n in range(8)]  # sooner
        assert await alone.raw.frame() == [[n] for n in range(8, 100)]
        await settle()
        assert alone.wrote == 2
        assert alone.link.unsent == 0
        tasks.cancel_scope.cancel()


async def test_more_than_a_frame_becomes_several() -> None:
    alone = Alone()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alone.link.run)
        sizes = [FRAME_SIZE // 3] * 7 + [10] * 5 + [FRAME_SIZE * 2] + [10] * 3
        for size in sizes:
            alone.link.send(b'["%b"]' % (b"x" * size))
        arrived: list[int] = []
        while len(arrived) < len(sizes):
            frame = await alone.raw.frame()
            arrived += [len(message[0]) for message in frame]
            assert len(frame) == 1 or sum(len(message[0]) for message in frame) <= FRAME_SIZE
        assert arrived == sizes
        await settle()
        assert alone.link.unsent == 0
        tasks.cancel_scope.cancel()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(st.integers(0, FRAME_SIZE), st.booleans()), min_size=1, max_size=12))
async def test_messages_that_are_withdrawn_arent_sent_and_all_others_are(
    plan: list[tuple[int, bool]],
) -> None:
    alone = Alone()
    numbers = [alone.link.send(b'[%d,"%b"]' % (n, b"x" * size)) for n, (size, _) in enumerate(plan)]
    for number, (_, withdrawn) in zip(numbers, plan, strict=True):
        if withdrawn:
            assert alone.link.withdraw(number)
            assert not alone.link.was_taken(number)
    expected = [n for n, (_, withdrawn) in enumerate(plan) if not withdrawn]
    arrived: list[int] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alone.link.run)
        while len(arrived) < len(expected):
            arrived += [message[0] for message in await alone.raw.frame()]
        await settle()
        assert alone.link.unsent == 0
        alone.link.send(b'["last"]')
        assert await alone.raw.frame() == [["last"]]
        tasks.cancel_scope.cancel()
    assert arrived == expected
    assert not any(alone.link.withdraw(number) for number in numbers)
    assert all(alone.link.was_taken(number) for number in numbers)


async def test_messages_are_withdrawn_from_each_of_several_frames() -> None:
    alone = Alone()
    large = b'"%b"' % (b"x" * (FRAME_SIZE - 1000))
    numbers = [alone.link.send(b"[%b]" % body) for body in (large, b"1", large, b"2", b"3")]
    for number in (numbers[1], numbers[3]):
        assert alone.link.withdraw(number)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alone.link.run)
        assert [len(frame) for frame in (await alone.raw.frame(), await alone.raw.frame())] == [
            1,
            2,
        ]
        await settle()
        assert alone.link.unsent == 0
        tasks.cancel_scope.cancel()


async def test_withdrawn_messages_dont_make_later_frames_too_large() -> None:
    alone = Alone()
    alone.link.send(b'["%b"]' % (b"x" * (FRAME_SIZE - 1000)))
    for _ in range(100):
        assert alone.link.withdraw(alone.link.send(b"[1]"))
    for _ in range(2):
        alone.link.send(b'["%b"]' % (b"x" * (FRAME_SIZE // 2 + 20)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alone.link.run)
        assert [len(await alone.raw.frame()) for _ in range(3)] == [1, 1, 1]
        tasks.cancel_scope.cancel()


async def test_the_largest_message_is_the_peers_limit() -> None:
    alone = Alone(max_frame=FRAME_SIZE)
    with pytest.raises(MessageTooLarge) as caught:
        alone.link.send(b"x" * (FRAME_SIZE - 1))
    assert (caught.value.size, caught.value.limit) == (FRAME_SIZE - 1, FRAME_SIZE - 2)
    alone.link.send(b'"%b"' % (b"x" * (FRAME_SIZE - 4)))
    assert alone.link.unsent == FRAME_SIZE - 1


async def test_nothing_is_sent_over_a_link_that_has_ended() -> None:
    alone = Alone()
    number = alone.link.send(b"[1]")
    alone.link.finish(LinkEnd(EndKind.CLOSED, "first"))
    alone.link.finish(LinkEnd(EndKind.LOST, "second"))
    with pytest.raises(LinkClosed):
        alone.link.send(b"[2]")
    await alone.link.run()
    assert alone.link.withdraw(number)
    assert [end.detail for end in alone.ends] == ["first"]
    await alone.raw.ends()
    assert alone.raw.stream._incoming.data == b""


async def test_a_cancellation_from_outside_ends_the_link_and_passes() -> None:
    alone = Alone()
    with anyio.move_on_after(1) as scope:
        await alone.link.run()
    assert scope.cancelled_caught
    assert alone.ends == [LinkEnd(EndKind.CLOSED, "it was cancelled")]
    await alone.raw.ends()


# --- silence -------------------------------------------------------------------------------------


async def test_an_idle_link_lives_on_pings() -> None:
    async with linked() as (a, b):
        await anyio.sleep(100 * TTL)
        assert not a.ends
        assert not b.ends


async def test_a_busy_link_needs_no_pings() -> None:
    async with raw_link() as (b, raw):
        for n in range(40):
            await raw.send(["x", 0])
            await anyio.sleep(TTL / 5)
            assert not b.ends, n
        await raw.send(["p"])
        assert await raw.frame() == [["q"]]


async def test_a_silent_peer_is_asked_and_then_given_up(caplog: pytest.LogCaptureFixture) -> None:
    async with raw_link() as (b, raw):
        start = anyio.current_time()
        assert await raw.receive() == ["p"]
        assert anyio.current_time() - start == pytest.approx(TTL / 2)
        await raw.send(["q"])
        heard = anyio.current_time()
        await raw.ends()
        assert TTL <= anyio.current_time() - heard <= 1.26 * TTL
        assert b.ends[0].kind is EndKind.SILENCE
    assert logged(caplog) == ["the link to raw has ended: the peer was silent: for 4 s"]


async def test_time_in_which_this_process_stood_still_is_no_silence() -> None:
    async with raw_link() as (b, raw):
        await settle()
        for _ in range(3):
            block(10 * TTL)
            await settle()
            assert not b.ends
            await raw.send(["q"])
            await anyio.sleep(TTL / 16)
        assert not b.ends


async def test_a_peer_that_sends_and_never_reads_is_given_up() -> None:
    async with raw_link(capacity=100) as (b, raw):
        await raw.send(["c", 1, None, "x"])
        await settle()
        b.requests[0].reply(b'"%b"' % (b"x" * 1000))
        start = anyio.current_time()
        while not b.ends:
            await raw.send(["q"])
            await anyio.sleep(TTL / 8)
        assert TTL <= anyio.current_time() - start <= 1.4 * TTL
        assert b.ends[0].kind is EndKind.STALLED


async def test_a_peer_that_reads_slowly_is_not_given_up() -> None:
    # A message of a megabyte, which takes two TTL.
    async with raw_link(capacity=1) as (b, raw):
        await raw.send(["c", 1, None, "x"])
        await settle()
        b.requests[0].reply(b'"%b"' % (b"x" * (MAX_FRAME - 100)))
        raw.stream._incoming.capacity = FRAME_SIZE // 8
        received = 0
        while received < MAX_FRAME - 90:
            assert not b.ends
            received += len(await raw.stream.receive(1 << 20))
            await raw.send(["q"])
            await anyio.sleep(TTL / 16)
        assert not b.ends


async def test_pings_of_a_peer_that_doesnt_read_arent_collected() -> None:
    async with raw_link(capacity=100) as (b, raw):
        for _ in range(1000):
            await raw.send(*[["p"]] * 10)
            await settle()
        assert b.peer._link.unsent < 100


# --- whatever a peer may send --------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        None, 5, "", "p", "q", "bye", "r1", "rx", "e1", "c1", "x1",
        {}, {"0": 1}, [], [None], [[]], [{}], [5], ["?"], ["h"],
        ["r"], ["r", 1], ["r", 2, 0], ["r", 0, 0], ["r", -1, 0], ["r", "1", 0], ["r", None, 0],
        ["r", [], 0], ["r", {}, 0], ["r", 1.5, 0], ["r", 2**64 - 1, 0],
        ["e"], ["e", 1], ["e", 2, 0], ["e", [], 0],
        ["c"], ["c", 1], ["c", "1", None], ["c", 0, None], ["c", -1, None], ["c", True, None],
        ["c", 1, "5"], ["c", 1, -1], ["c", 1, True], ["c", 1, []], ["c", [], None],
        ["x"], ["x", 1], ["x", "1"], ["x", []], ["x", None],
        ["b", "reason", "1"], ["b", "reason", []], ["b", "reason", True],
    ],
)  # fmt: skip
async def test_a_message_that_isnt_allowed_ends_the_link_with_one_line(
    message: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_link() as (b, raw), calls() as group:
        outcome = group.start(b.peer.request, b"1", None)
        await settle()
        await raw.send(["p"], message, ["c", 9, None, 0])
        await raw.ends()
        await outcome.wait()
        assert isinstance(outcome.error, RequestFailed)
        assert b.ends[0].kind is EndKind.PROTOCOL
        assert not b.requests
    assert len(logged(caplog)) == 1


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\0\0\0\1[",
        (MAX_FRAME + 1).to_bytes(4, "big"),
        encode_frame([b"[" * 100_000 + b"]" * 100_000]),
        encode_frame([b'["p"]'] * (FRAME_SIZE // 5)),
        encode_frame([b"\xff"]),
        encode_frame([b'["c",1,1e400,0]']),
        encode_frame([b'["c",2,null,0]', b'["c",2,null,0]']),
        encode_frame([b'["c",2,null,0]', b'["c",1,null,0]']),
    ],
)
async def test_bytes_that_arent_allowed_end_the_link_with_one_line(
    noise: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_link() as (b, raw):
        await raw.stream.send(noise)
        await raw.ends()
        assert b.ends[0].kind is EndKind.PROTOCOL
    assert len(logged(caplog)) == 1


async def test_a_frame_that_ends_early_is_a_lost_connection() -> None:
    async with raw_link() as (b, raw):
        await raw.stream.send(encode_frame([b'["p"]'])[:-1])
        await raw.stream.aclose()
        await settle()
        assert b.ends[0].kind is EndKind.LOST


async def test_later_fields_and_empty_frames_are_ignored() -> None:
    async with raw_link(lambda request: request.reply(b"0")) as (b, raw), calls() as group:
        outcome = group.start(b.peer.request, b"1", None)
        await settle()
        await raw.receive()
        await raw.send()
        await raw.send(["r", 1, "value", "later", {"field": 1}], ["p", 1], ["q", 1], ["x", 0, 1])
        await raw.send(["b", "reason", None, "later"])
        await raw.ends()
        assert outcome.value == "value"
        assert b.ends[0].kind is EndKind.GOODBYE


class Chatter:
    """A peer that sends what hypothesis has chosen, to a node with requests of its own."""

    values = st.recursive(
        st.none() | st.booleans() | st.integers(-2, 12) | st.floats(0, 9) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
        ),
        max_leaves=3,
    )
    kinds = st.sampled_from(["c", "r", "e", "x", "p", "q", "b"]) | st.text(max_size=2)
    messages = st.lists(
        st.tuples(kinds, st.integers(0, 8), values).map(list) | values
        | st.lists(values, max_size=4),
        max_size=4,
    )  # fmt: skip
    steps = st.lists(
        messages.map(lambda frame: encode_frame([orjson.dumps(each) for each in frame]))
        | st.binary(max_size=12),
        max_size=10,
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(steps=Chatter.steps, reads=st.booleans())
@example(steps=[encode_frame([b'["r",1,2]', b'["r",1,2]', b'["e",2,3]'])], reads=True)
async def test_nothing_that_a_peer_sends_leaves_the_link(steps: list[bytes], reads: bool) -> None:
    served: list[Incoming] = []

    def serve(request: Incoming) -> None:
        served.append(request)
        if request.message[1] % 2:
            request.reply(b"1")

    async with raw_link(serve, max_calls=3, credit=2, capacity=400) as (b, raw), calls() as group:
        outcomes = [group.start(b.peer.request, b'"%b"' % (b"x" * 50), 50) for _ in range(4)]
        with anyio.move_on_after(60):
            for step in steps:
                try:
                    await raw.stream.send(step)
                except anyio.BrokenResourceError:
                    break
                await settle()
                if reads and raw.stream._incoming.data:
                    await raw.stream.receive()
                assert len(b.peer._open) <= 3
                assert b.peer.in_flight <= 2
                for request in served[::3]:
                    request.fail(b"2")
        await raw.stream.aclose()
        for outcome in outcomes:
            await outcome.wait()  # each request ends
            assert outcome.error is None or isinstance(outcome.error, (RequestFailed, ErrorReply))
        await settle()
        assert len(b.ends) == 1
        assert b.ends[0].kind is not EndKind.FAULT
        assert b.peer.in_flight == len(b.peer._open) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
async def test_a_fault_of_the_link_itself_ends_it_and_is_logged(
    error: type[BaseException],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def receive() -> bytes:
        raise error

    alone = Alone()
    passed: list[BaseException] = []
    monkeypatch.setattr(alone.link._loop, "interrupt", passed.append)
    monkeypatch.setattr(alone.link._stream, "receive", receive)
    await alone.link.run()
    assert alone.ends[0].kind is EndKind.FAULT
    assert [type(each) for each in passed] == [KeyboardInterrupt] * (error is KeyboardInterrupt)
    assert len(logged(caplog)) == 1
    await alone.raw.ends()


async def test_close_before_the_link_runs_says_goodbye() -> None:
    async with raw_link() as (b, raw):
        b.peer.close("never begun")
        assert await raw.receive() == ["b", "never begun", 0]
        await raw.ends()


def test_each_reason_of_an_end_reads_well() -> None:
    assert str(LinkEnd(EndKind.CLOSED)) == "this node closed it"
    assert str(LinkEnd(EndKind.LOST, "reset")) == "the connection was lost: reset"
