"""The section of docs/guide.md on tenants, run as its readers run it."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from textwrap import indent
from typing import Any

import attrs
import pytest

from trio_durable import DurableObject, DurableRuntime, InlineRunner, handler

pytestmark = pytest.mark.anyio

GUIDE = Path(__file__).parents[1] / "docs" / "guide.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(section: str) -> list[str]:
    text = GUIDE.read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    found: list[str] = BLOCK.findall(body)
    return found


async def test_tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Statistics(DurableObject):
        counted: int = 0

        @handler
        def count(self) -> int:
            self.counted += 1
            return self.counted

    def in_place(path: str) -> DurableRuntime:
        """Without threads, which virtual time would not wait for."""
        objects = [names[one] for one in ("Cart", "Account", "Statistics") if one in names]
        return DurableRuntime(path, objects=objects, runner=InlineRunner)

    names: dict[str, Any] = {
        "Decimal": Decimal,
        "DurableObject": DurableObject,
        "DurableRuntime": in_place,
        "Statistics": Statistics,
        "attrs": attrs,
        "handler": handler,
    }
    # `from __future__ import annotations` of this module isn't theirs.
    exec(compile(blocks("A class is a schema")[0], "guide.md", "exec", dont_inherit=True), names)
    opening, account, forgetting = blocks("Tenants")
    exec(f"async def main():\n{indent(opening, '    ')}", names)
    await names["main"]()
    exec(compile(account, "guide.md", "exec", dont_inherit=True), names)
    names["DurableRuntime"] = DurableRuntime  # what the last one has in an annotation
    exec(compile(forgetting, "guide.md", "exec", dont_inherit=True), names)
    async with in_place("app.db") as runtime:
        assert await runtime.list_tenants() == ["acme", "beta"]
        await runtime.tenant("acme").get(names["Account"], "ada").order("plum")
        assert await runtime.get(Statistics, "orders").count() == 2
        contents = await runtime.tenant("acme").get(names["Cart"], "ada").contents()
        assert contents == {"apple": 1, "plum": 1}
        await names["forget"](runtime, "acme")
        await names["forget"](runtime, "nobody")
        assert await runtime.list_tenants() == ["beta"]
