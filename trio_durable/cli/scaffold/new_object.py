"""The code of a new object and its test: a first page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

import attrs

from ..errors import CommandError
from .annotations import MODULES
from .fields import NAMES, Field, check_member
from .imports import imports_of
from .line_breaks import laid_out
from .names import check_class_name, module_name

_CLASS = Template('''class $name(DurableObject):
    """Say here what one of them stands for, and what its id is."""

    # The state: stored with every change. A new object begins like this.
$fields

    @handler
    def update(self, $parameters) -> None:
        """Change the state. The caller hears of it when it is on disk."""
$assignments

    @handler(readonly=True)
    def $getter(self) -> $type:
        """Look at the state, which can't be changed in here."""
        return self.$first
''')

_ALARM = Template('''
    @alarm
    def $alarm(self) -> None:
        """Begin anew, an hour after the last update."""
        self.$first = $default
''')

_TESTS = Template("""async def test_update() -> None:
    turn = await perform_handler($name(), "update", $values)
    assert turn.state == $name($named_values)


async def test_what_was_updated_is_stored(durable_runtime: DurableRuntime) -> None:
    handle = durable_runtime.get($name, "one")
    await handle.update($values)
    assert await handle.$getter() $equals $value
    await assert_persisted(durable_runtime, $name, "one", $named_values)
""")

_ALARM_TEST = Template("""

async def test_$alarm(durable_runtime: DurableRuntime) -> None:
    handle = durable_runtime.get($name, "one")
    await handle.update($values)
    await assert_alarm_scheduled(durable_runtime, $name, "one", "$alarm")
    await fire_alarm(durable_runtime, $name, "one", "$alarm")
    await assert_persisted(durable_runtime, $name, "one", $first=$default)
""")

_TEST_MODULES = {
    **MODULES,
    "DurableRuntime": "trio_durable",
    "assert_alarm_scheduled": "trio_durable.testing",
    "assert_persisted": "trio_durable.testing",
    "fire_alarm": "trio_durable.testing",
    "perform_handler": "trio_durable.testing",
    "pytest": "",
}


@attrs.frozen
class NewObject:
    """A class that is to be written.

    Args:
        name: The name of the class.
        fields: Its state; one field at least.
        alarm: The name of an alarm that it shall have, if any.

    Raises:
        Refusal: A name can't be what it shall be, or two are the same.
    """

    name: str
    fields: Sequence[Field]
    alarm: str | None

    def __attrs_post_init__(self) -> None:
        check_class_name(self.name, NAMES | _TEST_MODULES.keys())
        members = {field.name for field in self.fields}
        for method in ("update", self._getter):
            if method in members:
                raise CommandError(f"field {method!r}: a handler has this name; choose another one")
        if self.alarm is not None:
            check_member("alarm", self.alarm)
            if self.alarm in {"update", self._getter, *members}:
                raise CommandError(
                    f"alarm {self.alarm!r}: a field or a handler has this name; choose another one"
                )

    @property
    def module(self) -> str:
        """The name of its module."""
        return module_name(self.name)

    @property
    def _getter(self) -> str:
        return f"get_{self.fields[0].name}"

    def source(self) -> str:
        """The text of its module.

        Raises:
            Refusal: A line would be too long.
        """
        assignments = [f"        self.{field.name} = {field.name}" for field in self.fields]
        if self.alarm is not None:
            assignments.append(
                f'        self.ctx.schedule_alarm("{self.alarm}", after=timedelta(hours=1))'
            )
        code = self._filled(
            _CLASS,
            fields="\n".join(f"    {field.declaration}" for field in self.fields),
            parameters=", ".join(f"{field.name}: {field.annotation.text}" for field in self.fields),
            assignments="\n".join(assignments),
        )
        if self.alarm is not None:
            code += self._filled(_ALARM)
        imports = imports_of(code, MODULES)
        return laid_out(
            self.name, f'"""The durable object {self.name}."""\n\n{imports}\n\n\n{code}'
        )

    def test(self, package: str) -> str:
        """The text of its test's module.

        Args:
            package: What has the module of the class, as it is imported.

        Raises:
            Refusal: A line would be too long.
        """
        examples = [field.annotation.example for field in self.fields]
        code = "pytestmark = pytest.mark.anyio\n\n\n" + "".join(
            self._filled(
                template,
                values=", ".join(examples),
                named_values=", ".join(
                    f"{field.name}={field.annotation.example}" for field in self.fields
                ),
                equals="is" if examples[0] == "True" else "==",
                value=examples[0],
            )
            for template in ([_TESTS] if self.alarm is None else [_TESTS, _ALARM_TEST])
        )
        imports = imports_of(code, _TEST_MODULES)
        own = f"from {package}.{self.module} import {self.name}"
        return laid_out(self.name, f'"""Tests of {self.name}."""\n\n{imports}\n\n{own}\n\n{code}')

    def _filled(self, template: Template, **values: str) -> str:
        first = self.fields[0]
        return template.substitute(
            values,
            name=self.name,
            alarm=self.alarm or "",
            getter=self._getter,
            first=first.name,
            type=first.annotation.text,
            default=first.annotation.default,
        )
