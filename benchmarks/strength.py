"""Does strength mean what it says? Five meshes, each refined toward another shape at five strengths.

Measured are the Chamfer distance of the result to its start, which must grow with strength from exactly 0 at strength 0, and
the independent judge's probability of what the prompt asked for. A job that has been done is not done again.

    python -m benchmarks.strength --output output/strength --document docs/regions.md
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import msgspec
import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from backend.evaluation.judge_data import true_mesh
from backend.evaluation.views import look
from backend.optimize.events import Finished
from backend.optimize.pictures import render_views
from backend.optimize.run import run_job
from backend.priors import load_prior
from backend.priors.prior import Prior
from backend.recipes import load_recipe, shortened
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import cube, cylinder, icosphere
from backend.toybox.captions import parse
from backend.toybox.objects import KINDS, ObjectSpec, kind_named
from benchmarks.distillation_ablation_report import between_marks
from protocol.settings import JobSettings

STRENGTHS = (0.0, 0.2, 0.4, 0.7, 1.0)
SEED = 0
POINTS = 100_000
VIEW = (35.0, 15.0)
SIDE = 128


@dataclass(frozen=True)
class Case:
    """A mesh, by name, and a prompt that wants another shape."""

    name: str
    make: Callable[[], MeshData]
    prompt: str


def toy(kind: str, main: str, second: str) -> Callable[[], MeshData]:
    spec = ObjectSpec(kind_named(kind), main, second, "")
    return lambda: true_mesh(spec, np.random.default_rng(SEED))


CASES = (
    Case("cube", lambda: cube(20), "a red mug with a yellow handle"),
    Case("ball", lambda: icosphere(4), "a red mushroom with a white stem"),
    Case("cylinder", lambda: cylinder(64), "a white house with a red roof"),
    Case("bottle", toy("bottle", "green", "white"), "a red rocket with white fins"),
    Case("apple", toy("apple", "red", "green"), "a blue vase with a white rim"),
)


@dataclass(frozen=True)
class Record:
    """chamfer: of result and start, in units in which an object fits the unit sphere; kind: the judge's probability of the
    prompt's; seconds: thread CPU time."""

    case: str
    strength: float
    fingerprint: str
    chamfer: float
    kind: float
    same_bits: bool
    seconds: float


def chamfer(result: MeshData, start: MeshData) -> float:
    """Mean of both mean distances from points of one surface to the nearest of the other's; both have the same faces.

    The points are the same of both meshes (drawn evenly from the start), so the same positions are exactly 0 apart.
    """
    rng = np.random.default_rng(0)
    corners = start.positions.astype(np.float64)[start.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face, weights = rng.choice(len(area), POINTS, p=area / area.sum()), rng.dirichlet(np.ones(3), POINTS)
    points = [np.einsum("pk,pkc->pc", weights, mesh.positions.astype(np.float64)[mesh.faces[face]]) for mesh in (result, start)]
    return float(np.mean([cKDTree(other).query(own)[0].mean() for own, other in (points, points[::-1])]))


def settings_of(case: Case, strength: float, steps: int) -> JobSettings:
    stages = shortened(load_recipe("refine").stages, steps)
    return JobSettings(case.prompt, stages, seed=SEED, strength=strength, recipe="refine", checkpoint_seconds=1e6, preview_seconds=1e6)


def done(case: Case, strength: float, steps: int, prior: Prior, folder: Path) -> Record:
    """From the folder, or made now and stored there with its picture."""
    settings = settings_of(case, strength, steps)
    mark = hashlib.sha256(msgspec.json.encode((settings, POINTS), order="deterministic")).hexdigest()[:16]
    path = folder / f"{case.name}-{strength:g}.json"
    if path.exists():
        record = Record(**json.loads(path.read_text()))
        if record.fingerprint == mark:
            return record
    start = case.make()
    began = time.thread_time()
    with tempfile.TemporaryDirectory() as job:
        *_, last = run_job(settings, start, prior, Path(job))
    assert isinstance(last, Finished)
    kind = look(last.mesh, SEED)[0].kind.mean(0)[KINDS.index(parse(case.prompt).kind)].item()
    same = last.mesh.positions.tobytes() == start.positions.tobytes()
    record = Record(case.name, strength, mark, chamfer(last.mesh, start), kind, same, time.thread_time() - began)
    Image.fromarray(render_views(last.mesh, [VIEW[0]], VIEW[1], SIDE)[0]).save(path.with_suffix(".png"))
    path.write_text(json.dumps(record.__dict__))
    return record


def table(records: list[Record]) -> list[str]:
    """One Markdown row a mesh: Chamfer distance and, after the slash, the judge's probability, by strength."""
    lines = [
        "| mesh | prompt | " + " | ".join(f"{strength:g}" for strength in STRENGTHS) + " | monotone |",
        "|---|---|" + "---|" * (len(STRENGTHS) + 1),
    ]
    for case in CASES:
        row = {record.strength: record for record in records if record.case == case.name}
        cells = [f"{row[s].chamfer:.4f} / {row[s].kind:.2f}" if s in row else "–" for s in STRENGTHS]
        found = [row[s].chamfer for s in STRENGTHS if s in row]
        rising = all(a <= b for a, b in zip(found, found[1:])) and all(a < b for a, b in zip(found[1:], found[2:]))
        said = ("yes" if rising else "no") if len(found) == len(STRENGTHS) else "–"
        lines.append(f"| {case.name} | {case.prompt} | {' | '.join(cells)} | {said} |")
    return lines


def draw(records: list[Record], path: Path) -> None:
    """Both figures against strength, a line a mesh."""
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.0), constrained_layout=True)
    for case in CASES:
        row = sorted((record for record in records if record.case == case.name), key=lambda record: record.strength)
        for axis, values in zip(axes, ([r.chamfer for r in row], [r.kind for r in row])):
            axis.plot([r.strength for r in row], values, marker="o", label=case.name)
    for axis, title in zip(axes, ("Chamfer distance to the start", "judge: what the prompt asks for")):
        axis.set(xlabel="strength", title=title)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def contact_sheet(folder: Path, path: Path) -> None:
    """A row a mesh, a column a strength."""
    sheet = Image.new("RGB", (SIDE * len(STRENGTHS), (SIDE + 14) * len(CASES)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, case in enumerate(CASES):
        for column, strength in enumerate(STRENGTHS):
            picture, place = folder / f"{case.name}-{strength:g}.png", (column * SIDE, row * (SIDE + 14))
            if picture.exists():
                image = Image.open(picture)
                sheet.paste(image, place, image)
            pen.text((place[0] + 4, place[1] + SIDE), f"{case.name} at {strength:g}", fill="black")
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("output/strength"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--meshes", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--document", type=Path, help="write the table and figures into it, between its marks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    prior, records = load_prior("toybox", "cpu", print), []
    for case in CASES:
        for strength in STRENGTHS if case.name in arguments.meshes else ():
            records.append(done(case, strength, arguments.steps, prior, arguments.output))
            print(records[-1], flush=True)
    print("\n".join(table(records)))
    contact_sheet(arguments.output, arguments.output / "sheet.png")
    if arguments.document is not None:
        figures = arguments.document.parent / "figures"
        draw(records, figures / "strength.png")
        contact_sheet(arguments.output, figures / "strength_sheet.png")
        pictures = "![Both against strength](figures/strength.png)\n\n![Every result](figures/strength_sheet.png)"
        text = "\n".join([f"{arguments.steps} steps a job.", "", *table(records), "", pictures, ""])
        arguments.document.write_text(between_marks(arguments.document, text), encoding="utf-8")


if __name__ == "__main__":
    main()
