"""An extension of griffe, for ``make api-check``: public modules are those with an ``__all__``.

By itself griffe takes every module for public whose name begins with no underscore, such as those
of the command line.
"""

from __future__ import annotations

from typing import Any

import griffe


class DeclaredModules(griffe.Extension):
    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        modules = [pkg]
        while modules:
            module = modules.pop()
            module.public = module.exports is not None
            modules += module.modules.values()
