"""What the charts are drawn with: SVG, one element a function."""

from __future__ import annotations

from xml.sax.saxutils import escape

INK = "#1f2933"
SOFT = "#66727f"
GRID = "#e4e8ec"


def document(title: str, width: int, height: int, body: str) -> str:
    """A whole picture."""
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" font-family="system-ui, 'Segoe UI', 'Helvetica Neue', \
'DejaVu Sans', sans-serif">
<title>{escape(title)}</title>
<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>
{body}
</svg>
"""


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A bar, as thick as ``height``."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height}" rx="2" '
        f'fill="{colour}"/>'
    )


def text(
    x: float,
    y: float,
    content: str,
    size: int,
    colour: str = INK,
    *,
    weight: int = 400,
    anchor: str = "start",
) -> str:
    """A line of text, with its baseline at ``y``."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}" text-anchor="{anchor}">{escape(content)}</text>'
    )
