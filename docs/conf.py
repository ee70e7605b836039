"""How Sphinx makes a site of these pages: ``make docs``. It asks nothing of the network."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import FunctionType

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import GoogleDocstring

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import trio_durable  # noqa: E402 - from the folder above

project = "trio_durable"
author = "The trio_durable authors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"trio_durable {release}"
html_extra_path = ["llms.txt"]

nitpicky = True
# Of cattrs, which is imported where it is used.
nitpick_ignore = [
    ("py:class", "Converter"),
    ("py:class", "_pytest.fixtures.FixtureRequest"),
    ("py:exc", "pytest.UsageError"),
]
suppress_warnings = [
    # What a command prints is no code of any language.
    "misc.highlighting_failure",
]

# Links to headings work as they do on GitHub.
myst_heading_anchors = 4

napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# What stands in single backticks in a docstring is code, and a link if it is something public.
default_role = "py:obj"

ELSEWHERE = {*sys.stdlib_module_names, "hypothesis", "opentelemetry", "quart", "starlette"}
"""Packages whose names are no links, for there is no network to ask where they are described."""

INSIDE = {
    # Parameters of types.
    *("C", "F", "K", "P", "R", "R_co", "S", "T", "T_co", "typing.~P"),
    # Types of what users are given and never make.
    *("Converter", "Delivery", "GroupCommit", "Notifier", "Waiter"),
    *(
        "AlarmKey",
        "CallPath",
        "ContextHost",
        "Loop",
        "Fault",
        "ModelClasses",
        "ObjectType",
        "OpenRuntime",
        "SearchStrategy",
        "SendOptions",
    ),
    "trio_durable.testing.simulate._contents.Contents",
    *("Unset", "_AlarmDecorator", "_HandlerDecorator", "_Method"),
}
"""What signatures name that isn't public."""

PUBLIC = {
    name: f"{module}.{name}"
    for module in (
        "trio_durable.testing.simulate",
        "trio_durable.testing",
        "trio_durable.telemetry",
        "trio_durable.storage",
        "trio_durable",
    )
    for name in import_module(module).__all__
}
"""Where a name is to be found, if a docstring says nothing but the name."""

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!\w+\.md|explanation|howto|coming-from)[^)]*\)")


def module_of_definition(public: object) -> str:
    """The module in which a public class or function is written; "" if that can't be found out."""
    inner = vars(public).values() if isinstance(public, type) else [public]
    modules = (each.__globals__["__name__"] for each in inner if isinstance(each, FunctionType))
    return next((name for name in modules if name.startswith("trio_durable.")), "")


# They name the module to import them from. Sphinx would look there for their source, and so would
# find neither overloads nor docstrings of attributes.
for name in trio_durable.__all__:
    public = getattr(trio_durable, name)
    if module := module_of_definition(public):
        public.__module__ = module


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", unlink)
    app.connect("build-finished", copy_sources)
    app.connect("missing-reference", resolve)


def copy_sources(app: Sphinx, failure: Exception | None) -> None:
    """For programs: each page's source beside it, and all of them in ``llms-full.txt``."""
    if failure is not None or app.builder.format != "html":
        return
    pages = sorted(app.env.all_docs)
    texts = [Path(app.srcdir, f"{page}.md").read_text(encoding="utf-8") for page in pages]
    for page, text in zip(pages, texts, strict=True):
        Path(app.outdir, f"{page}.md").write_text(text, encoding="utf-8")
    whole = "\n\n".join(texts)
    Path(app.outdir, "llms-full.txt").write_text(whole, encoding="utf-8")


def unlink(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Links to what is in the repository, but not on the site, become plain text."""
    source[0] = OUTSIDE.sub(r"\1", source[0])


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.Node | None:
    """Look for a reference once more; what is returned is shown in its place."""
    target = node["reftarget"]
    first, _, rest = target.partition(".")
    if first in PUBLIC:
        full = ".".join(filter(None, [PUBLIC[first], rest]))
        domain = env.get_domain("py")
        found = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, text)
        if found is not None:
            return found
    is_code = node["reftype"] == "obj"  # of a docstring
    is_known = first in ELSEWHERE or target in INSIDE or target.rpartition(".")[2] in INSIDE
    return text if is_code or is_known else None


def _whole(docstring: GoogleDocstring) -> tuple[str, list[str]]:
    return "", docstring._consume_to_end()


# Else it takes what stands before the first colon of an attribute's docstring for a type.
GoogleDocstring._consume_inline_attribute = _whole  # type: ignore[method-assign]
