"""Alarms as declared: their handlers, retries and payloads."""

from __future__ import annotations

import abc
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
import trio

from trio_durable import (
    Alarm,
    AlarmDefinition,
    DurableObject,
    DurableRuntime,
    ObjectKey,
    Retry,
    alarm,
    definition_of,
)

from .examples import Counter, Reminder, define, logged, run

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_alarms_are_defined_by_their_names() -> None:
    alarms = definition_of(Reminder).alarms
    assert list(alarms) == ["ring", "ring_slowly", "ring_quietly"]
    assert all(type(each) is AlarmDefinition for each in alarms.values())
    assert [each.name for each in alarms.values()] == list(alarms)
    assert [each.is_async for each in alarms.values()] == [False, True, False]
    assert not any(each.readonly for each in alarms.values())
    assert alarms["ring"].function is Reminder.ring
    assert str(alarms["ring"].signature) == "() -> 'None'"


def test_alarms_say_how_they_are_retried() -> None:
    alarms = definition_of(Reminder).alarms
    assert alarms["ring"].retry == alarms["ring_quietly"].retry == Retry()
    assert alarms["ring_slowly"].retry == Retry(initial=1, attempts=3)


def test_alarms_are_no_handlers_and_handlers_no_alarms() -> None:
    definition = definition_of(Reminder)
    assert list(definition.handlers) == ["ring_now", "ring_slowly_now"]
    assert not definition.alarms.keys() & definition.handlers.keys()
    with pytest.raises(TypeError):
        definition.alarms["ring"] = definition.alarms["ring_slowly"]  # type: ignore[index]


def test_a_class_without_alarms() -> None:
    assert definition_of(Counter).alarms == {}
    assert definition_of(Counter).handle_alarm is None


def test_an_alarm_is_a_plain_method_too() -> None:
    reminder = Reminder()
    reminder.ring()
    assert reminder.rung == 1
    assert Reminder.ring.__doc__ == "Ring."
    assert Reminder.ring.__name__ == "ring"
    assert reminder.ring_quietly() == 0
    run(reminder.ring_slowly())
    assert reminder.rung == 11


def test_handlers_call_alarms_as_plain_methods() -> None:
    assert run(Reminder().ring_now()) == 1
    assert run(Reminder().ring_slowly_now()) == 10

    async def main() -> tuple[int, int]:
        async with DurableRuntime(":memory:", objects=[Reminder]) as runtime:
            reminder = runtime.get(Reminder, "r")
            return await reminder.ring_now(), await reminder.ring_slowly_now()

    assert trio.run(main) == (1, 11)


def test_alarms_are_inherited() -> None:
    class Quiet(Reminder):
        pass

    assert definition_of(Quiet).alarms == definition_of(Reminder).alarms


def test_an_override_decides_anew_about_retry_and_async() -> None:
    class Louder(Reminder):
        @alarm(retry=Retry(attempts=1))
        async def ring(self) -> None:  # type: ignore[override]
            super().ring()
            self.rung += 100

        @alarm
        async def ring_slowly(self) -> None:
            await super().ring_slowly()

    alarms = definition_of(Louder).alarms
    assert list(alarms) == ["ring", "ring_slowly", "ring_quietly"]
    assert alarms["ring"].is_async
    assert alarms["ring"].retry == Retry(attempts=1)
    # Nothing of the options comes from what was replaced.
    assert alarms["ring_slowly"].retry == Retry()
    assert not definition_of(Reminder).alarms["ring"].is_async
    louder = Louder()
    run(louder.ring())
    assert louder.rung == 101


def test_alarms_follow_the_method_resolution_order() -> None:
    class First(DurableObject):
        @alarm(retry=Retry(attempts=1))
        def ring(self) -> None: ...

    class Second(DurableObject):
        @alarm(retry=Retry(attempts=2))
        def ring(self) -> None: ...

    class Both(First, Second):
        pass

    assert definition_of(Both).alarms["ring"].retry.attempts == 1
    assert definition_of(Both).alarms["ring"].function is Both.ring


class Nagging:
    """A plain mixin that brings an alarm and catches the others."""

    nagged: int = 0

    @alarm(retry=Retry(attempts=2))
    def nag(self) -> None:
        self.nagged += 1

    def handle_alarm(self, alarm: Alarm) -> None:
        self.nagged += 100


def test_alarms_of_plain_mixins() -> None:
    class Nagger(Nagging, Reminder):
        pass

    definition = definition_of(Nagger)
    assert definition.alarms.keys() == {"ring", "ring_slowly", "ring_quietly", "nag"}
    assert definition.alarms["nag"].retry.attempts == 2
    assert definition.handle_alarm is not None
    assert definition.handle_alarm.function is Nagging.handle_alarm
    assert "nagged" in definition.fields


def test_abstract_alarms() -> None:
    class Base(DurableObject, abc.ABC):
        @alarm
        @abc.abstractmethod
        def ring(self) -> None: ...

        @abc.abstractmethod
        @alarm
        def ring_again(self) -> None: ...

    class Half(Base):
        @alarm
        def ring(self) -> None: ...

    class Whole(Half):
        @alarm
        def ring_again(self) -> None: ...

    assert definition_of(Base).is_abstract
    assert definition_of(Half).is_abstract
    assert not definition_of(Whole).is_abstract
    assert definition_of(Base).alarms.keys() == definition_of(Whole).alarms.keys()
    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


def test_alarms_under_other_decorators() -> None:
    class Decorated(DurableObject):
        @alarm(retry=Retry(attempts=4))
        @logged
        def inside(self) -> str:
            return "inside"

        # What `functools.wraps` copies is the mark, too.
        @logged
        @alarm(retry=Retry(attempts=5))
        def outside(self) -> str:
            return "outside"

        in_short: ClassVar[Any] = alarm(lambda self: "in short")

    alarms = definition_of(Decorated).alarms
    assert {name: each.retry.attempts for name, each in alarms.items()} == {
        "inside": 4,
        "outside": 5,
        "in_short": None,
    }
    assert [each.function(Decorated()) for each in alarms.values()] == [
        ("logged", "inside"),
        ("logged", "outside"),
        "in short",
    ]


@pytest.mark.parametrize(
    ("body", "is_async"),
    [
        ("def handle_alarm(self, alarm): ...", False),
        ("async def handle_alarm(self, alarm): ...", True),
        ("def handle_alarm(self, which): ...", False),
        ("def handle_alarm(this, alarm, /): ...", False),
        ("def handle_alarm(self, alarm, *, loud=False): ...", False),
        ("def handle_alarm(self, *alarms): ...", False),
        ("def handle_alarm(*everything): ...", False),
    ],
)
def test_what_handles_alarms_of_other_names(body: str, is_async: bool) -> None:
    cls = define("Reminder", body)
    found = definition_of(cls).handle_alarm
    assert found is not None
    assert (found.name, found.is_async, found.retry) == ("handle_alarm", is_async, Retry())
    assert found.function is cls.handle_alarm
    assert "handle_alarm" not in definition_of(cls).alarms

    class Heir(cls):  # type: ignore[misc, valid-type]
        pass

    heirs = definition_of(Heir).handle_alarm
    assert heirs is not None
    assert heirs.function is found.function


def test_the_handle_alarm_that_every_class_has_does_nothing() -> None:
    async def main() -> None:
        given = Alarm(ObjectKey("Reminder", "r"), "x", due_at=EPOCH)
        reminder = Reminder()
        reminder.handle_alarm(given)  # dropped without a warning
        hook = reminder.handle_alarm(given)
        assert hook is not None
        await hook  # and it may be awaited, as an override's may

    trio.run(main)
