"""What each loss does: one small job without it and one with it, from the same seed, in a picture and in figures.

    python -m benchmarks.loss_pictures [--only NAME ...] [--page docs/losses.md]

Every case of `CASES` is a job of the embedded prior (see `benchmarks.loss_jobs`), run once as it is and once with the loss.
It leaves docs/images/losses/NAME.png and an entry of figures.json there. What has an entry made by the same settings is not
made again, and results lie in output/losses, so it can be stopped at any time; with --page the page's table is written anew.

A new loss is one line in `CASES`: its name, what the job without and with it has in its `LossSettings`, what is measured of both
results and how they are drawn; another job than the standard one is a function that returns a `LossJob`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from backend.priors import load_prior
from backend.representations.mesh_data import MeshData
from benchmarks.loss_anchors import color_drift, repainting_job, silhouette_drift
from benchmarks.loss_drawings import colors, normals, unlit, wires
from benchmarks.loss_jobs import LossJob, changed, leaning_job, pictured_job, run_once, standard_job
from benchmarks.loss_measures import (
    asymmetry_x,
    bend,
    color_asymmetry_x,
    color_changes,
    color_error,
    edge_spread,
    judged_score,
    saturation,
    smallest_angle,
)

IMAGES = Path("docs/images/losses")
RESULTS = Path("output/losses")
MARKS = "<!-- figures: begin -->", "<!-- figures: end -->"

Measure = Callable[[MeshData, LossJob], float]
Drawing = Callable[[MeshData], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One loss: `without` and `with_` are fields of `LossSettings`; each measure is taken of both results."""

    name: str
    with_: Mapping[str, object]
    measures: Mapping[str, Measure]
    draw: Drawing = colors
    job: Callable[[], LossJob] = standard_job
    without: Mapping[str, object] = field(default_factory=dict)

    def jobs(self) -> tuple[LossJob, LossJob]:
        job = self.job()
        return changed(job, self.without), changed(job, self.with_)


SCORE = {"judge's score": judged_score}
learned_light = partial(pictured_job, reference_light="learned")
BENDS = {"mean angle between neighbors, degrees": bend}
COLORS = {"saturation": saturation, "error of colors": color_error}

CASES = (
    Case("laplacian", {"laplacian": 0.3}, BENDS | SCORE, normals, without={"laplacian": 0.0}),
    Case("normal_consistency", {"normal_consistency": 0.1}, BENDS | SCORE, normals),
    Case("edge_lengths", {"edge_lengths": 0.3}, {"spread of edge lengths": edge_spread, "5th percentile of smallest angles": smallest_angle} | SCORE, wires),
    Case("normal_variance", {"normal_variance": 0.1}, BENDS | SCORE, normals),
    Case("symmetry", {"symmetry": 5.0}, {"asymmetry in % of the extent": asymmetry_x} | SCORE, normals, leaning_job),
    Case("color_symmetry", {"color_symmetry": 3.0}, {"asymmetry of colors": color_asymmetry_x} | COLORS | SCORE, unlit),
    Case("albedo_sparsity", {"albedo_sparsity": 0.03}, {"median change along an edge": color_changes} | COLORS | SCORE, unlit),
    Case("light_whiteness", {"light_whiteness": 1.0}, COLORS | SCORE, unlit, learned_light),
    Case("color_saturation", {"color_saturation": 0.02}, COLORS | SCORE, unlit),
    Case("anchor_views", {"anchor_views": 0.1}, {"colors, away from the start's": color_drift, "silhouettes, away from the start's": silhouette_drift} | SCORE, unlit, repainting_job),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="only the case of this name (may be repeated)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table of all figures into this Markdown file")
    arguments = parser.parse_args()
    names = [case.name for case in CASES]
    unknown = sorted(set(arguments.only or ()) - set(names))
    if unknown:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(names)}")
    torch.set_num_threads(1)
    prior = load_prior("toybox", "cpu")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if not arguments.only or case.name in arguments.only:
            print(f"{case.name}: {make(case, prior)}", flush=True)
    if arguments.page:
        write_page(arguments.page)


def make(case: Case, prior: object) -> dict[str, list[float]]:
    """The figures of a case, [without, with] of each measure; made and stored if they are not there."""
    jobs = case.jobs()
    mark = hashlib.sha256("".join([job.fingerprint for job in jobs] + list(case.measures)).encode()).hexdigest()[:16]
    entry = _figures().get(case.name)
    if entry is None or entry["mark"] != mark or not (IMAGES / f"{case.name}.png").exists():
        meshes = [run_once(job, prior, RESULTS) for job in jobs]
        measured = {
            label: [_measured(label, measure, mesh, job) for mesh, job in zip(meshes, jobs)] for label, measure in case.measures.items()
        }
        _picture(case, meshes).save(IMAGES / f"{case.name}.png", optimize=True)
        entry = {"mark": mark, "settings": dict(case.with_), "measures": measured}
        _store(_figures() | {case.name: entry})  # read anew: another case may have been stored meanwhile
    return entry["measures"]


_MEASURED: dict[tuple[str, str], float] = {}
"""By label and job: many cases have the same job without."""


def _measured(label: str, measure: Measure, mesh: MeshData, job: LossJob) -> float:
    key = label, job.fingerprint
    if key not in _MEASURED:
        _MEASURED[key] = round(measure(mesh, job), 6)
    return _MEASURED[key]


def write_page(page: Path) -> None:
    """Put the table of all figures between the page's two marks."""
    lines = ["| loss | measure | without | with |", "|---|---|---|---|"]
    figures = _figures()
    for case in CASES:
        if case.name in figures:
            weights = ", ".join(f"{name} {value}" for name, value in figures[case.name]["settings"].items())
            for number, (label, (without, with_)) in enumerate(figures[case.name]["measures"].items()):
                lines.append(f"| {f'`{weights}`' if number == 0 else ''} | {label} | {without:.3g} | {with_:.3g} |")
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    page.write_text(before + MARKS[0] + "\n" + "\n".join(lines) + "\n" + MARKS[1] + after, encoding="utf-8")


def _picture(case: Case, meshes: list[MeshData]) -> Image.Image:
    """Left without, right with, and words above both."""
    sides = [np.concatenate(list(case.draw(mesh)), axis=1) for mesh in meshes]
    height, width = sides[0].shape[:2]
    sheet = Image.new("RGB", (2 * width + 12, height + 20), "white")
    pen = ImageDraw.Draw(sheet)
    words = ["without", "with " + ", ".join(f"{name} {value}" for name, value in case.with_.items())]
    for number, (side, said) in enumerate(zip(sides, words)):
        sheet.paste(Image.fromarray(side), (number * (width + 12), 20))
        pen.text((number * (width + 12) + 4, 4), said, fill="black")
    return sheet


def _figures() -> dict[str, dict]:
    path = IMAGES / "figures.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _store(figures: dict[str, dict]) -> None:
    part = IMAGES / "figures.json.part"
    part.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    part.replace(IMAGES / "figures.json")


if __name__ == "__main__":
    main()
