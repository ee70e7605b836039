"""The source of a new object and its test."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from .annotations import MODULES
from .fields import NAMES, Field, check_member
from .first_handler import FirstHandler
from .names import check_class_name, module_name
from .rendering import render_module

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
    """A class to be written.

    Args:
        name: The name of the class.
        fields: Its state; at least one field.
        alarm: The name of its alarm, if it has one.

    Raises:
        CommandError: A name is unusable, or given twice.
    """

    name: str
    fields: Sequence[Field]
    alarm: str | None

    def __attrs_post_init__(self) -> None:
        check_class_name(self.name, NAMES | _TEST_MODULES.keys())
        handlers = [self.handler.name]
        names = [field.name for field in self.fields]
        for name in names:
            check_member("field", name, taken=handlers)
        if self.alarm is not None:
            check_member("alarm", self.alarm, taken=[*handlers, *names])

    @property
    def module(self) -> str:
        """The name of its module."""
        return module_name(self.name)

    @property
    def handler(self) -> FirstHandler:
        """Its handler."""
        return FirstHandler.of(self.fields[0])

    def source(self) -> str:
        """The source of its module.

        Raises:
            CommandError: A line is too long.
        """
        handler = self.handler
        statements = [handler.statement]
        if self.alarm is not None:
            statements.append(f'self.ctx.schedule_alarm("{self.alarm}", after=timedelta(hours=1))')
        if handler.returned:
            statements.append(handler.returned)
        return self._rendered(
            "object.py",
            MODULES,
            declarations="\n".join(f"    {field.declaration}" for field in self.fields),
            parameters=handler.parameters,
            result=handler.result,
            summary=handler.summary,
            statements="\n".join(f"        {each}" for each in statements),
        )

    def test(self, package: str) -> str:
        """The source of its test.

        Args:
            package: The package with the module of the class.

        Raises:
            CommandError: A line is too long.
        """
        return self._rendered(
            "test_object.py",
            _TEST_MODULES,
            package=package,
            module=self.module,
            arguments=self.handler.arguments,
            value=self.fields[0].annotation.example,
        )

    def _rendered(self, template: str, modules: dict[str, str], **values: str) -> str:
        alarm_template = template.replace("object", "object_alarm")
        return render_module(
            *([template] if self.alarm is None else [template, alarm_template]),
            modules=modules,
            name=self.name,
            alarm=self.alarm or "",
            handler=self.handler.name,
            first=self.fields[0].name,
            default=self.fields[0].annotation.default,
            **values,
        )
