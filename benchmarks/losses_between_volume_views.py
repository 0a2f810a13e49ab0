"""What agreement between views does to volumes: a short grid stage without and with it, and a field that learns from views which
disagree about colors.

    python -m benchmarks.losses_between_volume_views [--only NAME ...] [--kinds mushroom chair] [--page docs/losses.md]

Each case leaves docs/images/losses/NAME.png: the volume above, below it the mesh that the stage hands on (grid), or the true
object (field). Figures go to between_volume_views.json beside them; what has an entry there is not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backend.cameras import Cameras
from backend.evaluation.evaluate import held_out_specs, prompt_for
from backend.evaluation.views import look
from backend.losses.reprojection import correspond
from backend.losses.view_agreement import depth_agreement, normal_agreement
from backend.losses.view_interpolation import view_interpolation
from backend.optimize.inputs import Inputs
from backend.optimize.look import Look
from backend.optimize.objectives import Job, Seen
from backend.optimize.stages import begin_stage
from backend.optimize.step import distill_step
from backend.optimize.views_objective import FOG, make_views_objective
from backend.priors import load_prior
from backend.rendering import Rendered, render_mesh
from backend.representations.radiance_field import RadianceField
from backend.representations.representation import Representation
from backend.recipes import load_recipe
from backend.toybox.objects import KINDS
from benchmarks.radiance_fields import known_object, psnr, views_to_learn, views_unseen
from protocol.settings import FieldStage, JobSettings, LossSettings

IMAGES = Path("docs/images/losses")
FIGURES = IMAGES / "between_volume_views.json"
RESULTS = Path("output/losses/volumes")
MARKS = "<!-- volumes: begin -->", "<!-- volumes: end -->"
GRID_STEPS = 45
FIELD_STEPS = 50
TINT = 0.3
"""How far the views that a field learns from are tinted, each its own way: factors from 1 - TINT to 1 + TINT of each channel."""
CASES = {
    "depth_agreement": {"depth_agreement": 1.0},
    "normal_agreement": {"normal_agreement": 0.2},
    "view_interpolation": {"view_interpolation": 0.1, "view_interpolation_angle": 10.0},
}
UNSEEN = Cameras.orbit([22.0, 112.0, 202.0, 292.0, 60.0], [5.0, 30.0, 0.0, 20.0, 40.0])
TURN = 25.0
SIZE = 48

Made = tuple[dict[str, float], list[Tensor]]
"""Figures, and rows of pictures [N, H, W, 3] to draw below each other."""


def grid(kind: str, losses: dict[str, float]) -> Made:
    """The recipe's grid stage, shortened, toward the held-out description of `kind`; and the mesh that it hands on."""
    spec = next(spec for spec in held_out_specs() if spec.kind.name == kind)
    stage = msgspec.structs.replace(load_recipe("generate").stages[0], steps=GRID_STEPS, losses=LossSettings(**losses))
    settings = JobSettings(prompt_for(spec), (stage,))
    prior = load_prior("toybox", "cpu")
    running = begin_stage(stage, None, torch.device("cpu"), job=Job(settings, Inputs(), prior))
    conditioning, generator = prior.encode_prompt(settings.prompt, ""), torch.Generator().manual_seed(0)
    begun = time.thread_time()
    for step in range(GRID_STEPS):
        distill_step(running, step / GRID_STEPS, settings.strength, prior, conditioning, generator)
    seconds = time.thread_time() - begun
    mesh = running.result()
    tensors = (torch.from_numpy(np.ascontiguousarray(each)) for each in (mesh.positions, mesh.faces, mesh.colors))
    with torch.no_grad():
        volume = running.representation.render(UNSEEN, SIZE, shading="albedo")
        surface = render_mesh(*tensors, UNSEEN, SIZE, shading="albedo", supersample=2)
    covered = volume.alpha > 0.1
    figures = {
        "share of pixels half covered": float((covered & (volume.alpha < 0.9)).sum() / covered.sum()),
        "volume against its mesh": float((volume.composite(0.5) - surface.composite(0.5)).abs().mean()),
        "judge: kind": float(look(mesh, 5)[0].kind.mean(0)[KINDS.index(spec.kind)]),
        "seconds": seconds,
    }
    return disagreements(running.representation) | figures, [volume.composite(0.94), surface.composite(0.94)]


@torch.no_grad()
def disagreements(representation: Representation) -> dict[str, float]:
    """How much unseen views disagree with others `TURN` degrees aside."""
    turned = replace(UNSEEN, azimuth=UNSEEN.azimuth + TURN)
    depths, others = (representation.render(each, SIZE, shading="albedo") for each in (UNSEEN, turned))
    normals, other_normals = (2.0 * each.rgb - each.alpha for each in (representation.render(c, SIZE, shading="normal") for c in (UNSEEN, turned)))
    found = correspond(depths.depth, UNSEEN, others.depth, turned, FOG)
    return {"depths disagree": float(depth_agreement(found)), "normals disagree": float(normal_agreement(normals, other_normals, found))}


def field(kind: str, losses: dict[str, float]) -> Made:
    """A field with view-dependent colors learns 16 pictures of a known object, tinted each its own way; what it shows of 8 others."""
    tensors, learned, unseen = known_object(kind), views_to_learn(), views_unseen()
    true = render_mesh(*tensors, learned, 24, shading="albedo", supersample=2)
    tint = 1.0 + TINT * (2.0 * torch.rand(len(learned), 1, 1, 3, generator=torch.Generator().manual_seed(1)) - 1.0)
    target = Rendered((true.rgb * tint).clamp(0.0, 1.0), true.alpha, true.depth)
    stage = FieldStage(steps=FIELD_STEPS, resolution=64, samples_per_ray=32, view_dependent=True, losses=LossSettings(**losses))
    fitted, objective = RadianceField(stage), make_views_objective(stage)
    optimizer = torch.optim.Adam(fitted.parameter_groups(), lr=0.03, betas=(0.9, 0.99), eps=1e-10)
    generator, begun = torch.Generator().manual_seed(0), time.thread_time()
    for step in range(FIELD_STEPS):
        optimizer.param_groups[0]["lr"] = 0.03 * (1.0 - 0.9 * step / FIELD_STEPS)
        chosen = torch.arange(step, step + 16, 4) % len(learned)
        cameras = learned[chosen]
        seen = fitted.render(cameras, 24, None, "albedo")
        loss = (seen.rgb - target.rgb[chosen]).square().mean() + (seen.alpha - target.alpha[chosen]).square().mean()
        loss = loss + 1e-3 * fitted.regularization({"opacity_entropy"})["opacity_entropy"]
        if objective is not None:
            here = Seen(fitted, Look(cameras, None, "albedo", torch.full((4, 3), 0.5)), seen, 0.0, 1.0, generator)
            loss = loss + sum(objective.terms(here).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.thread_time() - begun
    turned = replace(unseen, azimuth=unseen.azimuth + 10.0)
    with torch.no_grad():
        shown, other = (fitted.render(each, 24, None, "albedo") for each in (unseen, turned))
        truth = render_mesh(*tensors, unseen, 24, shading="albedo", supersample=2)
        flicker = view_interpolation(shown.composite(0.5), other.composite(0.5), correspond(shown.depth, unseen, other.depth, turned))
    figures = {"PSNR of unseen views, dB": psnr(shown, truth), "colors disagree": float(flicker), "seconds": seconds}
    return figures, [shown.composite(0.94), truth.composite(0.94)]


def made(name: str, kind: str, make: Callable[[str, dict[str, float]], Made]) -> dict[str, list[float]]:
    """[without, with] of each figure, stored as soon as they are known."""
    entries = _entries()
    sides = []
    for variant, losses in (("without", {}), (name, CASES[name])):
        key = f"{make.__name__}, {kind}, {variant}"
        picture = RESULTS / f"{key.replace(', ', '-')}.png"
        if key not in entries or not picture.exists():
            figures, rows = make(kind, losses)
            pixels = torch.cat([torch.cat(list(row[:3]), dim=1) for row in rows]).clamp(0.0, 1.0)
            image = Image.fromarray((pixels * 255.0).round().to(torch.uint8).numpy())
            picture.parent.mkdir(parents=True, exist_ok=True)
            image.resize((3 * 96, 2 * 96), Image.Resampling.NEAREST).save(picture, optimize=True)
            entries = _entries() | {key: {label: round(value, 5) for label, value in figures.items()}}
            FIGURES.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        sides.append((entries[key], np.asarray(Image.open(picture))))
    gap = np.full((sides[0][1].shape[0], 12, 3), 255, dtype=np.uint8)
    if kind == "mushroom":
        Image.fromarray(np.concatenate([sides[0][1], gap, sides[1][1]], axis=1)).save(IMAGES / f"{name}.png", optimize=True)
    return {label: [sides[0][0][label], sides[1][0][label]] for label in sides[0][0]}


def _entries() -> dict[str, dict[str, float]]:
    return json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--kinds", nargs="+", default=["mushroom", "chair"])
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table of these figures into this Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| loss | object | measure | without | with |", "|---|---|---|---|---|"]
    for name in arguments.only:
        for kind in arguments.kinds:
            make = field if name == "view_interpolation" else grid
            for label, (without, with_) in made(name, kind, make).items():
                lines.append(f"| `{name}` {CASES[name][name]} | {kind} | {label} | {without:.3g} | {with_:.3g} |")
                print(lines[-1], flush=True)
    if arguments.page:
        before, rest = arguments.page.read_text(encoding="utf-8").split(MARKS[0])
        text = before + MARKS[0] + "\n" + "\n".join(lines) + "\n" + MARKS[1] + rest.split(MARKS[1])[1]
        arguments.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
