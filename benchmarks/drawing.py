"""What the charts are drawn with: the colours, and the few shapes of SVG that they need."""

from __future__ import annotations

from xml.sax.saxutils import escape

INK = "#1f2933"
SOFT = "#66727f"
GRID = "#e4e8ec"
LIMIT = "#b6c0ca"
MET = "#2f7d6d"
MISSED = "#d1603d"
PLAIN = "#4a7fb5"


def document(width: int, height: int, title: str, body: str) -> str:
    """An SVG document with ``body`` on a white card."""
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" font-family="system-ui, 'Segoe UI', 'Helvetica Neue', \
'DejaVu Sans', sans-serif">
<title>{escape(title)}</title>
<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>
{body}
</svg>
"""


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A bar."""
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
    """A line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}" text-anchor="{anchor}">{escape(content)}</text>'
    )
