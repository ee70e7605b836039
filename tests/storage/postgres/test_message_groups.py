"""The division of a batch where the order of its commits matters."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_durable.storage import (
    Burial,
    Commit,
    MessageChanges,
    MessageKey,
    NewMessage,
    OnceKey,
    OnceReply,
)
from trio_durable.storage.postgres._message_groups import author_of, parts

from .messages import message, recording
from .rows import NOW, key, save, setting

A, B, C = key("a"), key("b"), key("c")
TO_B = MessageKey(B, "Cart/a", 7, 70)


def of(object_id: str, messages: MessageChanges) -> Commit:
    return Commit(key(object_id), 1, b"1", messages=messages)


def divided(*batch: Commit) -> list[list[int]]:
    return [[number for number, _ in part] for part in parts(list(enumerate(batch)))]


def replacing(to: str) -> NewMessage:
    return message(key(to), A, NOW, sender_key="k")


def promised(object_id: str) -> Commit:
    reply = OnceReply(OnceKey(C, "k"), "f", "", "", b"1", NOW)
    return of(object_id, MessageChanges(recorded=[reply]))


def test_a_batch_of_turns_is_one_part() -> None:
    turns = [
        of(
            f"{n}",
            MessageChanges(
                [MessageKey(key(f"{n}"), "Cart/a", n, n)], sent=[message(key(f"{n + 1}"), key("x"))]
            ),
        )
        for n in range(64)
    ]
    batch = [*turns, save("a", 1), setting("b", "x", revision=1), recording("c")]
    assert divided(*batch) == [list(range(67))]
    assert divided() == [[]]


PAIRS: dict[str, Callable[[], tuple[Commit, Commit]]] = {
    "a deletion of what is sent to": lambda: (
        of("a", MessageChanges(sent=[message(B, A)])),
        Commit(B, 1, delete=True),
    ),
    "an acknowledgement of what is withdrawn": lambda: (
        of("a", MessageChanges(withdrawn=[TO_B])),
        of("b", MessageChanges([TO_B])),
    ),
    "an acknowledgement behind a cancellation": lambda: (
        of("a", MessageChanges(cancelled=["k"])),
        of("b", MessageChanges([TO_B])),
    ),
    "a withdrawal of what is buried with its receiver": lambda: (
        Commit(B, 1, delete=True),
        of("a", MessageChanges(withdrawn=[TO_B])),
    ),
    "an acknowledgement behind a burial in its lane": lambda: (
        Commit(C, None, messages=MessageChanges(buried=[Burial(TO_B, 1, "no")])),
        of("b", MessageChanges([TO_B._replace(seq=9, token=90)])),
    ),
    "a cancellation of what is buried with its receiver": lambda: (
        Commit(B, 1, delete=True),
        of("a", MessageChanges(cancelled=["k"])),
    ),
    "a replacement of what is sent for the sender": lambda: (
        Commit(B, None, messages=MessageChanges(sent=[replacing("b")])),
        of("a", MessageChanges(sent=[replacing("c")])),
    ),
    "the same once-key": lambda: (promised("a"), promised("b")),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_the_order_of_some_commits_matters(pair: Callable[[], tuple[Commit, Commit]]) -> None:
    first, second = pair()
    assert divided(first, second) == [[0], [1]]
    assert divided(save("x", 1), first, save("y", 1), second, save("z", 1)) == [[0, 1, 2], [3, 4]]


def test_commits_of_messages_alone_have_an_identity_of_their_own() -> None:
    assert author_of(5, recording("a")) == ("", "5")
    assert author_of(5, promised("a")) == ("Cart", "a")
    assert author_of(5, setting("a", "x")) == ("Cart", "a")
    assert author_of(5, Commit(A, 0, messages=MessageChanges())) == ("Cart", "a")
