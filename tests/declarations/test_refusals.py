"""Class bodies that are refused, and the errors that say why."""

from __future__ import annotations

import abc
import functools
import gc
from collections.abc import Mapping
from dataclasses import InitVar
from typing import Any, Generic, Protocol, TypeVar, get_args

import attrs
import pytest

from trio_durable import DefinitionError, DurableObject, definition_of
from trio_durable._api.durable_object import (
    _classes,
    _order,
    known_definitions,
    resolved_fields,
)

from .examples import NAMES, UPGRADE, Counter, define

WRONG_BODIES = {
    # Fields.
    "ctx: int = 0": ("ctx", "choose another name"),
    "ctx = 1": ("ctx", "choose another name"),
    "def ctx(self): ...": ("ctx", "choose another name"),
    "count: int": ("count", "needs a default"),
    "count: int = attrs.field()": ("count", "needs a default"),
    "count = 0": ("count", "count: int = …"),
    "count = attrs.field(default=0)": ("count", "annotate the field"),
    "_count = 0": ("_count", "_count: int = …"),
    "items: list[int] = []": ("items", "factory=list"),
    "items: dict[str, int] = {}": ("items", "factory=dict"),
    "items: set[int] = set()": ("items", "factory=set"),
    "items: bytearray = bytearray()": ("items", "factory=bytearray"),
    "items: list[int] = attrs.field(default=[1])": ("items", "factory=list"),
    "inner: Mutable = Mutable()": ("inner", "factory=Mutable"),
    "count: int = attrs.field(default=0, init=False)": ("count", "init=False"),
    "after_load: int = 0": ("after_load", "plain method"),
    "handle_alarm: int = 0": ("handle_alarm", "plain method"),
    "count: int = property(len)": ("count", "both a field and a property"),
    "count: int = functools.cached_property(len)": ("count", "a field and a cached_property"),
    "count: int = staticmethod(len)": ("count", "both a field and a staticmethod"),
    "count: int = classmethod(len)": ("count", "both a field and a classmethod"),
    "count: int = lambda self: 1": ("count", "both a field and a method"),
    "__slots__ = ('count',)": ("count", "remove __slots__"),
    "_refuse_if_live: bool = False": ("_refuse_if_live", "the method DurableObject._refuse"),
    # Annotations.
    "n: Final = attrs.field(factory=int)": ("n", "`Final[type]`"),
    "n: Annotated[Final, 1] = attrs.field(factory=int)": ("n", "`Final[type]`"),
    "n: Alias = 0": ("n", "a ClassVar isn't stored"),
    "n: Annotated[ClassVar[int], 1] = 0": ("n", "a ClassVar isn't stored"),
    "n: InitVar[int] = 0": ("n", "an InitVar isn't stored"),
    "n: InitVar = 0": ("n", "an InitVar isn't stored"),
    "n: TypeAlias = int": ("n", "a TypeAlias would be a field"),
    "n: typing.List['int['] = attrs.field(factory=list)": ("n", "is no type"),
    "n: 'int[str]' = 0": ("n", "is no type"),
    "n: T = 0": ("n", "the type variable T has no type here"),
    # Names of parameters.
    "n: int = attrs.field(default=0, alias='a b')": ("n", "choose another alias"),
    "n: int = attrs.field(default=0, alias='class')": ("n", "choose another alias"),
    "n: int = attrs.field(default=0, alias='self')": ("n", "choose another alias"),
    "n: int = attrs.field(default=0, alias=5)": ("n", "choose another alias"),
    "self: int = 0": ("self", "rename the field"),
    "n: int = 0\nm: int = attrs.field(default=0, alias='n')": ("m", "that of the field n"),
    # Handlers.
    "@handler\ndef ctx(self): ...": ("ctx", "choose another name"),
    "@handler\ndef after_load(self): ...": ("after_load", "plain method"),
    "@handler\nasync def after_load(self): ...": ("after_load", "plain method"),
    "@handler\ndef handle_alarm(self, alarm): ...": ("handle_alarm", "plain method"),
    "@handler\ndef _private(self): ...": ("_private", "a public name"),
    "@handler\ndef __len__(self): ...": ("__len__", "a public name"),
    "@handler\ndef __init__(self): ...": ("__init__", "after_load"),
    "@handler\ndef numbers(self):\n    yield 1": ("numbers", "return a list"),
    "@handler\nasync def numbers(self):\n    yield 1": ("numbers", "return a list"),
    "@handler(readonly=True)\nasync def numbers(self):\n    yield 1": ("numbers", "return a list"),
    "@handler\ndef work(): ...": ("work", "self first"),
    "@handler\ndef work(*, key): ...": ("work", "self first"),
    "@handler\ndef work(**all): ...": ("work", "self first"),
    "@handler\n@handler\ndef work(self): ...": ("work", "once"),
    "@handler\n@handler(readonly=True)\ndef work(self): ...": ("work", "once"),
    "@handler\n@staticmethod\ndef work(): ...": ("work", "def or async def"),
    "@handler\n@classmethod\ndef work(cls): ...": ("work", "def or async def"),
    "@handler\n@property\ndef work(self): ...": ("work", "def or async def"),
    "@handler\nclass work: ...": ("work", "def or async def"),
    "work = handler(len)": ("work", "def or async def"),
    "work = handler(functools.partial(print))": ("work", "def or async def"),
    # Python's own.
    "def __init__(self): ...": ("__init__", "after_load"),
    "def __new__(cls): ...": ("__new__", "after_load"),
    "def __setattr__(self, name, value): ...": ("__setattr__", "after_load"),
    "def __attrs_pre_init__(self): ...": ("__attrs_pre_init__", "after_load"),
    "def __attrs_post_init__(self): ...": ("__attrs_post_init__", "after_load"),
    "def __post_init__(self): ...": ("__post_init__", "after_load"),
    "after_load = None": ("after_load", "plain method"),
    "@staticmethod\ndef after_load(): ...": ("after_load", "plain method"),
    "@property\ndef after_load(self): ...": ("after_load", "plain method"),
    # Alarms.
    "@alarm\ndef ctx(self): ...": ("ctx", "choose another name"),
    "@alarm\ndef after_load(self): ...": ("after_load", "plain method"),
    "@alarm\ndef handle_alarm(self): ...": ("handle_alarm", "plain method"),
    "@alarm\ndef handle_alarm(self, alarm): ...": ("handle_alarm", "plain method"),
    "@alarm\ndef _private(self): ...": ("_private", "a public name"),
    "@alarm\ndef __len__(self): ...": ("__len__", "a public name"),
    "@alarm\ndef __init__(self): ...": ("__init__", "after_load"),
    "@alarm\ndef ring(self):\n    yield 1": ("ring", "can't yield"),
    "@alarm\nasync def ring(self):\n    yield 1": ("ring", "can't yield"),
    "@alarm(retry=Retry())\nasync def ring(self):\n    yield": ("ring", "can't yield"),
    "@alarm\ndef ring(): ...": ("ring", "takes self"),
    "@alarm\ndef ring(*, key): ...": ("ring", "takes self"),
    "@alarm\ndef ring(**all): ...": ("ring", "takes self"),
    "@alarm\ndef ring(self, alarm): ...": ("ring", "self.ctx.alarm.payload"),
    "@alarm\nasync def ring(self, alarm): ...": ("ring", "self.ctx.alarm.payload"),
    "@alarm\ndef ring(self, *, payload): ...": ("ring", "nothing but self"),
    "@alarm\ndef ring(self, a=1, *, b): ...": ("ring", "nothing but self"),
    "@alarm\n@handler\ndef ring(self): ...": ("ring", "both an alarm and a handler"),
    "@handler\n@alarm\ndef ring(self): ...": ("ring", "both an alarm and a handler"),
    "@alarm\n@handler(readonly=True)\ndef ring(self): ...": ("ring", "both an alarm and a"),
    "@handler(readonly=True)\n@alarm\ndef ring(self): ...": ("ring", "both an alarm and a"),
    "@alarm(every=60)\n@handler(readonly=True)\ndef ring(self): ...": (
        "ring",
        "both an alarm and a",
    ),
    "@handler(readonly=True)\n@alarm(every=60)\ndef ring(self): ...": (
        "ring",
        "both an alarm and a",
    ),
    "@alarm\n@staticmethod\ndef ring(): ...": ("ring", "outermost decorator"),
    "@alarm\n@classmethod\ndef ring(cls): ...": ("ring", "outermost decorator"),
    "@alarm\n@property\ndef ring(self): ...": ("ring", "outermost decorator"),
    "@alarm(retry=Retry())\n@property\ndef ring(self): ...": ("ring", "outermost decorator"),
    "@alarm\nclass ring: ...": ("ring", "def or async def"),
    "ring = alarm(len)": ("ring", "def or async def"),
    "ring = alarm(3)": ("ring", "def or async def"),
    "ring = alarm(functools.partial(print))": ("ring", "def or async def"),
    "handle_alarm = None": ("handle_alarm", "plain method"),
    "def handle_alarm(self): ...": ("handle_alarm", "(self, alarm)"),
    "async def handle_alarm(self): ...": ("handle_alarm", "(self, alarm)"),
    "def handle_alarm(self, alarm, more): ...": ("handle_alarm", "(self, alarm)"),
    "def handle_alarm(self, *, alarm): ...": ("handle_alarm", "(self, alarm)"),
    "def handle_alarm(self, alarm, *, more): ...": ("handle_alarm", "(self, alarm)"),
    "@staticmethod\ndef handle_alarm(self, alarm): ...": ("handle_alarm", "plain method"),
    "@classmethod\ndef handle_alarm(cls, alarm): ...": ("handle_alarm", "plain method"),
    "@property\ndef handle_alarm(self): ...": ("handle_alarm", "plain method"),
    "def after_load(self, more): ...": ("after_load", "(self)"),
    # Else the field would win, and the alarm be lost.
    "ring: int = 0\n@alarm\ndef ring(self): ...": ("ring", "both a field and an alarm"),
    "ring: int\n@alarm\ndef ring(self): ...": ("ring", "both a field and an alarm"),
    "@alarm(retry=None)\ndef ring(self): ...": ("ring", "retry must be a Retry, not None"),
    "@alarm(retry=5)\ndef ring(self): ...": ("ring", "retry must be a Retry, not 5"),
    # The mark is out of sight.
    "@staticmethod\n@alarm\ndef ring(self): ...": ("ring", "outermost decorator"),
    "@classmethod\n@alarm\ndef ring(self): ...": ("ring", "outermost decorator"),
    "@property\n@alarm\ndef ring(self): ...": ("ring", "outermost decorator"),
    "@staticmethod\n@handler\ndef work(self): ...": ("work", "@handler goes on a plain method"),
    "@classmethod\n@handler\ndef work(self): ...": ("work", "@handler goes on a plain method"),
    "@property\n@handler\ndef work(self): ...": ("work", "@handler goes on a plain method"),
    "def handle_alarm(self, alarm):\n    yield": ("handle_alarm", "without yield"),
    "async def handle_alarm(self, alarm):\n    yield": ("handle_alarm", "without yield"),
    "def after_load(self):\n    yield": ("after_load", "without yield"),
    "async def after_load(self):\n    yield": ("after_load", "without yield"),
}

WRONG_BASES = {
    "list": ("", "the base list keeps values"),
    "dict": ("", "the base dict keeps values"),
    "str": ("", "the base str keeps values"),
    "int": ("", "the base int keeps values"),
    "tuple": ("", "the base tuple keeps values"),
    "Exception": ("", "the base Exception keeps values"),
    "threading.local": ("", "the base _local keeps values"),
    "collections.OrderedDict": ("", "the base OrderedDict keeps values"),
    "collections.UserDict": ("__init__", "of the base UserDict never runs"),
    "Slotted": ("kept", "of the base Slotted is a slot"),
    "SlottedAttrs": ("kept", "@attrs.define(slots=False)"),
    "SlottedHeir": ("kept", "of the base Slotted is a slot"),
    "Record": ("", "the base Record is a dataclass"),
    "FrozenAttrs": ("__setattr__", "of the base FrozenAttrs never runs"),
    "SetUp": ("__init__", "of the base SetUp never runs"),
    "SetUpAttrs": ("__init__", "of the base SetUpAttrs never runs"),
    "SetUpLater": ("__attrs_post_init__", "of the base SetUpLater never runs"),
}

WRONG_SUBCLASSES = {
    # Members in the place of a field.
    "@property\ndef count(self): ...": ("count", "the property Wrong.count is in the place"),
    "@functools.cached_property\ndef count(self): ...": ("count", "the cached_property Wrong"),
    "@staticmethod\ndef count(): ...": ("count", "the staticmethod Wrong.count"),
    "def count(self): ...": ("count", "the method Wrong.count"),
    "class count: ...": ("count", "the attribute Wrong.count"),
    "increment: int = 0": ("increment", "handler"),
    "def increment(self): ...": ("increment", "@handler"),
    "increment = None": ("increment", ""),
    "@handler\ndef count(self): ...": ("count", "field"),
    "@handler\ndef _secret(self): ...": ("_secret", ""),
    "title = 'new'": ("title", "title: str = …"),
    "items: list[int] = []": ("items", "factory=list"),
    "volume: int": ("volume", "needs a default"),
}

WRONG_HEIRS_OF_ALARMS = {
    "def ring(self): ...": ("ring", "@alarm"),
    "async def ring_slowly(self): ...": ("ring_slowly", "@alarm"),
    "ring = None": ("ring", "@alarm"),
    "ring = 5": ("ring", "@alarm"),
    "@property\ndef ring(self): ...": ("ring", "@alarm"),
    "ring: int = 0": ("ring", "a field and an alarm"),
    "@handler\ndef ring(self): ...": ("ring", "@alarm"),
    "@alarm\ndef ring(self, loud): ...": ("ring", "nothing but self"),
    "@handler(expected='KeyError')\ndef get(self): ...": ("get", "expected must be"),
    "@handler(expected=StaleObject)\ndef get(self): ...": ("get", "StaleObject is a failure"),
    "@handler(limit=5)\ndef get(self): ...": ("get", "a turn of a def can't be interrupted"),
    "@handler(limit=0)\nasync def get(self): ...": ("get", "limit must be"),
    "@handler(limit='5')\nasync def get(self): ...": ("get", "limit must be"),
    "@alarm(limit=5)\ndef ring(self): ...": ("ring", "a turn of a def can't be interrupted"),
    "@alarm(limit=-1)\nasync def ring(self): ...": ("ring", "limit must be"),
    "@alarm\ndef ring_now(self): ...": ("ring_now", "@handler"),
    "@alarm\ndef rung(self): ...": ("rung", "a field and an alarm"),
}

WRONG_KEYWORDS = {
    "name=''": ("", "empty"),
    "name='a\\0b'": ("", "NUL"),
    "name='x' * 513": ("", "513 bytes"),
    "name=7": ("", "type int"),
    "hibernate_after='5'": ("", "hibernate_after must be"),
    "hibernate_after=-1": ("", "hibernate_after must be"),
    "hibernate_after=float('nan')": ("", "hibernate_after must be"),
    "shutdown_after=True": ("", "shutdown_after must be"),
    "shutdown_after=timedelta(-1)": ("", "shutdown_after must be"),
    "call_timeout=float('inf')": ("", "call_timeout must be"),
    "mailbox_size=0": ("", "mailbox_size must be"),
    "mailbox_size=1.5": ("", "mailbox_size must be"),
    "mailbox_size=True": ("", "mailbox_size must be"),
    "mailbox_size=None": ("", "mailbox_size must be"),
    "turn_limit=0": ("", "turn_limit must be"),
    "turn_limit='5'": ("", "turn_limit must be"),
    "turn_limit=True": ("", "turn_limit must be"),
    "turn_limit=timedelta(days=1000)": ("", "turn_limit must be"),
    "expected=KeyboardInterrupt": ("", "expected must be"),
    "expected=(KeyError, 'KeyError')": ("", "expected must be"),
    "expected=[KeyError]": ("", "expected must be"),
    "expected=None": ("", "expected must be"),
    "expected=(KeyError, PersistenceError)": ("", "PersistenceError is a failure"),
    "expected=StaleObject": ("", "StaleObject is a failure"),
    "schema=0": ("", "schema must be"),
    "schema=-1": ("", "schema must be"),
    "schema=2.0": ("", "schema must be"),
    "schema=True": ("", "schema must be"),
    "schema='2'": ("", "schema must be"),
    "schema=None": ("", "schema must be"),
    "schema=2": ("", "no upgrade from schema 1"),
    "schema=10**18": ("", "no upgrade from schema 1"),
}

WRONG_UPGRADES = {
    # Chains.
    UPGRADE.format(2, "late"): ("", "no upgrade from schema 1; "),
    UPGRADE.format(1, "early"): ("", "@upgrade(from_schema=2)"),
    UPGRADE.format(3, "over"): ("over", "write schema=4"),
    UPGRADE.format(1, "one") + UPGRADE.format(1, "two"): ("two", "one upgrades from schema 1"),
    UPGRADE.format(0, "none"): ("none", "from_schema must be"),
    UPGRADE.format("'1'", "text"): ("text", "from_schema must be"),
    UPGRADE.format("True", "true"): ("true", "from_schema must be"),
    UPGRADE.format("1.0", "real"): ("real", "from_schema must be"),
    # Functions.
    "@upgrade(from_schema=1)\ndef up(state): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\ndef up(self, state): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\n@classmethod\ndef up(cls, state): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\n@property\ndef up(self): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\n@handler\ndef up(self): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\n@alarm\ndef up(self): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\nclass up: ...": ("up", "@staticmethod"),
    "up = upgrade(from_schema=1)(staticmethod(dict))": ("up", "@staticmethod"),
    "@upgrade(from_schema=2)\n@upgrade(from_schema=1)\n@staticmethod\ndef up(state): ...": (
        "up",
        "@staticmethod",
    ),
    "@staticmethod\n@upgrade(from_schema=1)\ndef up(state): ...": ("up", "outermost decorator"),
    "@classmethod\n@upgrade(from_schema=1)\ndef up(cls, state): ...": ("up", "outermost decorator"),
    "@property\n@upgrade(from_schema=1)\ndef up(self): ...": ("up", "outermost decorator"),
    "@handler\n@upgrade(from_schema=1)\n@staticmethod\ndef up(state): ...": ("up", "@handler"),
    "@alarm\n@upgrade(from_schema=1)\n@staticmethod\ndef up(state): ...": ("up", "@alarm"),
    "@upgrade(from_schema=1)\n@staticmethod\ndef up(): ...": ("up", "takes one argument"),
    "@upgrade(from_schema=1)\n@staticmethod\ndef up(a, b): ...": ("up", "takes one argument"),
    "@upgrade(from_schema=1)\n@staticmethod\ndef up(*, state): ...": ("up", "takes one argument"),
    "@upgrade(from_schema=1)\n@staticmethod\nasync def up(state): ...": ("up", "await or yield"),
    "@upgrade(from_schema=1)\n@staticmethod\ndef up(state):\n    yield": ("up", "await or yield"),
    "@upgrade(from_schema=1)\n@staticmethod\nasync def up(state):\n    yield": (
        "up",
        "await or yield",
    ),
    # Names.
    "up: int = 0\n" + UPGRADE.format(1, "up"): ("up", "a field and an upgrade"),
    UPGRADE.format(1, "ctx"): ("ctx", "reserved"),
    UPGRADE.format(1, "after_load"): ("after_load", "plain method"),
    UPGRADE.format(1, "handle_alarm"): ("handle_alarm", "plain method"),
}

WRONG_HEIRS_OF_UPGRADES = {
    "def to_cents(state): ...": ("to_cents", "@upgrade"),
    "@staticmethod\ndef to_cents(state): ...": ("to_cents", "@upgrade"),
    "to_cents = None": ("to_cents", "@upgrade"),
    "to_cents = 5": ("to_cents", "@upgrade"),
    "to_cents: int = 0": ("to_cents", "a field and an upgrade"),
    "@handler\ndef to_cents(self): ...": ("to_cents", "@upgrade"),
    UPGRADE.format(1, "mine"): ("mine", "to_cents upgrades from schema 1"),
    UPGRADE.format(2, "mine"): ("mine", "write schema=3"),
    UPGRADE.format(2, "to_cents"): ("to_cents", "write schema=3"),
    UPGRADE.format(1, "pay"): ("pay", "@handler"),
}


def refused(head: str, body: str, member: str, mend: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        define(head, body)
    assert caught.value.cls == "Wrong"
    assert caught.value.member == member
    assert mend in caught.value.problem
    assert str(caught.value).startswith(f"Wrong.{member}: " if member else "Wrong: ")


@pytest.mark.parametrize("body", WRONG_BODIES)
def test_wrong_bodies(body: str) -> None:
    refused("DurableObject", body, *WRONG_BODIES[body])


@pytest.mark.parametrize("base", WRONG_BASES)
def test_wrong_bases(base: str) -> None:
    refused(f"{base}, DurableObject", "", *WRONG_BASES[base])
    refused(f"DurableObject, {base}", "", *WRONG_BASES[base])


@pytest.mark.parametrize("body", WRONG_SUBCLASSES)
def test_wrong_subclasses(body: str) -> None:
    refused("Counter", body, *WRONG_SUBCLASSES[body])


@pytest.mark.parametrize("body", WRONG_HEIRS_OF_ALARMS)
def test_wrong_subclasses_of_what_has_alarms(body: str) -> None:
    refused("Reminder", body, *WRONG_HEIRS_OF_ALARMS[body])


@pytest.mark.parametrize("keywords", WRONG_KEYWORDS)
def test_wrong_keywords(keywords: str) -> None:
    refused(f"DurableObject, {keywords}", "", *WRONG_KEYWORDS[keywords])


@pytest.mark.parametrize("body", WRONG_UPGRADES)
def test_wrong_upgrades(body: str) -> None:
    refused("DurableObject, schema=3", body, *WRONG_UPGRADES[body])


def test_an_upgrade_without_a_schema_for_it() -> None:
    refused("DurableObject", UPGRADE.format(1, "up"), "up", "write schema=2")


@pytest.mark.parametrize("body", WRONG_HEIRS_OF_UPGRADES)
def test_wrong_subclasses_of_what_has_upgrades(body: str) -> None:
    refused("Billed", body, *WRONG_HEIRS_OF_UPGRADES[body])


def test_a_subclass_can_not_go_back() -> None:
    refused("Billed, schema=1", "", "to_cents", "write schema=2")


def test_a_subclass_that_counts_on_without_an_upgrade() -> None:
    refused("Billed, schema=3", "", "", "no upgrade from schema 2")


def test_bases_that_have_an_upgrade_from_one_schema_each() -> None:
    refused("Billed, Labelled", "", "to_cents", "to_label upgrades from schema 1")
    refused("Labelled, Billed, schema=3", "", "to_label", "to_cents upgrades from schema 1")


def test_a_field_and_a_handler_of_one_name() -> None:
    refused("DurableObject", "work: int = 0\n@handler\ndef work(self): ...", "work", "")


@pytest.mark.parametrize(
    ("body", "bases"),
    [
        ("tags: list[str] = []", "Bad, DurableObject"),
        ("tags: list[str]", "Bad, DurableObject"),
        ("ctx: int = 0", "Bad, DurableObject"),
        ("@handler\ndef tags(self):\n    yield 1", "Bad, DurableObject"),
        ("@handler\ndef _hidden(self): ...", "Bad, DurableObject"),
        ("@handler\ndef after_load(self): ...", "Bad, DurableObject"),
        ("@alarm\ndef tags(self, more): ...", "Bad, DurableObject"),
        ("@alarm\ndef tags(self):\n    yield 1", "Bad, DurableObject"),
        ("@alarm\n@staticmethod\ndef tags(): ...", "Bad, DurableObject"),
        ("@alarm\n@handler\ndef tags(self): ...", "Bad, DurableObject"),
        ("@handler\n@alarm\ndef tags(self): ...", "Bad, DurableObject"),
        ("@alarm\ndef _hidden(self): ...", "Bad, DurableObject"),
        ("@alarm\ndef after_load(self): ...", "Bad, DurableObject"),
        ("@alarm\ndef handle_alarm(self, alarm): ...", "Bad, DurableObject"),
        ("@alarm(retry=None)\ndef tags(self): ...", "Bad, DurableObject"),
        ("@upgrade(from_schema=1)\ndef tags(state): ...", "Bad, DurableObject"),
        ("@upgrade(from_schema=1)\n@staticmethod\ndef tags(state): ...", "Bad, DurableObject"),
        ("@staticmethod\ndef to_cents(state): ...", "Bad, Billed"),
        ("def handle_alarm(self): ...", "Bad, DurableObject"),
        ("handle_alarm = None", "Bad, DurableObject"),
        ("@staticmethod\ndef handle_alarm(alarm): ...", "Bad, DurableObject"),
        ("def handle_alarm(self, alarm):\n    yield", "Bad, DurableObject"),
        ("def after_load(self, more): ...", "Bad, DurableObject"),
        ("after_load = None", "Bad, DurableObject"),
        # A class behind the mixin that has an alarm of the name.
        ("def ring(self): ...", "Bad, Reminder"),
        ("ring = None", "Bad, Reminder"),
        ("ring: int = 0", "Bad, Reminder"),
        ("@alarm\ndef ring_now(self): ...", "Bad, Reminder"),
    ],
)
def test_wrong_plain_mixins(body: str, bases: str) -> None:
    namespace: dict[str, Any] = {**NAMES, "__name__": "defined"}
    exec("class Bad:\n" + "\n".join(f"    {line}" for line in body.splitlines()), namespace)
    with pytest.raises(DefinitionError) as caught:
        exec(f"class Wrong({bases}): pass", namespace)
    assert caught.value.member in body


@pytest.mark.parametrize(
    "body",
    [
        "@handler\ndef count(self): ...",
        "def increment(self): ...",
    ],
)
def test_mixins_that_would_replace_what_is_there(body: str) -> None:
    # The mixin comes first, so its method would win over the field or handler behind it.
    namespace: dict[str, Any] = {**NAMES, "__name__": "defined"}
    exec("class Bad:\n" + "\n".join(f"    {line}" for line in body.splitlines()), namespace)
    with pytest.raises(DefinitionError):
        exec("class Wrong(Bad, Counter): pass", namespace)


def test_unknown_class_keywords() -> None:
    with pytest.raises(TypeError):
        define("DurableObject, hibernate=300", "")


def test_properties_of_bases_in_the_place_of_a_field() -> None:
    class Sized(abc.ABC):
        @property
        @abc.abstractmethod
        def size(self) -> int: ...

    with pytest.raises(DefinitionError, match=r"the property .*Sized.size is in the place"):

        class Wrong(Sized, DurableObject):
            size: int = 0


@pytest.mark.parametrize(
    ("decorator", "name"),
    [("dataclasses.dataclass", "@dataclass"), ("attrs.define(slots=False)", "@attrs.define")],
)
def test_decorators_that_make_another_kind_of_class(decorator: str, name: str) -> None:
    names: dict[str, Any] = {**NAMES, "__name__": __name__}
    exec(f"@{decorator}\nclass Wrong(DurableObject):\n    count: int = 0", names)
    with pytest.raises(DefinitionError, match=f"^Wrong: {name} makes fields .*; remove it"):
        resolved_fields(names["Wrong"])


@pytest.mark.parametrize("decorator", ["dataclasses.dataclass(slots=True)", "attrs.define"])
def test_decorators_that_add_slots(decorator: str) -> None:
    names: dict[str, Any] = {**NAMES, "__name__": __name__}
    with pytest.raises(DefinitionError, match=r"^Wrong"):
        exec(f"@{decorator}\nclass Wrong(DurableObject):\n    count: int = 0", names)


def test_bases_that_may_be() -> None:
    class Protocolled(Protocol):
        def work(self) -> None: ...

    class Empty:
        __slots__ = ()

    class Weak:
        __slots__ = ("__weakref__",)

    class Fine(Protocolled, Empty, Weak, Mapping[str, int], abc.ABC):
        pass

    class Good(Fine, DurableObject):
        n: int = 0

        @functools.cached_property
        def twice(self) -> int:
            return self.n * 2

    assert Good.__itemsize__ == 0
    assert [field.name for field in resolved_fields(Good)] == ["n"]


def traces() -> list[object]:
    """All that refers to a durable class called Wrong, after a collection."""
    gc.collect()
    return [
        *known_definitions().get("refused", ()),
        *(cls for cls in _classes if cls.__name__ == "Wrong"),
        *(cls for cls in _order if cls.__name__ == "Wrong"),
        *(cls for cls in DurableObject.__subclasses__() if cls.__name__ == "Wrong"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        "count: int",  # no default
        "count: int = property(len)",
        "count: 'int[str]' = 0",
        "@handler\ndef count(): ...",
        "def __init__(self): ...",
    ],
)
def test_a_refused_class_leaves_no_trace(body: str) -> None:
    before = traces()
    with pytest.raises(DefinitionError) as caught:
        define("DurableObject, name='refused'", body)
    assert "refused" not in known_definitions()  # though the error keeps the class alive
    del caught
    assert traces() == before
    corrected = define("DurableObject, name='refused'", "count: int = 0")
    assert known_definitions()["refused"] == [definition_of(corrected)]
    assert corrected(count=1).count == 1  # type: ignore[call-arg, attr-defined]


def test_a_refused_subclass_leaves_its_base_as_it_was() -> None:
    for body in ("title: bytes", "title: 'int[str]' = 0"):
        with pytest.raises(DefinitionError):
            define("Counter", body)
    gc.collect()
    assert [cls for cls in Counter.__subclasses__() if cls.__name__ == "Wrong"] == []
    assert definition_of(Counter).fields["title"].type == str | None
    again = define("Counter", "title: bytes = b''")
    assert definition_of(again).fields["title"].type is bytes
    assert definition_of(again).fields["count"].type is int


def test_refused_arguments_leave_no_class() -> None:
    T = TypeVar("T")

    class Box(DurableObject, Generic[T]):
        item: T = attrs.field(default=None)

    argument: Any = InitVar[int]
    for _ in range(2):
        with pytest.raises(DefinitionError, match="an InitVar isn't stored"):
            Box[argument]
    assert Box[int](item=1).item == 1
    assert [get_args(alias) for alias in vars(Box)["__durable_parametrised__"]] == [(int,)]
