"""Requests over a link, in memory: each ends once, in a way that says whether it ran."""

from __future__ import annotations

from typing import Any

import anyio
import orjson
import pytest
from support.clock import settle
from support.tasks import Outcome, calls

from trio_durable._cluster import peer as peer_module
from trio_durable._cluster.frames import FRAME_SIZE
from trio_durable._cluster.incoming import Incoming
from trio_durable._cluster.link import EndKind, MessageTooLarge
from trio_durable._cluster.outcomes import (
    ErrorReply,
    NeverRan,
    NoCapacity,
    NoReply,
    OutcomeUnknown,
)

from .nodes import MAX_FRAME, TTL, linked, raw_link

pytestmark = pytest.mark.anyio


def echo(request: Incoming) -> None:
    """Reply with the elements behind the seconds left."""
    request.reply(orjson.dumps(request.message[3:]))


# --- answers -------------------------------------------------------------------------------------


async def test_a_request_gets_its_reply() -> None:
    async with linked(echo) as (a, _):
        assert await a.peer.request(b'"Counter","c1","add",[1]', 5) == ["Counter", "c1", "add", [1]]
        assert await a.peer.request(b"null", None) == [None]
        assert a.peer.in_flight == 0


async def test_both_sides_ask_at_once() -> None:
    async with linked() as (a, b), calls() as group:
        one, two = group.start(a.peer.request, b"1", 5), group.start(b.peer.request, b"2", 5)
        await settle()
        b.requests[0].reply(b'"from b"')
        a.requests[0].reply(b'"from a"')
        await settle()
        assert (one.value, two.value) == ("from b", "from a")


async def test_replies_come_in_any_order_to_their_requests() -> None:
    async with linked() as (a, b), calls() as group:
        outcomes = [group.start(a.peer.request, b"%d" % n, 5) for n in range(6)]
        await settle()
        for request in sorted(b.requests, key=lambda request: -request.message[3]):
            request.reply(b"%d" % request.message[3])
        await settle()
        assert [outcome.value for outcome in outcomes] == list(range(6))


async def test_an_error_is_raised_with_its_value() -> None:
    async with linked(lambda request: request.fail(b'{"type":"ValueError"}')) as (a, _):
        for _ in range(20):  # each gives its place back
            with pytest.raises(ErrorReply) as caught:
                await a.peer.request(b"1", 5)
            assert caught.value.value == {"type": "ValueError"}


async def test_a_second_answer_is_ignored() -> None:
    async with raw_link() as (b, raw):
        await raw.send(["c", 1, None, "x"])
        await settle()
        b.requests[0].reply(b"1")
        b.requests[0].reply(b"2")
        b.requests[0].fail(b"3")
        await raw.send(["p"])
        assert [await raw.receive(), await raw.receive()] == [["r", 1, 1], ["q"]]


async def test_requests_of_one_tick_share_frames() -> None:
    async with raw_link(credit=100) as (b, raw), calls() as group:
        await settle()  # the link runs
        outcomes = [group.start(b.peer.request, b"%d" % n, None) for n in range(50)]
        frame = await raw.frame()
        assert len(frame) == 8
        while len(frame) < 50:
            frame += await raw.frame()
        assert sorted(message[3] for message in frame) == list(range(50))
        assert [message[1] for message in frame] == list(range(1, 51))
        await raw.send(*(["r", message[1], message[3]] for message in frame))
        await settle()
        assert [outcome.value for outcome in outcomes] == list(range(50))


async def test_eight_answers_leave_while_others_are_made() -> None:
    async with raw_link(echo, max_calls=200) as (_, raw):
        await raw.send(*(["c", n, None, n] for n in range(1, 101)))
        answers = await raw.frame()
        assert len(answers) == 8
        while len(answers) < 100:
            answers += await raw.frame()
        assert answers == [["r", n, [n]] for n in range(1, 101)]


# --- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [30.0, 0.1, 1e-9, 123456.789])
async def test_the_peer_gets_the_seconds_left(timeout: float) -> None:
    async with linked() as (a, b), calls() as group:
        outcome = group.start(a.peer.request, b"1", timeout)
        if timeout > 1e-6:
            await settle()
            assert b.requests[0].seconds_left == timeout
        outcome.cancel()


async def test_a_request_without_an_answer_expires() -> None:
    async with linked() as (a, b):
        start = anyio.current_time()
        with pytest.raises(NoReply) as caught:
            await a.peer.request(b"1", 20)
        assert caught.value.was_sent
        assert anyio.current_time() - start == pytest.approx(20)
        await settle()
        assert b.requests[0].is_withdrawn


async def test_an_answer_may_come_within_the_grace_after_the_timeout() -> None:
    async with linked() as (a, b), calls() as group:
        in_time = group.start(a.peer.request, b"1", 20, 0.5)
        await settle()
        late = group.start(a.peer.request, b"2", 20, 0.5)
        await anyio.sleep(20.3)
        assert b.requests[0].seconds_left == 20
        b.requests[0].reply(b'"in time"')
        await anyio.sleep(0.1)
        assert in_time.value == "in time"
        assert not late.done
        await anyio.sleep(0.2)
        assert isinstance(late.error, NoReply)


async def test_a_reply_that_comes_late_is_ignored() -> None:
    async with linked() as (a, b):
        with pytest.raises(NoReply):
            await a.peer.request(b"1", 1)
        b.requests[0].reply(b'"late"')
        await settle()
        assert a.peer.end is None
        assert a.peer.in_flight == 0


# --- withdrawal and cancellation -----------------------------------------------------------------


async def test_a_request_that_is_cancelled_before_it_was_sent_isnt_sent() -> None:
    async with raw_link(capacity=64) as (b, raw), calls() as group:
        outcomes = []
        for body in (b'"%b"' % (b"x" * 200), b'"withdrawn"', b'"last"'):
            outcomes.append(group.start(b.peer.request, body, None))
            await settle()  # with the first the writer waits for the reader
        outcomes[1].cancel()
        await settle()
        assert b.peer.in_flight == 2
        sent = [await raw.receive(), await raw.receive()]
        assert [message[1] for message in sent] == [1, 3]
        assert sent[1][3] == "last"
        for outcome in outcomes:
            outcome.cancel()


async def test_a_request_that_expires_before_it_was_sent_isnt_sent() -> None:
    async with raw_link(capacity=64) as (b, raw), calls() as group:
        large = group.start(b.peer.request, b'"%b"' % (b"x" * 200), None)
        await settle()  # the writer waits for the reader
        late = group.start(b.peer.request, b'"late"', 1)
        await late.wait()
        assert isinstance(late.error, NoReply)
        assert not late.error.was_sent
        first = await raw.receive()
        await raw.send(["r", first[1], 0], ["p"])
        assert await raw.receive() == ["q"]
        await settle()
        assert large.value == 0


async def test_a_request_that_is_cancelled_after_it_was_sent_is_cancelled_at_the_peer() -> None:
    async with linked() as (a, b), calls() as group:
        outcome = group.start(a.peer.request, b"1", None)
        await settle()
        withdrawn: list[str] = []
        b.requests[0].withdrawn = lambda: withdrawn.append("once")
        outcome.cancel()
        await settle()
        assert withdrawn == ["once"]
        assert b.requests[0].is_withdrawn


async def test_a_cancelled_request_keeps_its_place_until_it_is_answered() -> None:
    async with linked(max_calls=1) as (a, b), calls() as group:
        first = group.start(a.peer.request, b"1", None)
        await settle()
        first.cancel()
        second = group.start(a.peer.request, b"2", None)
        await settle()
        assert [request.message[3] for request in b.requests] == [1]
        b.requests[0].reply(b'"a large reply, which is not sent"')
        await settle()
        b.requests[1].reply(b'"yes"')
        await settle()
        assert second.value == "yes"


async def test_the_answer_of_a_cancelled_request_is_small() -> None:
    async with raw_link() as (b, raw):
        await raw.send(["c", 1, None, "x"], ["x", 1])
        await settle()
        b.requests[0].fail(b'"%b"' % (b"x" * MAX_FRAME * 2))
        assert await raw.receive() == ["r", 1, None]


async def test_a_cancellation_that_crosses_the_answer_is_ignored() -> None:
    async with raw_link(echo) as (b, raw):
        await raw.send(["c", 1, None, "x"])
        assert await raw.receive() == ["r", 1, ["x"]]
        await raw.send(["x", 1], ["x", 1], ["p"])
        assert await raw.receive() == ["q"]
        assert b.peer.end is None


async def test_ids_arent_used_again() -> None:
    async with raw_link() as (b, raw), calls() as group:
        for _ in range(3):
            outcome = group.start(b.peer.request, b"0", None)
            await settle()
            outcome.cancel()
            await settle()
        ids = [(await raw.receive())[:2] for _ in range(6)]
        assert ids == [["c", 1], ["x", 1], ["c", 2], ["x", 2], ["c", 3], ["x", 3]]


# --- places --------------------------------------------------------------------------------------


async def test_no_more_requests_are_sent_than_the_peer_has_places() -> None:
    async with linked(max_calls=3) as (a, b), calls() as group:
        outcomes = [group.start(a.peer.request, b"%d" % n, None) for n in range(10)]
        for answered in range(10):
            await settle()
            assert len(b.requests) == min(answered + 3, 10)
            b.requests[answered].reply(b"%d" % b.requests[answered].message[3])
        await settle()
        assert sorted(outcome.value for outcome in outcomes) == list(range(10))


async def test_requests_wait_for_a_place_in_order() -> None:
    async with linked(max_calls=1) as (a, b), calls() as group:
        outcomes = []
        for n in range(5):
            outcomes.append(group.start(a.peer.request, b"%d" % n, None))
            await settle()
        for n in range(5):
            assert b.requests[n].message[3] == n
            b.requests[n].reply(b"0")
            await settle()


async def test_a_request_that_gets_no_place_in_time_never_runs() -> None:
    async with linked(max_calls=1) as (a, b), calls() as group:
        first = group.start(a.peer.request, b"1", None)
        await settle()
        start = anyio.current_time()
        with pytest.raises(NoCapacity):
            await a.peer.request(b"2", 7)
        assert anyio.current_time() - start == pytest.approx(7)
        b.requests[0].reply(b"0")
        await settle()
        assert first.done
        assert len(b.requests) == 1


async def test_a_request_that_got_a_place_late_carries_what_is_left_of_its_time() -> None:
    async with linked(max_calls=1) as (a, b), calls() as group:
        group.start(a.peer.request, b"1", None)
        await settle()
        second = group.start(a.peer.request, b"2", 10)
        await anyio.sleep(4)
        b.requests[0].reply(b"0")
        await settle()
        assert b.requests[1].seconds_left == pytest.approx(6)
        await second.wait()
        assert isinstance(second.error, NoReply)
        assert second.error.was_sent


async def test_a_cancelled_request_leaves_the_queue() -> None:
    async with linked(max_calls=1) as (a, b), calls() as group:
        group.start(a.peer.request, b"1", None)
        await settle()
        second, third = (group.start(a.peer.request, body, None) for body in (b"2", b"3"))
        await settle()
        second.cancel()
        await settle()
        assert len(a.peer._queue) == 1
        b.requests[0].reply(b"0")
        await settle()
        assert b.requests[1].message[3] == 3
        b.requests[1].reply(b"0")
        await third.wait()


async def test_a_withdrawn_request_gives_its_place_to_the_next() -> None:
    async with raw_link(credit=1, capacity=64) as (b, raw), calls() as group:
        # Fill the connection, so that the writer waits.
        await raw.send(["c", 1, None, "x"])
        await settle()
        b.requests[0].reply(b'"%b"' % (b"x" * 300))
        await settle()
        first = group.start(b.peer.request, b'"first"', None)
        await settle()
        second = group.start(b.peer.request, b'"second"', None)
        await settle()
        first.cancel()
        await settle()
        assert (await raw.receive())[0] == "r"
        assert (await raw.receive())[0::3] == ["c", "second"]
        second.cancel()


async def test_bytes_that_wait_for_a_slow_reader_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_module, "MAX_UNSENT", 500_000)
    async with raw_link(credit=1000) as (b, raw), calls() as group:
        body = b'"%b"' % (b"x" * 100_000)
        outcomes = [group.start(b.peer.request, body, None) for _ in range(200)]
        await settle()
        assert b.peer._link.unsent <= 600_100
        for n in range(1, 201):
            assert (await raw.receive())[1] == n
            assert b.peer._link.unsent <= 600_100
        for outcome in outcomes:
            outcome.cancel()


async def test_a_peer_that_takes_more_places_than_it_has_loses_its_link() -> None:
    async with raw_link(max_calls=3) as (b, raw):
        await raw.send(*(["c", n, None, n] for n in range(1, 5)))
        await raw.ends()
        assert len(b.requests) == 3
        assert b.ends[0].kind is EndKind.PROTOCOL
        assert "more than 3 requests" in str(b.ends[0])


async def test_answers_that_a_peer_doesnt_read_keep_their_places() -> None:
    async with raw_link(echo, max_calls=4, capacity=1000) as (b, raw):
        for sent in range(1, 7):
            assert not b.ends
            await raw.send(["c", sent, None, "x" * 10_000])
            await settle()
        # One answer is being written, and four have places.
        assert "more than 4 requests" in str(b.ends[0])


async def test_a_peer_that_uses_all_places_again_and_again_keeps_its_link() -> None:
    async with linked(echo, max_calls=2, capacity=50) as (a, _), calls() as group:

        async def ask() -> None:
            for n in range(100):
                assert await a.peer.request(b"%d" % n, None) == [n]

        outcomes = [group.start(ask) for _ in range(5)]
        for outcome in outcomes:
            await outcome.wait()
            assert outcome.error is None


# --- size ----------------------------------------------------------------------------------------


async def test_a_request_that_is_too_large_is_refused_where_it_is_made() -> None:
    async with linked(echo, max_frame=FRAME_SIZE) as (a, _):
        for _ in range(20):  # it takes no place
            with pytest.raises(MessageTooLarge, match="exceeds the limit of 262,142"):
                await a.peer.request(b'"%b"' % (b"x" * FRAME_SIZE), 5)
        assert await a.peer.request(b"1", 5) == [1]


async def test_a_request_that_is_too_large_doesnt_wait_for_a_place() -> None:
    async with linked(max_calls=1, max_frame=FRAME_SIZE) as (a, _), calls() as group:
        first = group.start(a.peer.request, b"1", None)
        await settle()
        with pytest.raises(MessageTooLarge):
            await a.peer.request(b'"%b"' % (b"x" * FRAME_SIZE), None)
        first.cancel()


async def test_a_reply_that_is_too_large_can_be_answered_by_an_error() -> None:
    # 40 MB, whose receiver would refuse the frame and lose all requests of the link.
    def serve(request: Incoming) -> None:
        try:
            request.reply(b'"%b"' % (b"x" * 40_000_000))
        except MessageTooLarge as error:
            request.fail(orjson.dumps(error.limit))

    async with linked(serve) as (a, _):
        with pytest.raises(ErrorReply) as caught:
            await a.peer.request(b"1", 5)
        assert caught.value.value == MAX_FRAME - 2
        assert a.peer.end is None


async def test_large_replies_that_are_due_at_once_all_arrive() -> None:
    async with linked(max_calls=600) as (a, b), calls() as group:
        outcomes = [group.start(a.peer.request, b"%d" % n, None) for n in range(600)]
        await settle()
        assert len(b.requests) == 600
        for request in b.requests:
            request.reply(b'[%d,"%b"]' % (request.message[3], b"x" * 100_000))
        for n, outcome in enumerate(outcomes):
            await outcome.wait()
            assert outcome.value[0] == n


async def test_two_peers_that_send_more_than_the_connection_holds_dont_wait_for_each_other() -> (
    None
):
    async with linked(echo, max_calls=50, capacity=1000) as (a, b), calls() as group:
        b.peer._serve = echo
        a.peer._serve = echo
        body = b'"%b"' % (b"x" * 100_000)
        outcomes = [group.start(node.peer.request, body, 60) for node in (a, b) for _ in range(8)]
        for outcome in outcomes:
            await outcome.wait()
            assert len(outcome.value[0]) == 100_000


# --- the end of the link -------------------------------------------------------------------------


async def ends_of(outcomes: list[Outcome[Any]]) -> list[object]:
    for outcome in outcomes:
        await outcome.wait()
    return [type(outcome.error) for outcome in outcomes]


async def test_a_lost_connection_says_which_requests_never_ran() -> None:
    async with raw_link(credit=2, capacity=300) as (b, raw), calls() as group:
        sent = group.start(b.peer.request, b'"%b"' % (b"x" * 1000), None)
        await settle()  # a part of it is in the connection
        queued = group.start(b.peer.request, b'"queued"', None)
        without_place = group.start(b.peer.request, b'"no place"', None)
        await settle()
        await raw.stream.aclose()
        assert await ends_of([sent, queued, without_place]) == [OutcomeUnknown, NeverRan, NeverRan]
        assert b.ends[0].kind is EndKind.LOST
        with pytest.raises(NeverRan):
            await b.peer.request(b"1", None)


async def test_requests_fail_before_the_owner_learns_of_the_end() -> None:
    async with raw_link() as (b, raw), calls() as group:
        outcome = group.start(b.peer.request, b"1", None)
        await settle()
        waiters = list(b.peer._waiting.values())
        seen: list[bool] = []
        b.peer._on_end = lambda end: seen.append(all(waiter.ended for waiter in waiters))
        await raw.stream.aclose()
        await outcome.wait()
        assert seen == [True]


async def test_open_requests_of_the_peer_are_withdrawn_with_the_link() -> None:
    async with raw_link() as (b, raw):
        await raw.send(["c", 1, None, "x"])
        await settle()
        withdrawn: list[str] = []
        b.requests[0].withdrawn = lambda: withdrawn.append("once")
        await raw.stream.aclose()
        await settle()
        assert withdrawn == ["once"]
        b.requests[0].reply(b"1")  # ignored
        b.requests[0].fail(b"1")


async def test_a_goodbye_comes_behind_the_answers() -> None:
    async with linked() as (a, b), calls() as group:
        outcomes = []
        for _ in range(2):
            outcomes.append(group.start(a.peer.request, b"1", None))
            await settle()
        b.requests[0].reply(b"1")
        b.peer.close("the runtime closes")
        await settle()
        assert outcomes[0].value == 1
        assert await ends_of(outcomes[1:]) == [OutcomeUnknown]
        assert (a.ends[0].kind, b.ends[0].kind) == (EndKind.GOODBYE, EndKind.CLOSED)
        assert "the runtime closes" in str(a.ends[0])


async def test_requests_that_cross_a_goodbye_never_ran() -> None:
    async with raw_link() as (b, raw), calls() as group:
        outcomes = []
        for _ in range(3):
            outcomes.append(group.start(b.peer.request, b"1", None))
            await settle()
        await raw.send(["b", "leaving", 1])
        assert await ends_of(outcomes) == [OutcomeUnknown, NeverRan, NeverRan]


async def test_a_goodbye_names_the_last_request_and_none_is_accepted_after_it() -> None:
    async with raw_link() as (b, raw):
        await raw.send(["c", 1, None, "x"], ["c", 5, None, "y"])
        await settle()
        b.peer.close("leaving")
        await raw.send(["c", 6, None, "z"], ["x", 6])
        assert await raw.receive() == ["b", "leaving", 5]
        assert len(b.requests) == 2
        await raw.ends()
        assert b.ends[0].kind is EndKind.CLOSED


async def test_after_close_requests_never_run_and_answers_are_dropped() -> None:
    async with raw_link(capacity=30) as (b, raw):
        await raw.send(["c", 1, None, 0])
        await settle()
        b.peer.close("a reason that takes more bytes than the connection holds")
        await settle()
        with pytest.raises(NeverRan):
            await b.peer.request(b"1", None)
        b.requests[0].reply(b"1")
        assert await raw.receive() == ["b", b.peer._link.closing.detail, 1]  # type: ignore[union-attr]
        await raw.ends()


async def test_a_goodbye_that_nobody_reads_takes_a_ttl_at_most() -> None:
    async with raw_link(capacity=10) as (b, _):
        start = anyio.current_time()
        b.peer.close("a reason that takes more bytes than the connection holds")
        while not b.ends:
            await anyio.sleep(0.1)
        assert anyio.current_time() - start <= TTL * 1.1
        assert b.ends[0].kind is EndKind.CLOSED


async def test_abort_ends_at_once() -> None:
    async with linked() as (a, b), calls() as group:
        outcome = group.start(a.peer.request, b"1", None)
        await settle()
        a.peer.abort("deposed")
        await settle()
        assert await ends_of([outcome]) == [OutcomeUnknown]
        assert a.ends[0].detail == "deposed"
        assert b.ends[0].kind is EndKind.LOST


# --- faults of the layer above -------------------------------------------------------------------


async def test_a_request_that_cant_be_served_is_a_logged_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def serve(request: Incoming) -> None:
        if request.message[3] == "bad":
            raise LookupError("no such thing")
        echo(request)

    async with linked(serve) as (a, _):
        with pytest.raises(ErrorReply) as caught:
            await a.peer.request(b'"bad"', 5)
        assert caught.value.value is None
        assert await a.peer.request(b'"good"', 5) == ["good"]
    [record] = [each for each in caplog.records if each.exc_info is not None]
    assert isinstance(record.exc_info[1], LookupError)  # type: ignore[index]


async def test_a_control_c_in_serve_is_passed_on_and_the_link_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def serve(request: Incoming) -> None:
        if request.message[3] == "bad":
            raise KeyboardInterrupt
        echo(request)

    async with linked(serve) as (a, b):
        passed: list[BaseException] = []
        monkeypatch.setattr(b.peer._loop, "interrupt", passed.append)
        with pytest.raises(ErrorReply):
            await a.peer.request(b'"bad"', 5)
        assert await a.peer.request(b'"good"', 5) == ["good"]
        assert [type(error) for error in passed] == [KeyboardInterrupt]


async def test_a_withdrawal_that_raises_doesnt_end_the_link(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with raw_link() as (b, raw):
        await raw.send(["c", 1, None, "x"], ["c", 2, None, "y"])
        await settle()

        def fail() -> None:
            raise LookupError("a fault")

        for request in b.requests:
            request.withdrawn = fail
        await raw.send(["x", 1], ["p"])
        assert await raw.receive() == ["q"]
        assert b.peer.end is None
        await raw.stream.aclose()
        await settle()
        assert b.requests[1].is_withdrawn
        assert b.ends
    assert sum("has failed" in record.getMessage() for record in caplog.records) == 2


async def test_an_owner_that_fails_at_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise LookupError("a fault")

    async with raw_link() as (b, raw):
        b.peer._on_end = fail
        await raw.send(["?"])
        await raw.ends()  # the connection is closed all the same
    [record] = [each for each in caplog.records if each.exc_info is not None]
    assert isinstance(record.exc_info[1], LookupError)  # type: ignore[index]
