"""Models of pydantic in state: exact, through their storage."""

# mypy: disable-error-code="call-arg"
# Without the plugin of pydantic, mypy doesn't know the arguments of models.

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

import anyio
import attrs
import msgspec
import pydantic
import pytest
from exactness.snapshot import same
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    FutureDate,
    HttpUrl,
    IPvAnyAddress,
    PositiveInt,
    PostgresDsn,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    computed_field,
    conlist,
    field_validator,
)
from support.codecs import KEY, box, codec_of

from trio_durable import (
    DefinitionError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    StateDecodeError,
    StateEncodeError,
    alarm,
    handler,
)
from trio_durable._json.lookup import form_of
from trio_durable._json.models import ModelForm

T = TypeVar("T")
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Address(BaseModel):
    street: str
    zip_code: str = Field("", alias="zip")
    since: datetime | None = None


class Customer(BaseModel):
    name: str = "Ada"
    addresses: list[Address] = []
    balance: Decimal = Decimal("0.00")
    friend: Customer | None = None
    _seen: set[UUID] = PrivateAttr(default_factory=set)
    _visits: int = 0
    _last: datetime

    @computed_field  # type: ignore[prop-decorator]
    @property
    def greeting(self) -> str:
        return f"Hello {self.name}"

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def initial(self) -> str:
        return self.name[:1]


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int = 0


class Events(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, datetime]


class Frozen(BaseModel, frozen=True):
    at: date = date(2030, 1, 1)


class Page(BaseModel, Generic[T]):
    items: list[T]
    _last: T | None = None


class Pages(Page[list[T]], Generic[T]):
    pass


class Tags(RootModel[list[Decimal]]):
    pass


class Login(BaseModel):
    password: SecretStr
    key: SecretBytes = SecretBytes(b"\xff")
    home: HttpUrl | None = None
    database: PostgresDsn | None = None
    host: IPvAnyAddress | None = None
    age: PositiveInt = 1
    born: AwareDatetime | None = None
    scores: conlist(int, min_length=1) = [1]  # type: ignore[valid-type]


@pydantic.dataclasses.dataclass
class Line:
    price: Decimal = Field(default=Decimal("1.0"))
    notes: list[str] = Field(default_factory=list)


@attrs.define
class Item:
    x: int = 0


class Point(msgspec.Struct):
    x: int = 0


def customer() -> Customer:
    made = Customer(
        name="Bob", addresses=[Address(street="High", zip="1", since=NOON)], friend=Customer()
    )
    made._seen.add(UUID(int=1))
    made._last = NOON
    return made


def stored(annotation: Any, value: Any) -> tuple[Any, bytes]:
    """``value``, read from what was written for it, and what was written."""
    cls = box(annotation | None, None)
    codec = codec_of(cls)
    state = codec.encode(KEY, cls(value=value))
    return codec.decode(KEY, state).value, state


def refusal(annotation: Any, value: Any) -> str:
    with pytest.raises(StateEncodeError) as caught:
        stored(annotation, value)
    return str(caught.value)


# --- exact ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Customer, customer()),
        (Customer, Customer()),
        (Customer, Customer.model_construct(name="x", _fields_set=set())),
        (Open, Open(x=1, y=[1, None], z={"a": 1.5})),
        (Open, Open()),
        (Events, Events(begin=NOON)),
        (Frozen, Frozen(at=date(2031, 1, 1))),
        (Page[Decimal], Page[Decimal](items=[Decimal("1.0")])),
        (Pages[Decimal], Pages[Decimal](items=[[Decimal("1.0")]])),
        (Tags, Tags([Decimal("1.0")])),
        (RootModel[dict[str, date]], RootModel[dict[str, date]]({"a": date(2030, 1, 1)})),
        (list[Customer], [customer(), Customer()]),
        (dict[str, Address], {"a": Address(street="a")}),
        (Customer | Point | Item, customer()),
        (Customer | Point | Item, Point(1)),
        (Address | Open, Open(y=1)),
        (Line, Line(notes=["a"])),
        (
            Login,
            Login(
                password=SecretStr("p"),
                key=SecretBytes(b"\x00\xff"),
                home=HttpUrl("http://a.b/c?d=e"),
                database=PostgresDsn("postgres://u:p@a,b/db"),
                host=IPv4Address("1.2.3.4"),
                born=NOON,
            ),
        ),
    ],
)
def test_a_model_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    read, state = stored(annotation, value)
    assert same(read, value)
    assert stored(annotation, read)[1] == state


def test_a_model_is_an_object_of_its_fields_private_attributes_and_the_names_of_those_set() -> None:
    _, state = stored(Customer, Customer(name="Bob"))
    assert state.startswith(
        b'{"value":{"name":"Bob","addresses":[],"balance":"0.00","friend":null,"_seen":[],'
        b'"_visits":0,"$set":["name"]}'
    )


def test_members_for_extra_values_and_fields_that_were_set_are_written_if_needed() -> None:
    assert stored(Open, Open(x=1))[1].startswith(b'{"value":{"x":1},')
    extended = Open(x=1, y=2)
    assert stored(Open, extended)[1].startswith(b'{"value":{"x":1,"$extra":{"y":2}},')


def test_secrets_are_stored_as_they_are() -> None:
    read, state = stored(Login, Login(password=SecretStr("open sesame")))
    assert b"open sesame" in state
    assert read.password.get_secret_value() == "open sesame"


def test_names_for_other_types_are_these_types() -> None:
    assert form_of(EmailStr).types == {str}
    assert form_of(FutureDate).types == {date}
    assert form_of(IPvAnyAddress).write(IPv4Address("1.2.3.4"), []) == {
        "$type": "IPv4Address",
        "value": "1.2.3.4",
    }


def test_validators_run_neither_on_write_nor_on_read() -> None:
    calls: list[Any] = []

    class Even(BaseModel):
        x: int = 0

        @field_validator("x")
        @classmethod
        def even(cls, value: int) -> int:
            calls.append(value)
            return value // 2 * 2

        def model_post_init(self, context: Any, /) -> None:
            calls.append(self)

    value = Even(x=2)
    value.x = 3
    calls.clear()
    read, _ = stored(Even, value)
    assert read.x == 3
    assert calls == []


def test_cached_and_computed_values_are_not_stored() -> None:
    value = Customer()
    assert value.initial == "A"
    read, state = stored(Customer, value)
    assert b"initial" not in state
    assert b"greeting" not in state
    assert "initial" not in vars(read)


@pytest.mark.parametrize("text", ["2030-01-01T12:00:00Z", "2030-01-01T12:00:00-03:30"])
def test_times_that_pydantic_has_parsed_keep_its_class_of_offsets(text: str) -> None:
    value = Address.model_validate({"street": "a", "since": text})
    read, state = stored(Address, value)
    assert b"[pydantic]" in state
    assert same(read, value)
    assert type(read.since.tzinfo) is type(value.since.tzinfo)  # type: ignore[union-attr]
    assert stored(Address, Address(street="a", since=NOON))[1].count(b"pydantic") == 0


# --- refused -------------------------------------------------------------------------------------


def test_a_value_of_another_type_than_the_field_is_refused() -> None:
    address = Address(street="a")
    address.street = 1  # type: ignore[assignment]
    assert "value.street: 1 is of type int, not str" in refusal(Address, address)


def test_a_subclass_is_refused() -> None:
    class Special(Address):
        pass

    assert "of type Special, not Address" in refusal(Address, Special(street="a"))


def test_an_undeclared_attribute_is_refused() -> None:
    address = Address(street="a")
    vars(address)["colour"] = "red"
    assert "colour" in refusal(Address, address)
    assert stored(Address, Address(street="a"))


def test_a_field_that_is_not_set_is_refused() -> None:
    address = Address(street="a")
    del address.street
    assert "street: it isn't set" in refusal(Address, address)


def test_a_private_attribute_that_is_gone_is_refused_if_it_has_a_default() -> None:
    value = Customer()
    del value._visits
    assert "_visits: it isn't set" in refusal(Customer, value)


def test_an_undeclared_private_attribute_is_refused() -> None:
    value = Customer()
    assert value.__pydantic_private__ is not None
    value.__pydantic_private__["_other"] = 1
    assert "_other: it is not a declared attribute" in refusal(Customer, value)


def test_a_url_that_reads_back_as_another_is_refused() -> None:
    class Strange(HttpUrl):
        def __str__(self) -> str:
            return f"{super().__str__()}x"

    class Site(BaseModel):
        url: Strange

    assert "is read back as" in refusal(Site, Site(url=Strange("http://a.b/")))


@pytest.mark.parametrize("kind", [pydantic.ByteSize, pydantic.NameEmail, pydantic.Secret[int]])
def test_other_types_of_pydantic_are_refused_by_name(kind: Any) -> None:
    name = getattr(kind, "__name__", "Secret")
    with pytest.raises(DefinitionError, match=name):
        codec_of(box(kind | None, None))


def test_a_private_attribute_without_a_type_is_refused() -> None:
    class Untyped(BaseModel):
        _cache = dict[str, int]()

    with pytest.raises(DefinitionError, match=r"Untyped\._cache.*no annotation"):
        box(Untyped, None)


def test_a_type_variable_without_a_type_is_refused() -> None:
    with pytest.raises(DefinitionError, match="type variable"):
        box(Page, None)


def test_two_parametrisations_of_one_model_cant_be_told_apart() -> None:
    with pytest.raises(DefinitionError, match="Page and Page are written alike"):
        box(Page[int] | Page[str], None)


def test_a_field_whose_name_is_a_member_of_ours_is_refused() -> None:
    model = pydantic.create_model("Odd", **{"$set": (int, 0)})  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="rename it"):
        box(model, None)


def test_a_model_with_a_slot_is_refused() -> None:
    class Slotted(BaseModel):
        __slots__ = ("extra_slot",)
        x: int = 0

    with pytest.raises(DefinitionError, match="extra_slot"):
        box(Slotted, None)


# --- other releases ------------------------------------------------------------------------------


def test_a_missing_field_gets_its_default_and_isnt_set() -> None:
    class Ranged(BaseModel):
        low: int
        high: int = Field(default_factory=lambda data: data["low"] + 1)
        seen: list[int] = []
        _count: int = 3

    taken: list[str] = []
    read = form_of(Ranged).read({"low": 2}, taken)
    assert same(read, Ranged(low=2))
    assert taken == ["high"]
    assert read.seen is not form_of(Ranged).read({"low": 2}, []).seen


def test_a_missing_required_field_is_refused() -> None:
    codec = codec_of(box(Address | None, None))
    with pytest.raises(StateDecodeError, match=r"value\.street.*missing"):
        codec.decode(KEY, b'{"value":{}}')


def model(name: str, **fields: Any) -> Any:
    return pydantic.create_model(name, **fields)


def changed(before: Any, after: Any, value: Any) -> Any:
    """``value`` of the type ``before``, read by a release with the type ``after``."""
    old, new = box(before | None, None), box(after | None, None)
    return codec_of(new).decode(KEY, codec_of(old).encode(KEY, old(value=value))).value


def test_a_field_of_a_model_may_change_its_type() -> None:
    before, after = model("Entry", at=(str, ...)), model("Entry", at=(datetime | None, ...))
    assert same(changed(before, after, before(at=NOON.isoformat())), after(at=NOON))
    with pytest.raises(StateDecodeError, match="noon"):
        changed(before, after, before(at="noon"))


def test_a_model_may_become_an_attrs_class_of_its_name_unless_it_has_extra_values() -> None:
    @attrs.define
    class Moved:
        x: int = 0

    Moved.__name__ = "Open"
    assert same(changed(Open, Moved, Open()), Moved())
    with pytest.raises(StateDecodeError, match="extra values would be lost"):
        changed(Open, Moved, Open(y=1))


def test_an_attrs_class_may_become_a_model_of_its_name() -> None:
    after = model("Item", x=(int, 0), y=(int, 5))
    assert same(changed(Item, after, Item(1)), after(x=1))


def test_an_extra_value_that_has_become_a_field_is_refused() -> None:
    after = pydantic.create_model(
        "Open", __config__=ConfigDict(extra="allow"), x=(int, 0), y=(int, 0)
    )
    with pytest.raises(StateDecodeError, match="y is an extra value and a field"):
        changed(Open, after, Open(y=1))


def test_a_str_may_become_a_secret_and_bytes_may_not() -> None:
    assert same(changed(str, SecretStr, "a"), SecretStr("a"))
    with pytest.raises(StateDecodeError):
        changed(str, SecretBytes, "YQ==")


def test_plain_json_from_outside_is_validated_by_pydantic() -> None:
    form = form_of(Address)
    assert isinstance(form, ModelForm)
    read = form.validated({"street": "a", "zip": "1", "since": "2030-01-01T12:00:00Z"})
    assert read == Address(street="a", zip="1", since=NOON)
    with pytest.raises(ValueError, match="street"):
        form.validated({"zip": "1"})


# --- names that are defined later ----------------------------------------------------------------


def test_a_model_may_name_a_class_that_is_defined_after_it() -> None:
    class Early(BaseModel):
        later: Later | None = None

    class Later(BaseModel):
        at: date = date(2030, 1, 1)

    class Holder(DurableObject):
        early: Early | None = None

    codec = codec_of(Holder)
    early = Early(later=Later())
    state = codec.encode(KEY, Holder(early=early))
    assert same(codec.decode(KEY, state).early, early)


class Waiting(BaseModel):
    later: DefinedLater | None = None  # type: ignore[name-defined]  # noqa: F821


def test_a_name_that_is_never_defined_is_an_error_of_the_first_use() -> None:
    cls = box(Waiting | None, None)
    with pytest.raises(DefinitionError, match="DefinedLater in the annotation isn't defined"):
        codec_of(cls)


# --- with a runtime ------------------------------------------------------------------------------


class Shop(DurableObject):
    last: Customer | Point | Item | None = None
    customers: dict[str, Customer] = attrs.field(factory=dict)
    due: Customer | None = None

    @handler
    def greet(self, name: str, customer: Customer) -> Customer:
        self.customers[name] = customer
        self.last = Customer(name=name)
        return customer

    @handler
    def remind(self, customer: Customer) -> None:
        self.ctx.schedule_alarm("come_back", after=10, payload=customer)

    @alarm
    def come_back(self) -> None:
        assert self.ctx.alarm is not None
        self.due = self.ctx.alarm.payload_as(Customer)

    @handler(readonly=True)
    def state(self) -> tuple[Any, dict[str, Customer], Customer | None]:
        return self.last, self.customers, self.due


@pytest.mark.anyio
async def test_models_are_arguments_replies_state_and_payloads(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with DurableRuntime(path, objects=[Shop], runner=InlineRunner) as runtime:
        shop = runtime.get(Shop, "a")
        assert same(await shop.greet("Bob", customer()), customer())
        await shop.remind(customer())
        await anyio.sleep(20)
    async with DurableRuntime(path, objects=[Shop], runner=InlineRunner) as runtime:
        last, customers, due = await runtime.get(Shop, "a").state()
        assert same(last, Customer(name="Bob"))
        assert same(customers, {"Bob": customer()})
        assert same(due, customer())
