"""The import statements that a piece of generated code needs."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Mapping


def imports_of(code: str, modules: Mapping[str, str]) -> str:
    """Write them: first of the standard library, then of others, each in order.

    Args:
        code: What uses names.
        modules: From a name to the module that has it; the empty string if it is a module itself.
    """
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    whole = []
    names = defaultdict(list)
    for name in used & modules.keys():
        if modules[name]:
            names[modules[name]].append(name)
        else:
            whole.append(name)
    # By code point: capitals come first, which is where formatters want classes and constants.
    single = {
        module: f"from {module} import {', '.join(sorted(found))}"
        for module, found in sorted(names.items())
    }
    standard = [line for module, line in single.items() if module in sys.stdlib_module_names]
    others = [line for module, line in single.items() if module not in sys.stdlib_module_names]
    others = [*(f"import {name}" for name in sorted(whole)), *others]
    return "\n\n".join("\n".join(lines) for lines in (standard, others) if lines)
