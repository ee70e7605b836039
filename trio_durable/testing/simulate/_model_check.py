"""The check of a step: each object that it has touched agrees with its model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..._api.durable_object import DurableObject, ObjectDefinition
from ..._keys import ObjectKey
from ...storage import StoredObject
from ._contents import Contents
from ._disk import Disk
from ._models import ModelClasses, Models
from ._operations import Operation
from ._report import SimulationReport


class ModelCheck:
    """The models of a story, and the rows that they agreed with after the last step.

    Args:
        classes: The models, by class.
        definitions: The definitions of the classes.
        disk: The disk.
        contents: Its contents, decoded.
        report: The report in which comparisons are counted.
    """

    def __init__(
        self,
        classes: ModelClasses,
        definitions: Mapping[type[DurableObject], ObjectDefinition],
        disk: Disk,
        contents: Contents,
        report: SimulationReport,
    ) -> None:
        self._classes = classes
        self._definitions = definitions
        self._disk = disk
        self._contents = contents
        self._report = report
        self._models = Models(classes)
        self._rows: dict[ObjectKey, StoredObject | None] = {}
        self.back_up()

    def back_up(self) -> None:
        """Keep the models as they are now, as a backup of the disk keeps the objects."""
        self._backup = self._models.copy(), dict(self._rows)

    def restore(self) -> None:
        """Go back to the models of the last backup."""
        models, rows = self._backup
        self._models, self._rows = models.copy(), dict(rows)

    def check(
        self,
        taken: Mapping[ObjectKey, list[Operation]],
        dropped: Collection[str] = (),
        *,
        injected: bool,
    ) -> None:
        """Compare the objects that a step has touched.

        Args:
            taken: The operations of the step, by object.
            dropped: The tenants that were dropped before these operations.
            injected: Whether a fault was injected. An error may come from that, unknown to models.

        Raises:
            AssertionError: An object differs from its model.
        """
        for key in [key for key in self._rows if key.tenant in dropped]:
            self._rows[key] = None
            self._models.forget(key)
        for cls in self._classes:
            name = self._definitions[cls].name
            keys = {key for key in (*taken, *self._rows) if key.type_name == name}
            for key in sorted(keys, key=str):
                operations = taken.get(key, [])
                row = self._disk.row(key)
                if operations or row is not self._rows.get(key):
                    for operation in operations if injected else ():
                        operation.is_known &= operation.error is None
                    self._report.models_compared += 1
                    self._models.check(key, operations, self._contents.state(cls, key))
                self._rows[key] = row
