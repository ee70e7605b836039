"""Streams of real servers: they carry each change, end at Control-C, and survive a crash."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import httpx
import pytest

from .servers import SERVERS, Server, Stream, save_app

EVENTS = "/counters/visits/events"


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    save_app(tmp_path)
    return Server(tmp_path, request.param)


def add(server: Server) -> int:
    answer = httpx.post(f"{server.url}/counters/visits", timeout=60)
    answer.raise_for_status()
    count: int = answer.json()
    return count


def test_control_c_ends_twenty_streams(server: Server) -> None:
    """Each response is complete, and none waits for a graceful timeout."""
    with server:
        streams = [Stream(server.port, EVENTS) for _ in range(20)]
        for stream in streams:
            stream.read_until('data: {"count":0}')
        add(server)
        for stream in streams:
            stream.read_until('data: {"count":1}')
        server.interrupt()
        assert [stream.read_to_end() for stream in streams] == [True] * 20, server.log
        for stream in streams:
            stream.close()
        assert "Traceback" not in server.log


def test_a_stream_goes_on_after_a_crash(server: Server) -> None:
    with server:
        with closing(Stream(server.port, EVENTS)) as stream:
            stream.read_until('data: {"count":0}')
            add(server)
            stream.read_until("id: 1-")
            stream.read_until("\n\n")
            event_id = stream.text.rpartition("id: ")[2].split("\n")[0].strip()
            server.kill()
            assert not stream.read_to_end()
        server.start()
        with closing(Stream(server.port, EVENTS, f"Last-Event-ID: {event_id}\r\n")) as stream:
            assert add(server) == 2
            stream.read_until('data: {"count":2}')
            assert '{"count":1}' not in stream.text


def test_a_client_that_leaves_is_forgotten(server: Server) -> None:
    with server:
        stream = Stream(server.port, EVENTS)
        stream.read_until('data: {"count":0}')
        stream.close()
        assert add(server) == 1
        server.interrupt()
        assert "Traceback" not in server.log
