from __future__ import annotations

import ast
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_durable import DurableObject, ObjectKey, definition_of
from trio_durable._api.registry import state_codec
from trio_durable.cli.errors import CommandError
from trio_durable.cli.scaffold.annotations import NAMED_TYPES
from trio_durable.cli.scaffold.fields import parse_fields
from trio_durable.cli.scaffold.names import module_name
from trio_durable.cli.scaffold.new_object import NewObject
from trio_durable.cli.scaffold.rendering import MAX_WIDTH

from .support import assert_app_passes_checks, assert_refused, python, run

# Every type, composed in every way, and names that could be in the way of something.
SPREAD: dict[str, list[str]] = {
    "Counter": ["count:int,name:str", "--alarm=expire"],
    "Flag": ["on:bool", "--alarm", "reset"],
    "Item": ["items:list[str]", "--alarm=reset"],
    "Instants": [
        "at:datetime,on:date,clock:time,wait:timedelta,seen:datetime|None",
        "--alarm=wake",
    ],
    "Values": ["price:Decimal,ref:UUID,blob:bytes,ratio:float,anything:Any"],
    "HTTPServer": ["any:Any, routes : dict[str,str]|None"],
    "Containers": [
        ",".join(
            [
                "a:dict[str, list[int]],b:tuple[list[int], int],c:set[str],d:frozenset[UUID]",
                "e:tuple[int, ...],f:int|str,g:dict[int, Any],h:tuple[int],i:dict[UUID, date]",
                "j:list[dict[str, datetime|None]],k:set[tuple[int, str]],n:bytes|None",
                "m:None|list[str]",
            ]
        )
    ],
    # Lines that are too long, and end with every kind of bracket.
    "History": ["history_of_visits:dict[str, list[datetime]],first_and_last:datetime|None"],
    "Visits": ["all_of_the_visits:list[tuple[datetime, str]]", "--alarm=begin_anew"],
    "Days": ["all_of_the_days_that_it_had:tuple[frozenset[datetime], ...]"],
    # Names of parameters in the tests, modules that they import, and soft keywords.
    "Match": ["object_id:str,name:str,key:int,runtime:int,type:str,match:int,pytest:int,turn:int"],
    "Date": ["day:date|None,id:int"],
    "Handle": ["handle:int,cls:str,durable_runtime:str,perform_handler:str,value:str"],
    "A" * 30: [",".join(f"field_{'x' * n}:dict[str, int]" for n in range(20))],
}


def test_an_app_with_new_objects_passes_all_checks(folder: Path) -> None:
    assert run("init", "--name", "app").exit_code == 0
    for name, (fields, *more) in SPREAD.items():
        result = run("new", name, "--fields", fields, *more)
        assert (result.exit_code, result.stderr) == (0, ""), name
    tests = 4 + 2 * len(SPREAD) + sum(bool(more) for _, *more in SPREAD.values())
    assert_app_passes_checks(folder, tests)
    for total in (1, 2):
        ran = python("-m", "app", cwd=folder)
        assert ran.stdout == f"{total} visits today, {total} in all\n", ran.stderr


def test_a_new_object_counts_unless_fields_are_named(folder: Path) -> None:
    app(folder)
    result = run("new", "Cart")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "created shop/cart.py",
        "created tests/test_cart.py",
        "Run its first tests with pytest. Call it where a runtime is open:",
        "  from shop.cart import Cart",
        '  await runtime.get(Cart, "one").add(7)',
    ]
    source = (folder / "shop" / "cart.py").read_text()
    assert source.endswith(
        """
    count: int = 0

    @handler
    def add(self, amount: int) -> int:
        \"""Add an amount, and return the sum. The reply comes once it is on disk.\"""
        self.count += amount
        return self.count
"""
    )


@pytest.mark.parametrize(
    ("field", "signature", "arguments"),
    [
        ("a:int", "add(amount: int) -> int", "7"),
        ("a:Decimal,b:str", "add(amount: Decimal) -> Decimal", 'Decimal("1.50")'),
        ("a:list[int | None]", "append(item: int | None) -> None", "7"),
        ("a:set[str]", "add(item: str) -> None", '"some text"'),
        ("a:dict[str, list[int]]", "put(key: str, value: list[int]) -> None", '"some text", [7]'),
        ("a:bool", "set_a(a: bool) -> None", "True"),
        ("a:list[int] | None", "set_a(a: list[int] | None) -> None", "[7]"),
    ],
)
def test_the_handler_suits_the_first_field(field: str, signature: str, arguments: str) -> None:
    handler = NewObject("Thing", parse_fields(field), None).handler
    assert f"{handler.name}({handler.parameters}) -> {handler.result}" == signature
    assert handler.arguments == arguments


EXPRESSIONS = {name: tp for name, (tp, _, _) in NAMED_TYPES.items()} | {"UTC": UTC}
SCALAR = st.sampled_from(sorted(NAMED_TYPES))
ANNOTATION = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        inner.map("list[{}]".format),
        inner.map("set[{}]".format),
        inner.map("frozenset[{}]".format),
        inner.map("tuple[{}, ...]".format),
        inner.map("{} | None".format),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: f"tuple[{', '.join(each)}]"),
        st.tuples(inner, inner).map(lambda two: f"dict[{two[0]}, {two[1]}]"),
        st.tuples(inner, inner).map(" | ".join),
    ),
    max_leaves=5,
)


# The test has a long line that ends with a tuple of one.
@example(["tuple[list[frozenset[datetime]], ...]"])
@given(st.lists(ANNOTATION, min_size=1, max_size=4))
def test_whatever_is_accepted_makes_a_class_that_can_be_stored(annotations: list[str]) -> None:
    written = ",".join(f"field{n}:{text}" for n, text in enumerate(annotations))
    try:
        fields = parse_fields(written)
        new = NewObject("Thing", fields, "wake")
        source, test = new.source(), new.test("app")
    except CommandError:
        return
    ast.parse(test)
    assert max(map(len, (source + test).splitlines())) <= MAX_WIDTH
    module: dict[str, object] = {"__name__": "app.thing"}
    # Not with the __future__ of this module.
    exec(compile(source, "thing.py", "exec", dont_inherit=True), module)
    cls = module["Thing"]
    assert isinstance(cls, type)
    assert issubclass(cls, DurableObject)
    assert definition_of(cls).handlers.keys() == {new.handler.name}
    assert definition_of(cls).alarms.keys() == {"wake"}
    codec = state_codec(definition_of(cls))
    default = cls()
    values = {field.name: eval(field.annotation.example, EXPRESSIONS) for field in fields}
    changed = cls(**values)
    for key, state in ((ObjectKey("Thing", "1"), default), (ObjectKey("Thing", "2"), changed)):
        assert codec.decode(key, codec.encode(key, state)) == state
    for name in values:
        assert getattr(default, name) != values[name]
        # No two new objects share what can be changed.
        mine, other = getattr(default, name), getattr(cls(), name)
        assert mine == other
        if type(mine).__hash__ is None:
            assert mine is not other


@pytest.mark.parametrize(
    ("class_name", "module"),
    [
        ("Cart", "cart"),
        ("ShoppingCart", "shopping_cart"),
        ("HTTPServer", "http_server"),
        ("Room2", "room2"),
        ("IPv4Address", "i_pv4_address"),
    ],
)
def test_modules_are_named_after_classes(class_name: str, module: str) -> None:
    assert module_name(class_name) == module


# --- where it puts them --------------------------------------------------------------------------


def app(folder: Path, name: str = "shop", *, src: bool = False) -> Path:
    """A folder with an app that this command didn't make."""
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    package = folder / "src" / "shop" if src else folder / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    return package


def made_by(folder: Path, *args: str) -> set[str]:
    before = set(folder.rglob("*.py"))
    result = run("new", "Cart", "--fields=paid:bool", *args)
    assert (result.exit_code, result.stderr) == (0, "")
    made = {str(path.relative_to(folder)) for path in {*folder.rglob("*.py")} - before}
    *created, _, imported, called = result.stdout.splitlines()
    assert {line.removeprefix("created ") for line in created} == made
    assert imported.endswith(".cart import Cart")
    assert called == '  await runtime.get(Cart, "one").set_paid(True)'
    return made


@pytest.mark.parametrize("name", ["shop", "Shop", "another"])
def test_the_package_is_the_project_s_or_the_only_one(folder: Path, name: str) -> None:
    app(folder, name)
    assert made_by(folder) == {"shop/cart.py", "tests/test_cart.py"}
    assert "from shop.cart import Cart\n" in (folder / "tests" / "test_cart.py").read_text()


def test_the_package_may_be_in_src(folder: Path) -> None:
    app(folder, src=True)
    assert made_by(folder) == {"src/shop/cart.py", "tests/test_cart.py"}
    assert "from shop.cart import Cart\n" in (folder / "tests" / "test_cart.py").read_text()


def test_of_several_packages_it_is_the_project_s(folder: Path) -> None:
    app(folder)
    for other in ("tools", "tests"):
        (folder / other).mkdir()
        (folder / other / "__init__.py").touch()
    assert made_by(folder) == {"shop/cart.py", "tests/test_cart.py"}


@pytest.mark.parametrize("args", [(), ("--package", "shop")])
def test_of_two_of_one_name_it_is_the_one_beside_the_project(
    folder: Path, args: tuple[str, ...]
) -> None:
    app(folder)
    app(folder, src=True)
    assert made_by(folder, *args) == {"shop/cart.py", "tests/test_cart.py"}


def test_the_package_can_be_named(folder: Path) -> None:
    inner = app(folder, src=True) / "objects"
    inner.mkdir()
    (inner / "__init__.py").touch()
    (folder / "pyproject.toml").unlink()
    made = made_by(folder, "--package", "shop.objects")
    assert made == {"src/shop/objects/cart.py", "tests/test_cart.py"}
    test = (folder / "tests" / "test_cart.py").read_text()
    assert "from shop.objects.cart import Cart\n" in test


@pytest.mark.parametrize(
    ("pyproject", "says"),
    [
        (None, "there is no pyproject.toml here; change to the folder of your app"),
        ("[project", "pyproject.toml: not TOML: "),
        (b"\xff", "pyproject.toml: not UTF-8 text; fix it, or use --package"),
        ("project = 1", "can't tell which package is the app's (found: one, two)"),
        ("[project]\nname = 1", "can't tell which"),
        ("[project]\nname = 'three'", "can't tell which"),
        ("", "name it with --package"),
    ],
)
def test_no_package_is_found(folder: Path, pyproject: str | bytes | None, says: str) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    if pyproject is not None:
        data = pyproject.encode() if isinstance(pyproject, str) else pyproject
        (folder / "pyproject.toml").write_bytes(data)
    assert_refused(folder, says, "new", "Cart", "--fields=paid:bool")


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("taken", ["shop/cart.py", "tests/test_cart.py"])
def test_nothing_is_replaced(folder: Path, taken: str) -> None:
    app(folder)
    (folder / taken).parent.mkdir(exist_ok=True)
    (folder / taken).write_text("mine")
    says = f"{taken}: already there; move it away"
    assert_refused(folder, says, "new", "Cart", "--fields=paid:bool")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("", "field '': write it as name:type, such as count:int"),
        ("count", "field 'count': write it as name:type"),
        ("count:int,", "field '': write it as name:type"),
        (":int", "field ':int': write it as name:type"),
        ("2nd:int", "field '2nd': not a name; use a letter, then letters, digits"),
        ("_count:int", "field '_count': not a name"),
        ("a b:int", "field 'a b': not a name"),
        ("größe:int", "not a name"),
        ("class:int", "field 'class': a keyword of Python"),
        ("None:int", "a keyword"),
        ("l:int", "field 'l': reads like a digit"),
        ("ctx:int", "field 'ctx': the name is reserved"),
        ("after_load:int", "reserved"),
        ("handle_alarm:int", "reserved"),
        ("self:int", "reserved"),
        ("int:int", "field 'int': would hide int from the rest of the class"),
        ("date:date", "field 'date': would hide date"),
        ("handler:int", "would hide handler"),
        ("attrs:int", "would hide attrs"),
        ("add:int", "field 'add': a field or a handler has this name"),
        ("count:str,set_count:int", "field 'set_count': a field or a handler has this name"),
        ("count:int,name:str,count:int", "field 'count': given twice"),
        ("x" * 41 + ":int", "longer than 40 characters"),
        ("count:", "field count: '' is not a type; a field may be of int, float"),
        ("count:integer", "'integer' has an unknown type in it, integer"),
        ("count:list", "'list' doesn't say what its list contains"),
        ("count:dict[str]", "has 1 type in its dict"),
        ("count:list[int,str]", "has 2 types in its list"),
        ("count:list[]", "is not a type"),
        ("count:tuple[()]", "has 0 types in its tuple"),
        ("count:tuple[..., int]", "is not a type"),
        ("count:list[int", "is not a type"),
        ("count:int]", "is not a type"),
        ("count:None", "is not a type"),
        ("count:None|None", "has the same member twice"),
        ("count:int=3", "is not a type"),
        ("count:int[str]", "is not a type"),
        ("count:set[list[int]]", "has list[int] in its set, which can't be hashed"),
        ("count:dict[dict[str, int], str]", "can't be hashed"),
        ("count:set[Any]", "can't be hashed"),
        ("count:dict[float, int]", "can't be the key of a dict in JSON"),
        ("count:int|Any|UUID", "Any swallows UUID, the other members of the union"),
        ("count:int|str|int", "has the same member twice in its union"),
        ("count:int|float|None", "has int next to float"),
        ("count:list[int]|list[str]", "list and list are written alike"),
        ("count:'int'", "is not a type"),
        ("count:'\\d'", "is not a type"),
        ("count:1or int", "is not a type"),
        ("count:__import__('os').abort()", "is not a type"),
        ("count:[x for x in list]", "is not a type"),
        ("count:" + "list[" * 20 + "int" + "]" * 20, "is longer than 80 characters"),
        ("count:" + "list[" * 12 + "int" + "]" * 12, "makes a line of more than 88 characters"),
    ],
)
def test_bad_fields(folder: Path, fields: str, says: str, recwarn: pytest.WarningsRecorder) -> None:
    app(folder)
    assert_refused(folder, says, "new", "Cart", "--fields", fields)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["cart", "--fields=a:int"], "class 'cart': classes are named LikeThis; try Cart"),
        (["my_cart", "--fields=a:int"], "try MyCart"),
        (["My Cart", "--fields=a:int"], "class 'My Cart': not a name"),
        (["", "--fields=a:int"], "class '': not a name"),
        (["../Cart", "--fields=a:int"], "not a name"),
        (["True", "--fields=a:int"], "a keyword of Python"),
        (["Class", "--fields=a:int"], "its module would be class.py, which is a keyword"),
        (["TestRun", "--fields=a:int"], "class 'TestRun': pytest would collect it as tests"),
        (["Tests", "--fields=a:int"], "pytest would collect it as tests"),
        (["Testimony", "--fields=a:int"], "pytest would collect it as tests"),
        (["DurableObject", "--fields=a:int"], "taken by Python or this library"),
        (["DurableRuntime", "--fields=a:int"], "taken"),
        (["Decimal", "--fields=a:int"], "taken"),
        (["Exception", "--fields=a:int"], "taken"),
        (["C" * 41, "--fields=a:int"], "longer than 40 characters"),
        (["--fields=a:int"], "Missing argument 'NAME'"),
        (["Cart", "Basket", "--fields=a:int"], "unexpected extra argument"),
        (["Cart", "--fields=a:int", "--alarm=ctx"], "alarm 'ctx': the name is reserved"),
        (["Cart", "--fields=a:int", "--alarm=a"], "alarm 'a': a field or a handler has this name"),
        (["Cart", "--fields=a:int", "--alarm=add"], "a field or a handler has this name"),
        (["Cart", "--fields=a:str", "--alarm=set_a"], "a field or a handler has this name"),
        (["Cart", "--fields=a:int", "--alarm=2nd"], "alarm '2nd': not a name"),
        (["Cart", "--fields=a:int", "--alarm=timedelta"], "would hide timedelta"),
        (["Cart", "--fields=a:int", "--package=nowhere"], "neither nowhere/__init__.py nor"),
        (["Cart", "--fields=a:int", "--package=shop.inner"], "neither shop/inner/__init__.py"),
        (["Cart", "--fields=a:int", "--package=../shop"], "package '': not a name"),
        (["Cart", "--fields=a:int", "--package=shop."], "package '': not a name"),
        (["Cart", "--fields=a:int", "--package="], "package '': not a name"),
    ],
)
def test_bad_input(folder: Path, args: list[str], says: str) -> None:
    app(folder)
    assert_refused(folder, says, "new", *args)
