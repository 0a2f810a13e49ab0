"""`report.html`: a job's report as one page for a person, with everything inside it (no network, light and dark)."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from backend.cli.pictures import encoded, filmstrip, smaller, spread, turntable_sheet
from backend.cli.progress import duration
from backend.cli.reference_comparison import BesideReference, references_section
from backend.cli.report_diagnosis import diagnosis_section
from backend.cli.svg_charts import curve, dots, time_bar, view_map

_HERE = Path(__file__).parent
_THUMBS = 8

_NUMBERS_FIRST = ("loss", "gradient", "norm")
_STAGE_TITLES = {"grid": "density grid", "field": "radiance field", "tetrahedra": "tetrahedral grid", "mesh": "mesh"}
_TIMING_TITLES = {
    "libraries": "loading libraries",
    "prior": "loading the prior",
    "start_mesh": "reading the mesh",
    "plan": "measuring and planning",
    "previews": "previews",
    "results": "pictures and files",
    "judge": "the judge",
}


REGION_COLORS = (
    (222, 120, 40), (48, 118, 190), (70, 150, 82), (170, 80, 160), (200, 60, 60), (60, 160, 170), (150, 120, 50), (100, 90, 200),
)


@dataclass(frozen=True)
class Pictures:
    """What the page shows: views around the result and frames of its growth, each [S, S, 4] u8 RGBA."""

    turntable: np.ndarray  # [8, S, S, 4]
    turn: Sequence[np.ndarray]
    growth: Sequence[tuple[int, np.ndarray]]  # (step, frame)
    references: Sequence[BesideReference] = ()
    regions: np.ndarray | None = None  # [4, S, S, 4]


def report_page(report: dict, pictures: Pictures) -> str:
    """The page for a report made by `report.make_report`."""
    sections = (
        _hero(report, pictures),
        references_section(pictures.references),
        _regions(report, pictures.regions),
        _warnings(report["warnings"]),
        _growth(pictures.growth),
        _turntable(pictures.turntable),
        diagnosis_section(report),
        _curves(report),
        _views(report["steps"]),
        _time(report),
        _settings(report),
        _environment(report),
    )
    title = escape(_title(report))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · Galatea</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{(_HERE / 'report_page.css').read_text(encoding='utf-8')}</style></head><body><main>"
        f"{''.join(sections)}"
        '<footer>Beside this page: <a href="mesh.glb">mesh.glb</a>, <a href="turntable.png">turntable.png</a>, '
        '<a href="preview.webp">preview.webp</a>, <a href="report.json">report.json</a> (every number shown here and '
        "more).</footer></main>"
        f"<script>{(_HERE / 'report_page.js').read_text(encoding='utf-8')}</script></body></html>\n"
    )


def _hero(report: dict, pictures: Pictures) -> str:
    settings, result = report["settings"], report["result"]
    step_count = len(report["steps"]["step"])
    surface = "sound" if result["sound"] else "watertight" if result["watertight"] else "open"
    note = f"{'watertight, manifold, ' if result['sound'] else ''}{_pieces(result['components'])}"
    facts = [
        _fact("optimized in", duration(sum(report["steps"]["seconds"])), f"{step_count} steps"),
        _fact("mesh", f"{result['faces']:,} faces", f"{result['vertices']:,} vertices"),
        _fact("surface", surface, note, "good" if result["sound"] else "bad"),
        *_verdict(report["judge"]),
    ]
    made = "Refined toward" if report["command"] == "refine" else "Generated from"
    strip = _strip(filmstrip(list(pictures.turn)), len(pictures.turn), 'data-start="0"')
    negative = f", not “{escape(settings['negative_prompt'])}”" if settings.get("negative_prompt") else ""
    source = f" · from {escape(report['source']['name'])}" if report["source"] else ""
    return (
        f'<header class="hero"><div class="stage" tabindex="0" aria-label="the object, turning">{strip}'
        f'<div class="hint">drag to turn</div></div><div><p class="kind">{made}</p>'
        f"<h1>{escape(_title(report))}</h1>"
        f'<p class="sub">recipe {escape(str(settings["recipe"]))} · seed {settings["seed"]} · prior '
        f"{escape(settings['prior'])}{negative}{source}</p>"
        f'<dl class="facts">{"".join(facts)}</dl></div></header>'
    )


def _title(report: dict) -> str:
    """The prompt, or that there was none."""
    return report["settings"]["prompt"] or "What the picture shows"


def _verdict(judge: dict) -> list[str]:
    """The judge's figures: what it took the object and its colors for."""
    if "skipped" in judge:
        return []
    facts = [_fact(entry["title"], entry["value"], entry.get("note", "")) for entry in judge.get("summary", [])]
    return facts


def _regions(report: dict, views: np.ndarray | None) -> str:
    """Where the start mesh was free to change, a color a region."""
    if views is None:
        return ""
    names = "".join(
        f'<li><span style="color:rgb{color}">■</span> {escape(region["prompt"] or _title(report))}</li>'
        for region, color in zip(report["settings"]["regions"], REGION_COLORS)
    )
    sheet = inline(filmstrip([smaller(view, 256) for view in views]))
    return (
        "<h2>What could change</h2><p>The mesh as it came; all that is gray kept its bits.</p>"
        f'<ul>{names}</ul><div class="stage turntable"><img alt="the regions on the mesh" src="{sheet}"></div>'
    )


def _growth(growth: Sequence[tuple[int, np.ndarray]]) -> str:
    if len(growth) < 2:
        return ""
    steps = [step for step, _ in growth]
    frames = [frame for _, frame in growth]
    strip = _strip(filmstrip(frames), len(frames), f"data-steps='{json.dumps(steps)}'")
    buttons = "".join(
        f'<button type="button" data-frame="{index}" aria-label="after step {steps[index]}">'
        f'<img alt="" width="100%" src="{inline(filmstrip([smaller(frames[index], 96)]))}"></button>'
        for index in spread(range(len(frames)), _THUMBS)
    )
    return (
        "<h2>How it grew</h2><p>The same view after more and more steps.</p>"
        f'<div class="growth"><div class="stage now">{strip}</div><div><div class="thumbs">{buttons}</div>'
        f'<input type="range" min="0" max="{len(frames) - 1}" value="{len(frames) - 1}" aria-label="step">'
        f"<output>after step {steps[-1]}</output></div></div>"
    )


def _turntable(views: np.ndarray) -> str:
    halves = np.stack([smaller(view, 256) for view in views])
    return (
        "<h2>From all sides</h2><p>Every 45 degrees, the front first.</p>"
        f'<div class="stage turntable"><img alt="eight views of the result" src="{inline(turntable_sheet(halves))}"></div>'
    )


def _curves(report: dict) -> str:
    steps = report["steps"]
    if not steps["step"]:
        return ""
    spans = _stage_spans(steps)
    names = sorted(steps["numbers"], key=lambda name: (_rank(name), name))
    constant = {name for name in names if len(set(steps["numbers"][name]) - {None}) == 1 and len(steps["step"]) > 1}
    charts = [curve(_words(name), steps["step"], steps["numbers"][name], spans) for name in names if name not in constant]
    if any(steps["timestep"]):
        charts.append(dots("timestep drawn", steps["step"], steps["timestep"], spans))
    charts.append(curve("seconds per step", steps["step"], steps["seconds"], spans))
    note = "The line is the mean and the shade the range of neighboring steps."
    if len(spans) > 1:
        note += " Bands tell the stages apart."
    if constant:
        said = ", ".join(f"{_words(name)} {max(set(steps['numbers'][name]) - {None}):g}" for name in sorted(constant))
        note += f" The same at every step: {escape(said)}."
    return f'<h2>Curves</h2><p>{note}</p><div class="charts">{"".join(charts)}</div>'


def _views(steps: dict) -> str:
    azimuths = [angle for step in steps["azimuths"] for angle in step]
    elevations = [angle for step in steps["elevations"] for angle in step]
    if not azimuths:
        return ""
    low, high, middle = min(elevations), max(elevations), float(np.median(elevations))
    return (
        '<h2>Where it was looked at from</h2><div class="two">'
        f"{view_map(azimuths, elevations)}<div><p>{len(azimuths):,} views, seen from above: the object stands in the "
        "center with its front toward the bottom; the stronger a cell's color, the more often it was looked at "
        f"from there.</p><p>Elevations from {low:.0f}° to {high:.0f}°, half of them above {middle:.0f}°.</p></div></div>"
    )


def _time(report: dict) -> str:
    steps, timings = report["steps"], report["timings"]
    parts = []
    for index, stage in enumerate(report["stages"]):
        spent = sum(s for s, number in zip(steps["seconds"], steps["stage"], strict=True) if number == index)
        parts.append((f"stage {index + 1}: {_STAGE_TITLES.get(stage['type'], stage['type'])}", spent))
    parts += [(_TIMING_TITLES[name], timings[name]) for name in _TIMING_TITLES if timings.get(name)]
    resumed = len(report["sittings"]) - 1
    note = f"The job was resumed {resumed} time{'s' if resumed > 1 else ''}. " if resumed > 0 else ""
    note += "".join(f"{line['sentence']} " for line in (*report["choices"], *report["endings"]))
    if timings.get("first_preview"):
        note += f"The first preview came {timings['first_preview']:.1f} s after the prior was loaded. "
    if report["checkpoints"]:
        note += f"{len(report['checkpoints'])} checkpoints, {_seconds(report['checkpoints'])} in all."
    return f'<h2>Time</h2><p>{note}</p>{time_bar(parts)}'


def _settings(report: dict) -> str:
    settings = report["settings"]
    whole = {name: value for name, value in _leaves(settings).items() if not name.startswith("stages")}
    stages = [_leaves(stage) for stage in settings["stages"]]
    rows = list(dict.fromkeys(name for stage in stages for name in stage))
    head = "".join(f"<th>stage {index + 1}</th>" for index in range(len(stages)))
    body = "".join(
        f"<tr><th>{escape(_words(name))}</th>{''.join(f'<td>{_value(stage.get(name))}</td>' for stage in stages)}</tr>"
        for name in rows
    )
    return (
        "<h2>Settings</h2><p>Everything that the result depends on; the same settings and thread count give the same "
        f'mesh on the CPU.</p><div class="panel">{_table(whole)}</div>'
        f'<div class="panel wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _environment(report: dict) -> str:
    environment = dict(report["environment"])
    packages = environment.pop("packages")
    facts = _leaves(report["facts"])
    result = {name: value for name, value in report["result"].items()}
    panels = [("Machine", environment), ("Packages", packages), ("Mesh", result)]
    if facts:
        panels.append(("From the job", facts))
    if "skipped" not in report["judge"]:
        numbers = {name: value for name, value in report["judge"].items() if name not in ("summary", "read_azimuths")}
        panels.append(("Judge", _leaves(numbers)))
    tables = "".join(f'<div class="panel"><h3>{name}</h3>{_table(values)}</div>' for name, values in panels)
    return f'<h2>Circumstances</h2><p></p><div class="tables">{tables}</div>'


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="warnings"><h2>Worth knowing</h2><ul>{items}</ul></div>'


def _fact(name: str, value: str, note: str = "", kind: str = "") -> str:
    return f'<div><dt>{escape(name)}</dt><dd class="{kind}">{escape(value)}<small>{escape(note)}</small></dd></div>'


def _strip(picture, count: int, data: str) -> str:  # noqa: ANN001
    image = inline(picture)
    return f'<div class="strip" role="img" data-count="{count}" {data} style="background-image:url({image})"></div>'


def inline(picture) -> str:  # noqa: ANN001
    """A picture as the address that a page holds it under."""
    content = base64.b64encode(encoded(picture, "WEBP", quality=84, method=4)).decode()
    return f"data:image/webp;base64,{content}"


def _table(values: dict[str, object]) -> str:
    rows = "".join(f"<tr><th>{escape(_words(name))}</th><td>{_value(value)}</td></tr>" for name, value in values.items())
    return f"<table>{rows}</table>"


def _leaves(tree: object, prefix: str = "") -> dict[str, object]:
    """A nested dictionary as dotted names; a schedule becomes one leaf in words."""
    if isinstance(tree, dict) and tree.get("type") in ("constant", "linear", "sqrt"):
        if tree["type"] == "constant":
            return {prefix: tree["value"]}
        curve_name = "" if tree["type"] == "linear" else " (square root)"
        return {prefix: f"{tree['start']:g} → {tree['end']:g}{curve_name}"}
    if isinstance(tree, dict):
        leaves: dict[str, object] = {}
        for name, value in tree.items():
            leaves |= _leaves(value, f"{prefix}.{name}" if prefix else str(name))
        return leaves
    return {prefix: tree}


def _value(value: object) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    return escape(str(value))


def _stage_spans(steps: dict) -> list[tuple[int, int]]:
    spans: dict[int, tuple[int, int]] = {}
    for step, stage in zip(steps["step"], steps["stage"], strict=True):
        spans[stage] = (min(step, spans.get(stage, (step, step))[0]), step)
    return list(spans.values())


def _rank(name: str) -> int:
    return next((rank for rank, part in enumerate(_NUMBERS_FIRST) if part in name), len(_NUMBERS_FIRST))


def _words(name: str) -> str:
    return name.replace("_", " ").replace("/", ": ").replace(".", ": ")


def _pieces(count: int) -> str:
    return "one piece" if count == 1 else f"{count} pieces"


def _seconds(entries: Sequence[dict]) -> str:
    return f"{sum(entry['seconds'] for entry in entries):.2f} s"
