"""The tree of errors: as drawn, picklable, speaking, exported."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import traceback

import attrs
import pytest

import trio_durable
from trio_durable import _errors
from trio_durable._errors import DurableError
from trio_durable._keys import ObjectKey

KEY = ObjectKey("Cart", "user-123")
OTHER = ObjectKey("Stock", "apples")

SAMPLES: dict[str, object] = {
    "action": "load",
    "activity": "busy with add",
    "cls": "Cart",
    "crashes": 10,
    "digest": "b69ac1d8",
    "expected": 41,
    "field": "total",
    "handler": "add",
    "key": KEY,
    "host": "db-1",
    "json": '{"total":3}',
    "known": ("add", "remove"),
    "limit": 1_000,
    "location": "/data/app.db",
    "mailbox_size": 16,
    "may_have_run": True,
    "member": "total",
    "name": "remind",
    "message_id": "0123456789abcdef",
    "object_id": "'user-123'",
    "once_key": "order-7",
    "open_here": 2,
    "path": (KEY, OTHER, KEY),
    "pid": 4711,
    "place": "$.total[3]",
    "problem": "it is broken",
    "reply": "[1]",
    "remedy": "stop its process first",
    "revision": 42,
    "schema": 3,
    "size": 2_000,
    "stored_schema": 4,
    "target": "/data/new.db",
    "tenant": "acme",
    "timeout": 2.5,
    "type_name": "Cart",
    "unknown": ("0007_future",),
}
"""A value for every field that an error has."""

SHOWN: dict[str, str] = {
    "key": "Cart('user-123')",
    "known": "add, remove",
    "limit": "1,000",
    "may_have_run": "a turn that has begun still runs to its end",
    "path": "Cart('user-123') → Stock('apples') → Cart('user-123')",
    "size": "2,000",
    "timeout": "2.5 s",
    "unknown": "0007_future",
}
"""How a message shows it, where that isn't simply ``str``."""

SILENT = {
    # The message of the subclass speaks of something else than its base's.
    ("StorageInUse", "problem"),
    ("SchemaTooNew", "problem"),
    ("StateTooLarge", "field"),
    ("StateTooLarge", "problem"),
    ("StateTooNew", "field"),
    ("StateTooNew", "place"),
    ("StateTooNew", "problem"),
    ("StaleObject", "action"),
    ("StaleObject", "problem"),
    ("StateConflict", "digest"),
    ("StateConflict", "json"),
    ("CallFailed", "key"),
    ("CallFailed", "handler"),
}
"""Fields that the message leaves out."""


def classes() -> list[type[DurableError]]:
    found: list[type[DurableError]] = []

    def visit(cls: type[DurableError]) -> None:
        if cls not in found:
            found.append(cls)
            for sub in cls.__subclasses__():
                visit(sub)

    visit(DurableError)
    return [cls for cls in found if cls.__module__.partition(".")[0] == "trio_durable"]


def fields(cls: type[DurableError]) -> list[str]:
    """The fields that an error is made of."""
    found = attrs.fields(cls) if attrs.has(cls) else ()
    return [field.name for field in found if field.init]


def sample(cls: type[DurableError]) -> DurableError:
    return cls(*(SAMPLES[name] for name in fields(cls)))


every_class = pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
concrete_classes = pytest.mark.parametrize(
    "cls",
    [cls for cls in classes() if "_message" in vars(cls) and cls is not DurableError],
    ids=lambda cls: cls.__name__,
)


def drawn_tree() -> dict[str, tuple[str | None, int]]:
    """Each name in the drawing with its parent and its line, read from the drawing's columns."""
    tree: dict[str, tuple[str | None, int]] = {}
    above: list[tuple[int, str]] = []
    for number, line in enumerate(inspect.cleandoc(_errors.__doc__ or "").splitlines()):
        match = re.match(r"((?:[ │]*(?:├──|└──) )| {4}|)([A-Z]\w+)(?:$| {2,})", line)
        if not match or (not tree and match[2] != "DurableError"):
            continue
        column = match.start(2)
        while above and above[-1][0] >= column:
            above.pop()
        assert match[2] not in tree, f"{match[2]} is drawn twice"
        tree[match[2]] = (above[-1][1] if above else None, number)
        above.append((column, match[2]))
    return tree


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {
        cls.__name__: next((b.__name__ for b in cls.__bases__ if issubclass(b, DurableError)), None)
        for cls in classes()
    }
    assert {name: parent for name, (parent, _) in drawn_tree().items()} == real


def test_the_drawing_draws_lines_to_parents() -> None:
    lines = inspect.cleandoc(_errors.__doc__ or "").splitlines()
    tree = drawn_tree()
    for name, (parent, number) in tree.items():
        if parent is None:
            continue
        column = lines[number].index(name) - 4
        assert lines[number][column] in "├└"
        for between in range(tree[parent][1] + 1, number):
            assert lines[between][column] in "├│", f"the line from {parent} to {name} is broken"


def test_every_error_is_exported() -> None:
    for cls in classes():
        assert getattr(trio_durable, cls.__name__) is cls
        assert cls.__name__ in trio_durable.__all__


def test_what_is_exported_exists_once() -> None:
    assert len(set(trio_durable.__all__)) == len(trio_durable.__all__)
    for name in trio_durable.__all__:
        assert hasattr(trio_durable, name)
        assert not name.startswith("_")


@every_class
def test_a_traceback_names_an_error_as_it_is_imported(cls: type[DurableError]) -> None:
    [last] = traceback.format_exception_only(sample(cls))
    assert last.rstrip().partition(": ")[0] == f"trio_durable.{cls.__name__}"


@every_class
def test_errors_carry_their_data(cls: type[DurableError]) -> None:
    error = sample(cls)
    for name in fields(cls):
        assert getattr(error, name) == SAMPLES[name]


@every_class
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling(cls: type[DurableError], protocol: int) -> None:
    error = sample(cls)
    error.add_note("in the handler add")
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is cls
    assert back.args == error.args
    assert str(back) == str(error)
    assert back.__notes__ == ["in the handler add"]
    for name in fields(cls):
        assert getattr(back, name) == getattr(error, name)


@every_class
def test_errors_survive_copying(cls: type[DurableError]) -> None:
    error = sample(cls)
    for back in (copy.copy(error), copy.deepcopy(error)):
        assert type(back) is cls
        assert str(back) == str(error)
        assert [getattr(back, name) for name in fields(cls)] == [
            getattr(error, name) for name in fields(cls)
        ]


@every_class
def test_errors_take_their_fields_by_name(cls: type[DurableError]) -> None:
    error = cls(**{name: SAMPLES[name] for name in fields(cls)})
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == str(sample(cls))


@concrete_classes
def test_the_message_names_what_it_is_about(cls: type[DurableError]) -> None:
    message = str(sample(cls))
    for name in fields(cls):
        if (cls.__name__, name) not in SILENT:
            shown = SHOWN.get(name, str(SAMPLES[name]))
            assert shown in message, f"{name} is missing in: {message}"


@concrete_classes
def test_the_message_is_one_line_without_a_full_stop(cls: type[DurableError]) -> None:
    message = str(sample(cls))
    assert message == message.strip()
    assert "\n" not in message
    assert not message.endswith((".", ";", ",", ":"))


@every_class
def test_what_an_error_looks_like(cls: type[DurableError]) -> None:
    error = sample(cls)
    assert repr(error) == f"{cls.__name__}({str(error)!r})"
    assert str(error) == error._message()


ADVICE = {
    "UnknownObjectType": "import the module",
    "UnknownHandler": "marked with @handler",
    "NotOnHandle": "runtime.get_state()",
    "InvalidObjectId": "1 to 512 bytes",
    "InvalidTenant": "lowercase letters",
    "CallTimeout": "before you call again",
    "MailboxFull": "raise mailbox_size",
    "Overloaded": "call again later",
    "OwnerLost": "check its effect before you call again",
    "CallCycle": "plain method",
    "ObjectNotRunning": "ensure_started()",
    "StateConflict": "expected=(error.revision, error.digest)",
    "ActivationFailed": "the next call activates it again",
    "HandlerCancelled": "no other code cancels",
    "TurnTimeout": "raise the limit",
    "TurnInterrupted": "before you call again",
    "TurnWontEnd": "let the cancellation through",
    "CommitRefused": "self.ctx.send()",
    "OnceKeyReused": "repeat a call with the same arguments",
    "OnceReplyUnreadable": "read the reply attribute",
    "OnceMessageDied": "call retry_message('0123456789abcdef')",
    "ReadonlyViolation": "readonly=True",
    "AlarmSuperseded": "the alarm's new setting applies",
    "AlarmCrashed": "call retry_alarm(), or cancel_alarm()",
    "AlarmUnhandled": "cancel it if its method is gone for good",
    "ReplyError": "Return plain data",
    "ReplyDecodeError": "deploy the same release",
    "RemoteError": "import the class",
    "StateTooLarge": "max_state_size",
    "StateDecodeError": "fix the class (or the row)",
    "StateTooNew": "upgrade the code",
    "StorageInUse": "stop its process first",
    "StorageMoved": "open that storage",
    "SchemaTooNew": "upgrade",
    "PersistenceError": "starts from the stored state",
    "StaleObject": "repeat the call",
    "NoRuntime": "runtime.get(Type, object_id)",
    "RuntimeClosed": "async with DurableRuntime",
    "WrongEventLoop": "anyio.from_thread.run()",
    "NotInTurn": "inside a handler",
    "WatchInTurn": "watch it in a task outside of turns",
    "ForeignHandle": "call runtime.get() where they arrive",
    "TenantDropped": "wait until drop_tenant() is done",
}
"""What the last part of a message says."""

WHAT_HAPPENED = {
    "DefinitionError": "Cart.total: ",
    "UnknownObjectType": "no durable object class is known as 'Cart'",
    "UnknownHandler": "Cart has no handler 'add'",
    "NotOnHandle": "this is a handle of Cart('user-123'), which has handlers only (it has: add, ",
    "InvalidObjectId": "'user-123' can't be the id of a Cart: ",
    "InvalidTenant": "acme can't be the name of a tenant: ",
    "InvalidAlarm": "alarm remind of Cart('user-123'): ",
    "InvalidMessage": "message add to Cart('user-123'): ",
    "InvalidOnceKey": "once-key of add on Cart('user-123'): ",
    "ArgumentError": "call of add on Cart('user-123'): ",
    "CallTimeout": "add on Cart('user-123') gave no reply within 2.5 s",
    "MailboxFull": "add on Cart('user-123') found the mailbox full, with 16 calls queued",
    "Overloaded": "add on Cart('user-123') is unlikely to finish within 2.5 s",
    "CallCycle": "add on Cart('user-123') would wait for itself",
    "OwnerLost": "add on Cart('user-123') was cut off: ",
    "ObjectNotRunning": "add on Cart('user-123'): the object is not running",
    "StateConflict": "add on Cart('user-123') expected revision 41, but revision 42 is stored: ",
    "ActivationFailed": "add on Cart('user-123') raised it is broken, so the object could not ",
    "HandlerCancelled": "add on Cart('user-123') was cancelled from within and rolled back",
    "TurnTimeout": "add on Cart('user-123') exceeded its limit of ",
    "TurnInterrupted": "add on Cart('user-123') was interrupted by runtime.stop(interrupt=True)",
    "TurnWontEnd": "add on Cart('user-123') still runs 2.5 s after runtime.stop(interrupt=True)",
    "CommitRefused": "add on Cart('user-123') handles a message or has a once-key, so ctx.",
    "OnceKeyReused": "add on Cart('user-123') has the once-key 'order-7', which was used for ",
    "OnceReplyUnreadable": "add on Cart('user-123') has run under the once-key 'order-7', but its ",
    "OnceMessageDied": "add on Cart('user-123') was sent as a message under the once-key 'order-7'",
    "ReadonlyViolation": "add on Cart('user-123') is marked readonly but ",
    "AlarmSuperseded": "add on Cart('user-123') handled an alarm that was set again or cancelled",
    "AlarmCrashed": "add on Cart('user-123') is an alarm, and the process died in each of its ",
    "AlarmUnhandled": "recurring alarm add of Cart('user-123') has no handler in this release",
    "ReplyError": "add on Cart('user-123') returned what can't be copied: ",
    "ReplyDecodeError": "add on Cart('user-123') has run, but its reply can't be read here: ",
    "RemoteError": "Cart: it is broken (raised in another process",
    "StateEncodeError": "state of Cart('user-123') can't be stored: field total: ",
    "StateTooLarge": "state of Cart('user-123') takes 2,000 bytes of JSON, over the limit of 1,000",
    "StateDecodeError": "stored state of Cart('user-123') can't be read: field total at $.total",
    "StateTooNew": "stored state of Cart('user-123') has schema 4, and this code knows it up to ",
    "StorageUnavailable": "can't use /data/app.db: ",
    "StorageInUse": "/data/app.db is in use by a runtime of process 4711",
    "StorageMoved": "/data/app.db was it is broken to /data/new.db",
    "SchemaTooNew": "/data/app.db was migrated by a newer release of trio_durable",
    "PersistenceError": "could not load Cart('user-123'): ",
    "StaleObject": "Cart('user-123') was written by another owner since revision 42, or the ",
    "NoRuntime": "2 runtimes are open in this event loop and none is current here",
    "RuntimeClosed": "it is broken; calls are served inside",
    "WrongEventLoop": "it is broken; a DurableRuntime serves the event loop it was entered in",
    "ForeignHandle": "the runtime of a pickled handle of Cart('user-123') isn't open in this ",
    "TenantDropped": "tenant acme is being dropped",
    "NotInTurn": "it is broken; use self.ctx",
    "WatchInTurn": "a watch of Cart('user-123') was opened in a turn",
}
"""How a message begins, with `SAMPLES`."""

FROM_THE_SOURCE = {
    "DefinitionError",
    "ArgumentError",
    "InvalidAlarm",
    "InvalidMessage",
    "InvalidOnceKey",
    "StateEncodeError",
    "StorageUnavailable",
}
"""Their advice is part of ``problem``, because it depends on where they are raised."""


@pytest.mark.parametrize(("name", "advice"), ADVICE.items())
def test_the_message_ends_with_what_to_do(name: str, advice: str) -> None:
    message = str(sample(getattr(trio_durable, name)))
    last = re.split(r"; |\. ", message)[-1]
    assert advice in last


def test_a_call_that_did_not_run_needs_no_check() -> None:
    late = trio_durable.CallTimeout(KEY, "add", 2.5, "busy with pay", False)
    full = trio_durable.MailboxFull(KEY, "add", 2.5, "busy with pay", 16)
    for error in (late, full):
        for other in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert not other.may_have_run
            assert "it did not run: " in str(other)
            assert "check" not in str(other)
    assert trio_durable.CallTimeout(KEY, "add", 2.5, "busy with pay").may_have_run


@pytest.mark.parametrize(("name", "happened"), WHAT_HAPPENED.items())
def test_the_message_begins_with_what_happened(name: str, happened: str) -> None:
    assert str(sample(getattr(trio_durable, name))).startswith(happened)


def test_every_error_says_what_happened_and_what_to_do() -> None:
    speaking = {cls.__name__ for cls in classes() if "_message" in vars(cls)} - {"DurableError"}
    assert speaking == WHAT_HAPPENED.keys() == ADVICE.keys() | FROM_THE_SOURCE


def test_a_remote_error_without_a_text_is_its_class() -> None:
    assert str(trio_durable.RemoteError("KeyboardInterrupt", "")).startswith("KeyboardInterrupt (")


def test_errors_whose_text_comes_from_where_they_are_raised() -> None:
    for name in FROM_THE_SOURCE:
        assert str(sample(getattr(trio_durable, name))).endswith(str(SAMPLES["problem"]))


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("DefinitionError", TypeError),
        ("UnknownObjectType", LookupError),
        ("UnknownHandler", AttributeError),
        ("NotOnHandle", AttributeError),
        ("InvalidObjectId", ValueError),
        ("InvalidTenant", ValueError),
        ("ArgumentError", TypeError),
        ("CallTimeout", TimeoutError),
        ("MailboxFull", TimeoutError),
        ("StateEncodeError", ValueError),
        ("StateTooLarge", ValueError),
        ("StateDecodeError", ValueError),
        ("UsageError", RuntimeError),
        ("NoRuntime", RuntimeError),
    ],
)
def test_errors_are_also_what_python_would_raise(name: str, base: type[Exception]) -> None:
    assert issubclass(getattr(trio_durable, name), base)


def test_only_timeouts_are_os_errors() -> None:
    # TimeoutError is one; anything else caught by `except OSError` would be an accident.
    timeouts = {cls.__name__ for cls in classes() if issubclass(cls, OSError)}
    assert timeouts == {"CallTimeout", "MailboxFull", "TurnTimeout"}


def test_without_a_runtime_the_message_says_how_to_open_one() -> None:
    assert "no DurableRuntime is open" in str(trio_durable.NoRuntime(0))
    assert "2 runtimes are open" in str(trio_durable.NoRuntime(2))


def test_an_unknown_holder_is_another_process() -> None:
    error = trio_durable.StorageInUse("/data/app.db", "", None)
    assert "another process" in str(error)
    assert "None" not in str(error)


def test_nothing_known() -> None:
    assert "(known: none)" in str(trio_durable.UnknownObjectType("Cart", ()))
    assert "(it has: none)" in str(trio_durable.UnknownHandler("Cart", "add", ()))
    assert "(it has: none)" in str(trio_durable.NotOnHandle("Cart", "n", (), KEY, "n is a field"))


def test_a_definition_error_without_member_names_the_class_only() -> None:
    assert str(trio_durable.DefinitionError("Cart", "", "is abstract")) == "Cart: is abstract"
    error = trio_durable.DefinitionError("Cart", "total", "is wrong")
    assert str(error) == "Cart.total: is wrong"


@every_class
def test_a_copy_keeps_the_cause(cls: type[DurableError]) -> None:
    error = sample(cls)
    assert copy.copy(error).__cause__ is None
    error.__cause__ = ZeroDivisionError("oops")
    error.add_note("in the handler add")
    back = copy.copy(error)
    assert back.__cause__ is error.__cause__
    assert (back.args, back.__notes__) == (error.args, error.__notes__)


def test_causes_are_not_part_of_the_data() -> None:
    cause = ZeroDivisionError("oops")
    error = sample(trio_durable.ActivationFailed)
    error.__cause__ = cause
    assert "oops" not in str(error)
    assert isinstance(pickle.loads(pickle.dumps(error)), trio_durable.ActivationFailed)
