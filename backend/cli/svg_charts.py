"""The report's drawings as inline SVG; colors come from the page's style sheet, so that light and dark mode both fit."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 460, 190
LEFT, RIGHT, TOP, BOTTOM = 50, 8, 10, 24
POINTS = 100
"""A curve is drawn through at most so many points: means of equal shares of the steps."""


def curve(title: str, steps: Sequence[int], values: Sequence[float | None], stages: Sequence[tuple[int, int]]) -> str:
    """A chart of `values` over `steps`: the mean of each share of steps as a line, its range as a shade.

    The axis is logarithmic where the values are positive and span more than two decades. `stages` are the (first,
    last) steps of the job's stages, told apart by bands.
    """
    x, low, mean, high = _shares(steps, values)
    if not len(x):
        return ""
    logarithmic = low.min() > 0 and high.max() > 100 * low.min()
    bounds = _padded(low.min(), high.max(), logarithmic)
    across, up = _x_scale(steps), _y_scale(*bounds, logarithmic)
    line = _path(zip(across(x), up(mean), strict=True))
    shade = _path([*zip(across(x), up(high), strict=True), *zip(across(x)[::-1], up(low)[::-1], strict=True)])
    readout = json.dumps({"x": x.tolist(), "y": [float(f"{value:.4g}") for value in mean]}, separators=(",", ":"))
    body = f'<path class="shade" d="{shade}Z"/><path class="curve" d="{line}"/>'
    return _figure(title, body, bounds, logarithmic, steps, stages, readout)


def dots(title: str, steps: Sequence[int], values: Sequence[float], stages: Sequence[tuple[int, int]]) -> str:
    """A chart of one dot per step, for values that are drawn at random."""
    bounds = _padded(0.0, max(values), False)
    stride = max(1, len(steps) // 1500)
    across, up = _x_scale(steps), _y_scale(*bounds, False)
    points = zip(across(np.asarray(steps[::stride])), up(np.asarray(values[::stride])), strict=True)
    body = "".join(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="1.6"/>' for x, y in points)
    return _figure(title, body, bounds, False, steps, stages, None)


def view_map(azimuths: Sequence[float], elevations: Sequence[float]) -> str:
    """Where the object was looked at from, seen from above: its front is below, its left hand side is on the right.

    The center is straight above, a ring is 30 degrees of elevation, and a cell's color is stronger the more often it was looked from there.
    """
    size, center = 380, 190
    lowest = min(-10.0, math.floor(min(elevations) / 10) * 10)

    def radius(elevation: float) -> float:
        return 155 * (90 - elevation) / (90 - lowest)

    def point(azimuth: float, elevation: float) -> str:
        angle, distance = math.radians(azimuth), radius(elevation)
        return f"{center + distance * math.sin(angle):.1f} {center + distance * math.cos(angle):.1f}"

    rings = np.arange(lowest, 91, 10.0)
    counts, _, _ = np.histogram2d(np.mod(azimuths, 360), elevations, bins=(np.arange(0, 361, 15.0), rings))
    cells = []
    for (i, j), count in np.ndenumerate(counts):
        if not count:
            continue
        a, b, inner, outer = 15.0 * i, 15.0 * (i + 1), rings[j + 1], rings[j]
        path = (
            f"M{point(a, outer)}A{radius(outer):.1f} {radius(outer):.1f} 0 0 0 {point(b, outer)}"
            f"L{point(b, inner)}A{radius(inner):.1f} {radius(inner):.1f} 0 0 1 {point(a, inner)}Z"
        )
        opacity = 0.12 + 0.88 * count / counts.max()
        label = f"azimuth {a:.0f} to {b:.0f}, elevation {outer:.0f} to {inner:.0f}: {count:.0f} views"
        cells.append(f'<path class="cell" fill-opacity="{opacity:.2f}" d="{path}"><title>{label}</title></path>')
    circles = "".join(
        f'<circle class="grid" cx="{center}" cy="{center}" r="{radius(elevation):.1f}"/>'
        f'<text class="tick" x="{center + 3}" y="{center - radius(elevation) - 3:.1f}">{elevation}°</text>'
        for elevation in (60, 30, 0)
    )
    sides = "".join(
        f'<text class="side" text-anchor="middle" x="{x}" y="{y}">{name}</text>'
        for name, x, y in (("front", 190, 372), ("back", 190, 16), ("+x", 364, 194), ("−x", 16, 194))
    )
    return (
        f'<svg class="views" viewBox="0 0 {size} {size}" role="img" aria-label="views from above">'
        f"{''.join(cells)}{circles}{sides}</svg>"
    )


def time_bar(parts: Sequence[tuple[str, float]]) -> str:
    """Seconds by name, as one bar with its legend."""
    total = sum(seconds for _, seconds in parts) or 1.0
    bars, legend, x = [], [], 0.0
    for position, (name, seconds) in enumerate(parts):
        width = 1000 * seconds / total
        bars.append(f'<rect class="part{position % 6}" x="{x:.1f}" y="0" width="{max(width - 2, 1):.1f}" height="26"/>')
        legend.append(f'<li><i class="part{position % 6}"></i>{escape(name)} <b>{seconds:.1f} s</b></li>')
        x += width
    svg = f'<svg class="times" viewBox="0 0 1000 26" preserveAspectRatio="none" role="img">{"".join(bars)}</svg>'
    return f'{svg}<ul class="legend">{"".join(legend)}</ul>'


def _figure(
    title: str,
    body: str,
    bounds: tuple[float, float],
    logarithmic: bool,
    steps: Sequence[int],
    stages: Sequence[tuple[int, int]],
    readout: str | None,
) -> str:
    across, up = _x_scale(steps), _y_scale(*bounds, logarithmic)
    bands = "".join(
        f'<rect class="band" x="{across(first - 0.5):.1f}" y="{TOP}" '
        f'width="{across(last + 0.5) - across(first - 0.5):.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
        for first, last in stages[1::2]
    )
    lines = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        f'<text class="tick" text-anchor="end" x="{LEFT - 6}" y="{up(tick) + 3.5:.1f}">{tick:.4g}</text>'
        for tick in _ticks(*bounds, logarithmic)
    )
    first, last = steps[0], steps[-1]
    marks = "".join(
        f'<text class="tick" text-anchor="{anchor}" x="{across(step):.1f}" y="{HEIGHT - 7}">{step}</text>'
        for step, anchor in ((first, "start"), (last, "end"))
        if anchor == "start" or last > first
    )
    data = f' data-readout="{escape(readout)}" data-first="{first}" data-last="{last}"' if readout else ""
    return (
        f'<figure class="chart"{data}><figcaption>{escape(title)}<output></output></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} by step">{bands}{lines}{marks}{body}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg></figure>'
    )


def _shares(steps: Sequence[int], values: Sequence[float | None]) -> tuple[np.ndarray, ...]:
    """The last step, lowest, mean and highest value of each of at most `POINTS` equal shares."""
    known = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    if not known:
        return (np.zeros(0),) * 4
    parts = np.array_split(np.asarray(known, float), min(POINTS, len(known)))
    columns = [(part[-1, 0], part[:, 1].min(), part[:, 1].mean(), part[:, 1].max()) for part in parts]
    return tuple(np.asarray(columns).T)


def _x_scale(steps: Sequence[int]):  # noqa: ANN202
    first, last = steps[0], max(steps[-1], steps[0] + 1)
    return lambda step: LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)


def _y_scale(low: float, high: float, logarithmic: bool):  # noqa: ANN202
    warp = np.log10 if logarithmic else np.asarray
    bottom, top = float(warp(low)), float(warp(high))
    return lambda value: HEIGHT - BOTTOM - (warp(value) - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)


def _padded(low: float, high: float, logarithmic: bool) -> tuple[float, float]:
    if logarithmic:
        return low / 1.15, high * 1.15
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (low - margin if low < 0 or low > 3 * margin else 0.0), high + margin


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        stride = max(1, len(decades) // 4)
        return [10.0**decade for decade in decades[::stride]]
    raw = (high - low) / 4
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _path(points) -> str:  # noqa: ANN001
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
