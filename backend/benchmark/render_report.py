"""The rendering benchmark for people: a table for the terminal and a chart as SVG, both without further libraries."""

from __future__ import annotations

import math
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 70, 190, 40, 50
COLORS = {"galatea": "#d9480f", "plain torch": "#868e96", "nvdiffrast": "#2b8a3e", "DRTK": "#1971c2", "PyTorch3D": "#862e9c"}


def as_text(table: dict) -> str:
    """The table of `bench_render` in fixed columns."""
    lines = [
        f"{table['device']}, {table['threads']} thread{'s' if table['threads'] > 1 else ''}, torch {table['torch']}; "
        f"milliseconds ({table['clock']}), medians",
        *(f"  {name}: {how}" for name, how in table["contestants"].items()),
        *(f"  {name} is left out: {why}" for name, why in table["absent"].items()),
        "",
        f"{'faces':>8}{'pixels':>8}{'views':>7}  {'':<12}{'forward':>10}{'+ backward':>12}{'ratio':>8}{'peak MB':>9}{'agrees':>9}",
    ]
    for row in table["renders"]:
        where = f"{row['faces']:>8}{row['resolution']:>8}{row['views']:>7}  "
        for name, figures in row["results"].items():
            memory = "" if figures["peak_mb"] is None else f"{figures['peak_mb']:.0f}"
            lines.append(
                f"{where}{name:<12}{figures['forward_ms']:>10.2f}{figures['forward_backward_ms']:>12.2f}"
                f"{figures['ratio']:>8.2f}{memory:>9}{figures['agrees']:>9.2%}"
            )
            where = " " * len(where)
    case = table["operators"]["case"]
    title = f"operator ({case['faces']:,} faces, {case['resolution']} px, {case['views']} views)"
    lines += ["", f"{title:<46}{'forward':>10}{'backward':>10}"]
    for name, figures in table["operators"]["milliseconds"].items():
        back = "" if figures["backward_ms"] is None else f"{figures['backward_ms']:.2f}"
        lines.append(f"{name:<46}{figures['forward_ms']:>10.2f}{back:>10}")
    if "disagreement_with_cpu" in table:
        lines += ["", f"{'largest difference from the CPU':<46}{'values':>10}{'gradients':>10}"]
        for name, figures in table["disagreement_with_cpu"].items():
            ids = f"  another face at {figures['ids']:.3%} of the pixels" if "ids" in figures else ""
            lines.append(f"{name:<46}{figures['values']:>10.1e}{figures['gradients']:>10.1e}{ids}")
    return "\n".join(lines)


def as_svg(table: dict) -> str:
    """Forward with backward over faces, both logarithmic, a line for each contestant and resolution, at 4 views."""
    lines: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for row in table["renders"]:
        if row["views"] == 4:
            for name, figures in row["results"].items():
                points = lines.setdefault((name, row["resolution"]), [])
                points.append((row["faces"], figures["forward_backward_ms"]))
    faces = [x for points in lines.values() for x, _ in points]
    times = [y for points in lines.values() for _, y in points]
    x_low, x_high = _decades(min(faces), max(faces))
    y_low, y_high = _decades(min(times), max(times))

    def across(value: float) -> float:
        return LEFT + (math.log10(value) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(value) - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    body = [
        f'<text x="{LEFT}" y="20" font-weight="bold">Forward and backward, 3 attributes and mask, 4 views: '
        f"{escape(table['device'])}</text>"
    ]
    for power in range(x_low, x_high + 1):
        x = across(10.0**power)
        body.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#dee2e6"/>')
        body.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10**power:,}</text>')
    for power in range(y_low, y_high + 1):
        y = up(10.0**power)
        body.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dee2e6"/>')
        body.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    body.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">faces</text>')
    body.append(f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">milliseconds</text>')
    labels = []
    for (name, resolution), points in lines.items():
        points.sort()
        color = COLORS[name]
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in points)
        body.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        body += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3.5" fill="{color}"/>' for x, y in points]
        labels.append((up(points[-1][1]), across(points[-1][0]), f"{name}, {resolution} px", color))
    above = 0.0
    for y, x, text, color in sorted(labels):  # labels that would overlap move down
        place = max(y + 4, above + 15)
        above = place
        body.append(f'<text x="{max(x + 9, WIDTH - RIGHT + 9):.1f}" y="{place:.1f}" fill="{color}">{escape(text)}</text>')
    style = "font-family:sans-serif;font-size:13px;background:#fff"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" style="{style}">'
    return head + f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>' + "".join(body) + "</svg>\n"


def _decades(low: float, high: float) -> tuple[int, int]:
    """Powers of ten around a range, at least one decade apart."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return first, max(last, first + 1)
