"""Drawings of what a job told about itself, as inline SVG: shares over the steps, a rose of azimuths, bars, a compass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from backend.cli.svg_charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

COLORS = 6
"""Colors that the page's style sheet has for parts of a whole."""

LARGEST = COLORS - 1
"""Shares drawn one by one; further ones are summed up as "others"."""

_SIZE, _CENTER, _RADIUS = 300, 150, 108


def shares(title: str, steps: Sequence[int], values: Sequence[Mapping[str, float]], order: Sequence[str]) -> str:
    """Shares that add up to 1, stacked over the steps in this `order` from below, with their mean in the legend."""
    known = [(step, share) for step, share in zip(steps, values, strict=True) if share]
    if not known:
        return ""
    names = list(order)
    mean = {name: sum(share.get(name, 0.0) for _, share in known) / len(known) for name in names}
    drawn = names if len(names) <= COLORS else names[:LARGEST]
    parts = {name: [share.get(name, 0.0) for _, share in known] for name in drawn}
    if len(names) > len(drawn):
        parts["others"] = [sum(share.get(name, 0.0) for name in names[LARGEST:]) for _, share in known]
        mean["others"] = sum(parts["others"]) / len(known)

    first, last = known[0][0], max(known[-1][0], known[0][0] + 1)
    places = [LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT) for step, _ in known]
    if len(places) == 1:
        places, parts = [LEFT, WIDTH - RIGHT], {name: value * 2 for name, value in parts.items()}
    below, areas, legend = [0.0] * len(places), [], []
    for number, (name, value) in enumerate(parts.items()):
        above = [low + share for low, share in zip(below, value, strict=True)]
        outline = [*zip(places, map(_up, below)), *reversed(list(zip(places, map(_up, above))))]
        areas.append(f'<path class="part{number}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in outline)}Z"/>')
        legend.append(f'<li><i class="part{number}"></i>{escape(_words(name))} <b>{_percent(mean[name])}</b></li>')
        below = above
    ticks = "".join(
        f'<text class="tick" text-anchor="end" x="{LEFT - 6}" y="{_up(share) + 3.5:.1f}">{share:.0%}</text>' for share in (0, 0.5, 1)
    )
    marks = f'<text class="tick" x="{LEFT}" y="{HEIGHT - 7}">{first}</text>'
    if len(known) > 1:
        marks += f'<text class="tick" text-anchor="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 7}">{known[-1][0]}</text>'
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)} by step">{"".join(areas)}{ticks}{marks}</svg><ul class="legend">{"".join(legend)}</ul></figure>'
    )


def rose(title: str, counts: Sequence[int]) -> str:
    """Views by equal slices of azimuth, seen from above with the front below; the circle is a slice's fair share."""
    fair, most = sum(counts) / len(counts), max(counts)
    width = 360 / len(counts)
    wedges = []
    for number, count in enumerate(counts):
        radius = _RADIUS * math.sqrt(count / most)  # the area tells the count
        a, b = _point(number * width, radius), _point((number + 1) * width, radius)
        label = f"azimuth {number * width:.0f} to {(number + 1) * width:.0f}: {count} views"
        path = f"M{_CENTER} {_CENTER}L{a}A{radius:.1f} {radius:.1f} 0 0 0 {b}Z"
        wedges.append(f'<path class="cell" fill-opacity=".75" d="{path}"><title>{label}</title></path>')
    circle = f'<circle class="fair" cx="{_CENTER}" cy="{_CENTER}" r="{_RADIUS * math.sqrt(fair / most):.1f}"/>'
    return _from_above(title, "".join(wedges) + circle)


def compass(title: str, views: Sequence[tuple[float, float]], within: float) -> str:
    """For each view (true, read) an arrow from where it stands toward where it is read, seen from above with the front below.

    Views read within `within` degrees of where they stand have a short arrow straight to the center.
    """
    body = f'<circle class="grid" cx="{_CENTER}" cy="{_CENTER}" r="{_RADIUS}"/>'
    body += f'<circle class="grid" cx="{_CENTER}" cy="{_CENTER}" r="{_RADIUS * 0.62:.1f}"/>'
    for true, read in views:
        right = abs((read - true + 180) % 360 - 180) <= within
        tail, tip = _place(true, _RADIUS), _place(read, _RADIUS * 0.62)
        body += _arrow(tail, tip, "right" if right else "wrong", f"stands at {true:.0f}, read as {read:.0f} degrees")
    return _from_above(title, body)


def bars(title: str, counts: Sequence[int], first: str, last: str) -> str:
    """A histogram with equal bins, from the label `first` to `last`."""
    most, width = max(counts) or 1, (WIDTH - LEFT - RIGHT) / len(counts)
    high = HEIGHT - TOP - BOTTOM
    drawn = "".join(
        f'<rect class="cell" fill-opacity=".75" x="{LEFT + number * width + 1:.1f}" y="{TOP + high * (1 - count / most):.1f}" '
        f'width="{width - 2:.1f}" height="{high * count / most:.1f}"><title>{count} steps</title></rect>'
        for number, count in enumerate(counts)
    )
    ticks = (
        f'<text class="tick" text-anchor="end" x="{LEFT - 6}" y="{TOP + 8}">{most}</text>'
        f'<text class="tick" x="{LEFT}" y="{HEIGHT - 7}">{escape(first)}</text>'
        f'<text class="tick" text-anchor="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 7}">{escape(last)}</text>'
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{drawn}{ticks}</svg></figure>'
    )


def _from_above(title: str, body: str) -> str:
    sides = "".join(
        f'<text class="side" text-anchor="middle" x="{x}" y="{y}">{name}</text>'
        for name, x, y in (("front", 150, 286), ("back", 150, 24), ("+x", 284, 154), ("−x", 16, 154))
    )
    return (
        f'<figure class="chart above"><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {_SIZE} {_SIZE}" role="img" '
        f'aria-label="{escape(title)}, from above">{body}{sides}</svg></figure>'
    )


def _arrow(tail: tuple[float, float], tip: tuple[float, float], kind: str, label: str) -> str:
    angle = math.atan2(tip[1] - tail[1], tip[0] - tail[0])
    barbs = [(tip[0] - 9 * math.cos(angle + side), tip[1] - 9 * math.sin(angle + side)) for side in (0.45, -0.45)]
    head = "L".join(f"{x:.1f} {y:.1f}" for x, y in (barbs[0], tip, barbs[1]))
    return (
        f'<g class="{kind}"><title>{label}</title><circle cx="{tail[0]:.1f}" cy="{tail[1]:.1f}" r="3.5"/>'
        f'<path d="M{tail[0]:.1f} {tail[1]:.1f}L{tip[0]:.1f} {tip[1]:.1f}M{head}"/></g>'
    )


def _place(azimuth: float, radius: float) -> tuple[float, float]:
    angle = math.radians(azimuth)
    return _CENTER + radius * math.sin(angle), _CENTER + radius * math.cos(angle)


def _point(azimuth: float, radius: float) -> str:
    x, y = _place(azimuth, radius)
    return f"{x:.1f} {y:.1f}"


def _up(share: float) -> float:
    return HEIGHT - BOTTOM - min(share, 1.0) * (HEIGHT - TOP - BOTTOM)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}" if share >= 0.001 else "< 0.1%"


def _words(name: str) -> str:
    return name.replace("_", " ")
