"""The messages of watches between two processes.

    ["watch", [[type, id, tenant, look], …]]                  to the owner; look 0 ends a watch
    ["watched", [[kind, type, id, tenant, look, …], …]]       from the owner; see `News`

Both are requests of a process itself. A release that doesn't know them refuses them by name, which
ends no link. A subscriber ignores news of a kind that it doesn't know.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from .._keys import ObjectKey
from .._persistence.restoring import of_text, to_text
from .._watching.session import News, NewsKind

WATCH = "watch"
"""The request that begins, confirms and ends watches."""
WATCHED = "watched"
"""The request that brings news."""

_KINDS = {kind.value: kind for kind in NewsKind}


def encode_looks(looks: Iterable[tuple[ObjectKey, int]]) -> bytes:
    """The body of a request `WATCH`: each object with the number of the look."""
    found = [[key.type_name, key.object_id, key.tenant, look] for key, look in looks]
    return b'"n",' + orjson.dumps([WATCH, found])[1:-1]


def decode_looks(data: object) -> list[tuple[ObjectKey, int]]:
    """The looks of a request, which may be anything.

    Raises:
        ValueError: They aren't any.
    """
    found = []
    for each in data if isinstance(data, list) else [None]:
        match each:
            case [str(type_name), str(object_id), str(tenant), int(look), *_]:
                found.append((ObjectKey(type_name, object_id, tenant), look))
            case _:
                raise ValueError("a watch of another process can't be read")
    return found


def encode_news(news: News) -> bytes:
    """One piece of news."""
    key = news.key
    data: list[object] = [news.kind.value, key.type_name, key.object_id, key.tenant, news.look]
    if news.kind is NewsKind.STATE:
        data += news.revision, to_text(news.row)
    elif news.kind is NewsKind.FAULT:
        data.append(news.problem)
    return orjson.dumps(data)


def watched(encoded: Iterable[bytes]) -> bytes:
    """The body of a request `WATCHED`."""
    return b'"n","%b",[%b]' % (WATCHED.encode(), b",".join(encoded))


def decode_news(data: object) -> list[News]:
    """The news of a request, which may be anything.

    Raises:
        ValueError: It isn't any.
    """
    found = []
    for each in data if isinstance(data, list) else [None]:
        match each:
            case [
                "s",
                str(type_name),
                str(object_id),
                str(tenant),
                int(look),
                int(revision),
                row,
                *_,
            ]:
                key = ObjectKey(type_name, object_id, tenant)
                if row is not None and not isinstance(row, str):
                    raise ValueError("a watched state of another process can't be read")
                found.append(News(key, look, NewsKind.STATE, revision, of_text(row)))
            case [str(kind), str(type_name), str(object_id), str(tenant), int(look), *rest]:
                if kind in _KINDS:
                    key = ObjectKey(type_name, object_id, tenant)
                    problem = str(rest[0]) if rest else ""
                    found.append(News(key, look, _KINDS[kind], problem=problem))
            case _:
                raise ValueError("news of another process can't be read")
    return found
