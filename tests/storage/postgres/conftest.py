from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from support.postgres import Server
from support.proxy import Proxy, proxied

from trio_durable.storage import Reader, Writer
from trio_durable.storage.postgres import PostgresStorage


@pytest.fixture
def storage(postgres: str) -> PostgresStorage:
    return PostgresStorage(postgres)


@pytest.fixture
def writer(storage: PostgresStorage) -> Iterator[Writer]:
    with closing(storage.open_writer()) as writer:
        yield writer


@pytest.fixture
def reader(storage: PostgresStorage, writer: Writer) -> Iterator[Reader]:
    with closing(storage.open_reader()) as reader:
        yield reader


@pytest.fixture
def admin(postgres: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Another program in the same schema."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        yield connection


@pytest.fixture
def server(fresh_server: Server) -> Server:
    """A server with nothing in it."""
    return fresh_server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with proxied(server.socket) as proxy:
        yield proxy
