"""A bar chart as SVG: medians, with a line from the lowest to the highest. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 990, 430, 90, 56, 30
_OURS, _THEIRS, _LINE, _TEXT = "#1f6feb", "#8c959f", "#24292f", "#24292f"


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the chart."""

    name: str
    middle: float
    low: float
    high: float
    is_ours: bool


def draw(title: str, bars: Sequence[Bar]) -> str:
    """Return the chart, with a light background of its own, since the page around it may be dark."""
    height = _TOP + _ROW * len(bars) + 16
    scale = (_WIDTH - _LEFT - _RIGHT) / max(bar.high for bar in bars)
    rows = "\n".join(_row(bar, _TOP + _ROW * number, scale) for number, bar in enumerate(bars))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="sans-serif" font-size="14" fill="{_TEXT}">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="20" y="32" font-size="17">{escape(title)}</text>\n'
        f"{rows}\n</svg>\n"
    )


def _row(bar: Bar, top: float, scale: float) -> str:
    middle, low, high = (_LEFT + scale * value for value in (bar.middle, bar.low, bar.high))
    fill, center = (_OURS if bar.is_ours else _THEIRS), top + _ROW / 2
    return (
        f'<text x="{_LEFT - 10}" y="{center + 5}" text-anchor="end">{escape(bar.name)}</text>'
        f'<rect x="{_LEFT}" y="{top + 5}" width="{middle - _LEFT:.1f}" height="{_ROW - 10}" fill="{fill}"/>'
        f'<path d="M{low:.1f} {center}H{high:.1f}" stroke="{_LINE}" stroke-width="2"/>'
        f'<text x="{high + 8:.1f}" y="{center + 5}">{bar.middle:,.0f}</text>'
    )
