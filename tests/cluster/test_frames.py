"""Frames: what is sent is what arrives, in pieces of any size, and nothing else is accepted."""

from __future__ import annotations

import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_durable._cluster.frames import (
    FRAME_SIZE,
    FrameDecoder,
    Message,
    ProtocolError,
    batch_length,
    encode_frame,
)

LIMIT = 1 << 24


def decoded(decoder: FrameDecoder) -> list[Any]:
    frames = []
    while (frame := decoder.pop()) is not None:
        frames.append(frame)
    return frames


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
messages_of_frames = st.lists(st.lists(st.lists(json_values, max_size=4), max_size=4), max_size=5)


@given(messages_of_frames, st.data())
def test_frames_arrive_whole_however_the_bytes_are_cut(
    frames: list[list[Message]], data: st.DataObject
) -> None:
    stream = b"".join(encode_frame([orjson.dumps(each) for each in frame]) for frame in frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    decoder, arrived = FrameDecoder(LIMIT), []
    start = 0
    for cut in [*sorted(cuts), len(stream)]:
        decoder.push(stream[start:cut])
        start = cut
        if data.draw(st.booleans()):  # the reader may also be late
            arrived += decoded(decoder)
    assert arrived + decoded(decoder) == frames
    assert decoder.buffered == 0


def test_a_frame_is_a_length_and_an_array() -> None:
    assert encode_frame([b'["p"]', b"[1]"]) == b'\0\0\0\x0b[["p"],[1]]'


@given(st.binary(max_size=64), st.integers(0, 5))
def test_any_bytes_are_frames_or_a_protocol_error(noise: bytes, frames: int) -> None:
    decoder = FrameDecoder(1000)
    decoder.push(encode_frame([b"[1]"]) * frames + noise)
    for _ in range(frames):
        assert decoder.pop() == [[1]]
    try:
        decoded(decoder)
    except ProtocolError:
        pass
    else:
        assert decoder.buffered <= len(noise)


@given(st.binary(min_size=1, max_size=64))
def test_a_body_that_is_no_array_is_a_protocol_error(body: bytes) -> None:
    decoder = FrameDecoder(1000)
    decoder.push(len(body).to_bytes(4, "big") + body)
    try:
        expected = orjson.loads(body)
    except orjson.JSONDecodeError:
        expected = None
    if type(expected) is list:
        assert decoder.pop() == expected
    else:
        with pytest.raises(ProtocolError, match="JSON"):
            decoder.pop()


@pytest.mark.parametrize("open_", [b"[", b'{"a":'])
def test_json_that_is_too_deep_is_a_protocol_error(open_: bytes) -> None:
    body = open_ * 100_000
    decoder = FrameDecoder(LIMIT)
    decoder.push(len(body).to_bytes(4, "big") + body)
    with pytest.raises(ProtocolError, match="isn't JSON"):
        decoder.pop()


def test_a_length_above_the_limit_is_refused_before_its_body_has_come() -> None:
    decoder = FrameDecoder(1000)
    decoder.push(encode_frame([b'"%b"' % (b"x" * 996)]))
    assert decoded(decoder) == [["x" * 996]]
    decoder.push((1001).to_bytes(4, "big"))
    with pytest.raises(ProtocolError, match=r"1,001 bytes exceeds the limit of 1,000"):
        decoder.pop()


def test_an_announced_length_reserves_no_memory() -> None:
    decoder = FrameDecoder(2**32 - 1)
    tracemalloc.start()
    try:
        decoder.push(b"\xff\xff\xff\xff[")
        assert decoder.pop() is None
        decoder.push(b"1" * 1000)
        assert decoder.pop() is None
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_a_large_frame_in_small_pieces_is_buffered_in_linear_time() -> None:
    # With a copy for each piece this would be 256 GB.
    message = orjson.dumps(["x" * (1 << 24)])
    frame = encode_frame([message])
    decoder = FrameDecoder(len(frame))
    for start in range(0, len(frame), 1024):
        decoder.push(frame[start : start + 1024])
        if start + 1024 < len(frame):
            assert decoder.pop() is None
    assert decoder.pop() == [["x" * (1 << 24)]]


def test_a_frame_above_the_size_of_frames_has_one_message() -> None:
    large = orjson.dumps(["x" * FRAME_SIZE])
    decoder = FrameDecoder(LIMIT)
    decoder.push(encode_frame([large]))
    assert decoder.pop() is not None
    decoder.push(encode_frame([large, b"[1]"]))
    with pytest.raises(ProtocolError, match="only one is allowed"):
        decoder.pop()


@given(st.lists(st.integers(0, FRAME_SIZE + 10), min_size=1, max_size=20))
def test_batches_are_as_long_as_a_frame_allows(sizes: list[int]) -> None:
    messages = [b"x" * size for size in sizes]
    length = batch_length(messages)
    assert length >= 1
    frame = len(encode_frame(messages[:length])) - 4
    assert length == 1 or frame <= FRAME_SIZE
    if length < len(messages):
        assert len(encode_frame(messages[: length + 1])) - 4 > FRAME_SIZE


def test_batches_count_the_commas() -> None:
    messages = [b"1"] * FRAME_SIZE
    length = batch_length(messages)
    assert len(encode_frame(messages[:length])) - 4 == FRAME_SIZE - 1
    assert length == FRAME_SIZE // 2 - 1


def test_600_messages_of_100_kb_are_frames_within_bounds() -> None:
    messages = [orjson.dumps([n, "x" * 100_000]) for n in range(600)]
    decoder, arrived = FrameDecoder(FRAME_SIZE), []
    while messages:
        length = batch_length(messages)
        assert length == 2 or length == len(messages)
        decoder.push(encode_frame(messages[:length]))
        del messages[:length]
        arrived += [number for frame in decoded(decoder) for number, _ in frame]
    assert arrived == list(range(600))
