"""JSON for attrs classes and dataclasses.

cattrs generates the functions that read an instance's fields and build an instance, over the hooks
of the fields' types.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import attrs
import orjson

from .errors import Unfit, as_unfit, expected
from .scalars import SCALARS, Hook, HooksFor
from .text import short_repr


def class_hooks(cls: Any, hooks_for: HooksFor) -> tuple[Hook, Hook]:
    """Hooks for an attrs class or a dataclass."""
    hints = get_type_hints(cls, include_extras=True)
    fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    types_ = {field.name: hints[field.name] for field in fields}
    write_fields, read_fields = field_functions(cls, types_, hooks_for)
    constrained = is_constrained(cls)
    scalars = {name: SCALARS[tp] for name, tp in types_.items() if _is_scalar(tp)}
    writers = {name: write for name, (write, _) in scalars.items()}
    readers = {name: read for name, (_, read) in scalars.items()}

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise expected(cls.__qualname__, value)
        undeclared = getattr(value, "__dict__", {}).keys() - types_.keys()
        if undeclared:
            raise Unfit("it is not a declared field, so it would be lost").within(
                f".{min(undeclared)}"
            )
        try:
            written = write_fields(value)
            if constrained:
                check_reads_back(written, write_fields, lambda data: read_fields(data, cls))
        except RecursionError:
            raise
        except Exception as error:  # noqa: BLE001  # validators and properties may raise anything
            raise _located(error, writers, lambda name: getattr(value, name)) from None
        return written

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise expected(f"an object with the fields of {cls.__qualname__}", value)
        try:
            return read_fields(value, cls)
        except Exception as error:  # noqa: BLE001  # validators and converters may raise anything
            raise _located(error, readers, value.__getitem__) from None

    return write, read


def _located(error: Exception, scalars: Mapping[str, Hook], get: Callable[[str], Any]) -> Unfit:
    """``error`` as an `Unfit`, with the field that caused it in its path.

    The hooks of scalars are called again, with the values that ``get`` returns. For other fields,
    `field_functions` has already put the field in the path; calling their hooks again at each level
    would take exponential time.
    """
    unfit = as_unfit(error)
    if unfit.located:
        unfit.located = False
        return unfit
    for name, hook in scalars.items():
        try:
            hook(get(name))
        except KeyError:
            continue
        except Exception as cause:  # noqa: BLE001  # hooks may raise anything
            return as_unfit(cause).within(f".{name}")
    return unfit


def is_constrained(cls: Any) -> bool:
    """True if creating a ``cls`` does more than store its fields' values."""
    return (
        hasattr(cls, "__post_init__")
        or hasattr(cls, "__attrs_post_init__")
        or hasattr(cls, "__attrs_pre_init__")
        or (
            attrs.has(cls)
            and any(field.validator or field.converter for field in attrs.fields(cls))
        )
    )


def check_reads_back(written: dict[str, Any], write: Hook, read: Hook) -> None:
    """Check that validators and converters accept the written values unchanged when read.

    Without this, they would first see a change in place, such as an append, when the state is next
    read. The JSON is compared, because a class need not define equality.

    Raises:
        Unfit: A field would change.
    """
    # Through bytes, so that the instance that is read shares nothing with the written data.
    again = write(read(orjson.loads(orjson.dumps(written))))
    for name, was in written.items():
        if orjson.dumps(was) != orjson.dumps(again[name]):
            raise Unfit(
                f"{short_repr(was)} would be read back as {short_repr(again[name])}"
            ).within(f".{name}")


def field_functions(
    cls: Any, types_: Mapping[str, Any], hooks_for: HooksFor
) -> tuple[Hook, Callable[[Any, Any], Any]]:
    """The functions of cattrs that read a class's fields and build an instance, over our hooks."""

    def locating(name: str, hook: Hook) -> Hook:
        def locate(value: Any) -> Any:
            try:
                return hook(value)
            except RecursionError:
                raise
            except Exception as error:  # noqa: BLE001  # hooks may raise anything
                unfit = as_unfit(error).within(f".{name}")
                unfit.located = True
                raise unfit from None

        return locate

    def ignoring_type(read: Hook) -> Callable[[Any, Any], Any]:
        return lambda value, _: read(value)

    # Not at the top: a program that only imports the library doesn't wait for cattrs.
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

    converter = Converter()  # an argument of cattrs' generators; all hooks are ours
    overrides: dict[str, Any] = {}
    for name, tp in types_.items():
        write, read = hooks_for(tp)
        if not _is_scalar(tp):
            write, read = locating(name, write), locating(name, read)
        overrides[name] = override(
            unstruct_hook=write,
            struct_hook=ignoring_type(read),
            omit=False,
        )
    return (
        make_dict_unstructure_fn(cls, converter, _cattrs_include_init_false=True, **overrides),
        make_dict_structure_fn(
            cls,
            converter,
            _cattrs_include_init_false=True,
            _cattrs_forbid_extra_keys=False,
            _cattrs_detailed_validation=False,
            **overrides,
        ),
    )


def _is_scalar(tp: Any) -> bool:
    try:
        return tp in SCALARS
    except TypeError:  # unhashable
        return False
