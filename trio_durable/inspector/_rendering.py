"""Rendering: Jinja templates, in which every value is escaped and made visible.

Jinja's autoescape escapes each value for text and quoted attributes, and ``finalize`` makes its
invisible characters visible before that, so that no template can leave either out. Stored values
are never in scripts, in style or in names of attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from .._keys import ObjectKey
from ._contents import compact, pretty
from ._visible import visible, visible_lines

LIVE = "live_"
"""The prefix of the blocks of a template that are sent again when they change."""

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trio_durable.inspector"),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        link=link, to_object=to_object, to_type=to_type, capped=capped, sparkline=sparkline
    )
    environment.filters.update(
        lines=lambda text: Markup(escape(visible_lines(text))),  # noqa: S704  # it is escaped
        # The user's own text in a field, which must come back as it was.
        exact=lambda text: Markup(escape(text)),  # noqa: S704  # likewise
        pretty=lambda value: Markup(escape(pretty(value))),  # noqa: S704  # likewise
        compact=lambda value: Markup(escape(compact(value))),  # noqa: S704  # likewise
        instant=instant,
        ago=ago,
        seconds=seconds,
        size=size,
        number=lambda value: f"{value:,}",
    )
    macros = environment.get_template("macros.html").module
    environment.globals.update(
        {name: getattr(macros, name) for name in vars(macros) if not name.startswith("_")}
    )
    return environment


def page(template: str, data: Mapping[str, object]) -> str:
    """A whole page."""
    return _environment().get_template(template).render(data)


def live_blocks(template: str, data: Mapping[str, object]) -> dict[str, str]:
    """The parts of a page that are sent again when they change, by the names of their blocks."""
    found = _environment().get_template(template)
    context = found.new_context(dict(data))
    return {
        name: "".join(block(context))
        for name, block in found.blocks.items()
        if name.startswith(LIVE)
    }


# --- for templates -------------------------------------------------------------------------------


def link(page: str, /, **query: object) -> str:
    """A relative link to a page. Members of the query that are None or empty are left out."""
    members = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{page}?{urlencode(members)}" if members else page or "./"


def to_object(key: ObjectKey, page: str = "object", **query: object) -> str:
    """A link to a page of an object."""
    return link(page, type=key.type_name, id=key.object_id, tenant=key.tenant, **query)


def to_type(name: str, tenant: str) -> str:
    """A link to the page of a type."""
    return link("type", type=name, tenant=tenant)


def capped(count: int, most: int) -> str:
    """A number that was counted up to a limit: ``1,000+`` above it."""
    return f"{most:,}+" if count > most else f"{count:,}"


def instant(microseconds: int | None) -> str:
    """A time in UTC."""
    if microseconds is None:
        return ""
    try:
        at = datetime.fromtimestamp(microseconds / 1e6, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{microseconds} µs since 1970"
    return at.replace(tzinfo=None).isoformat(" ", "seconds")


def ago(microseconds: int | None, now: int) -> str:
    """The distance of a time from now, such as ``3 min ago`` or ``in 2 h``."""
    if microseconds is None:
        return ""
    distance = abs(now - microseconds) // 1_000_000
    text = f"{distance} s"
    for unit, name in _UNITS:
        if distance >= unit:
            text = f"{distance // unit:,} {name}"
            break
    if not distance:
        return "now"
    return f"{text} ago" if microseconds <= now else f"in {text}"


def seconds(duration: float) -> str:
    """A duration, such as ``1.2 ms`` or ``3.4 s``."""
    if duration < 0.001:
        return f"{duration * 1e6:.0f} µs"
    if duration < 1:
        return f"{duration * 1e3:.3g} ms"
    return f"{duration:,.0f} s" if duration >= 100 else f"{duration:.3g} s"


def size(count: int) -> str:
    """A number of bytes."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def sparkline(values: list[int], width: int = 240, height: int = 36) -> Markup:
    """The points of a line of values over time, for an SVG polyline of this size."""
    most = max([*values, 1])
    step = width / max(1, len(values) - 1)
    points = (
        f"{at * step:.1f},{height - 1 - (height - 2) * value / most:.1f}"
        for at, value in enumerate(values)
    )
    return Markup(" ".join(points))  # noqa: S704  # numbers
