"""Line charts as SVG text, without a plotting library."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 50, 130, 40, 40
"""Margins around the plot; the legend is in the right one."""


@dataclass(frozen=True)
class Curve:
    """One curve of a chart."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    """(x, y), by rising x; a curve without points is left out."""


def line_chart(curves: Sequence[Curve], title: str, x_label: str, x_ticks: Sequence[float]) -> str:
    """Curves over a common x axis from 0 to the largest tick. The y axis goes from 0 to at least 1."""
    x_max = max(x_ticks)
    y_max = max([1.0, *(y for curve in curves for _, y in curve.points)])

    def pixels(x: float, y: float) -> tuple[str, str]:
        across = x / x_max * (WIDTH - LEFT - RIGHT)
        up = y / y_max * (HEIGHT - BOTTOM - TOP)
        return f"{LEFT + across:.1f}", f"{HEIGHT - BOTTOM - up:.1f}"

    def path(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(",".join(pixels(x, y)) for x, y in points)

    # 1. Canvas, title and axes
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
        f'<polyline points="{path([(0, y_max), (0, 0), (x_max, 0)])}" fill="none" stroke="#777"/>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}">{escape(x_label)}</text>',
    ]
    for tick in x_ticks:
        x, y = pixels(tick, 0)
        parts.append(f'<text x="{x}" y="{float(y) + 16}" text-anchor="middle">{tick:g}</text>')
    for share in (0, 0.5, 1):
        x, y = pixels(0, share)
        parts.append(f'<text x="{float(x) - 6}" y="{float(y) + 4}" text-anchor="end">{share:g}</text>')

    # 2. Curves, with a dot for each point and an entry in the legend
    for number, curve in enumerate(curves):
        if not curve.points:
            continue
        parts.append(f'<polyline points="{path(curve.points)}" fill="none" stroke="{curve.colour}" stroke-width="2"/>')
        for x, y in (pixels(*point) for point in curve.points):
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{curve.colour}"/>')
        legend = TOP + 18 * number + 12
        parts.append(f'<text x="{WIDTH - 110}" y="{legend}" fill="{curve.colour}">{escape(curve.name)}</text>')
    return "\n".join([*parts, "</svg>\n"])
