"""Which representation by volume rendering fits a known object best, and at what cost: three fields and the density grid.

    python -m benchmarks.radiance_fields [--steps 200] [--size 64] [--objects mushroom ...] [--pictures FOLDER]

Each learns 16 views of a colored mesh, four a step, lit by a lamp at the camera, and is shown 8 views that it has not
seen. Milliseconds are processor time of one thread; PSNR is over white.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backend.cameras import Cameras
from backend.rendering import Rendered, render_mesh
from backend.representations.density_grid import DensityGrid
from backend.representations.radiance_field import RadianceField
from backend.toybox.objects import build_object, kind_named
from protocol.settings import FieldStage, GridStage

VIEWS_A_STEP = 4


def known_object(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices, faces and colors of a toy object, always the same one."""
    toy = build_object(kind_named(name), "red", "white", "", np.random.default_rng(7))
    return tuple(torch.as_tensor(array) for array in (toy.positions, toy.faces, toy.colors))


def views_to_learn() -> Cameras:
    """16 on two rings and a spiral between them."""
    turn = torch.arange(16) * (360.0 / 16 * 5)
    return Cameras.orbit(turn, torch.linspace(-25.0, 60.0, 16))


def views_unseen() -> Cameras:
    return Cameras.orbit(torch.arange(8) * 45.0 + 13.0, torch.tensor([5.0, 40.0, -15.0, 20.0] * 2))


def psnr(one: Rendered, other: Rendered) -> float:
    return float(-10.0 * (one.composite(1.0) - other.composite(1.0)).square().mean().log10())


def fit(
    representation: DensityGrid | RadianceField, target: Rendered, cameras: Cameras, steps: int, rate: float
) -> list[float]:
    """Learn the pictures by Adam; seconds of processor time of each step."""
    optimizer = torch.optim.Adam(representation.parameter_groups(), lr=rate, betas=(0.9, 0.99), eps=1e-10)
    size, seconds = target.alpha.shape[1], []
    for step in range(steps):
        started = time.thread_time()
        for group in optimizer.param_groups:
            group["lr"] = rate * (1.0 - 0.9 * step / steps)
        chosen = torch.arange(step, step + 4 * VIEWS_A_STEP, 4) % len(cameras)
        if isinstance(representation, DensityGrid):
            representation.sharpness = 1.0 + 2.0 * step / steps
        seen = representation.render(cameras[chosen], size)
        loss = (seen.rgb - target.rgb[chosen]).square().mean() + (seen.alpha - target.alpha[chosen]).square().mean()
        penalty = representation.regularization()
        loss = loss + 1e-3 * penalty["opacity_entropy"]
        if "total_variation" in penalty:
            loss = loss + 1e-3 * penalty["total_variation"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.thread_time() - started)
    return seconds


def contenders(only: list[str] | None) -> dict[str, tuple[DensityGrid | RadianceField, float]]:
    """Each with the learning rate that suits it."""
    every = {
        "density grid 32": (DensityGrid(GridStage(steps=1, resolution=32, samples_per_ray=64)), 0.15),
        "density grid 64": (DensityGrid(GridStage(steps=1, resolution=64, samples_per_ray=64)), 0.15),
        "hash grid": (RadianceField(FieldStage(steps=1, encoding="hash grid")), 0.03),
        "tri-plane": (RadianceField(FieldStage(steps=1, encoding="tri-plane")), 0.03),
        "mlp": (RadianceField(FieldStage(steps=1, encoding="mlp")), 0.003),
    }
    return {name: pair for name, pair in every.items() if only is None or name in only}


def picture(rows: list[Tensor], path: Path) -> None:
    """Rows of images [N, H, W, 3], enlarged."""
    table = torch.cat([torch.cat(list(row), dim=1) for row in rows]).clamp(0.0, 1.0)
    image = Image.fromarray((table.numpy() * 255.0 + 0.5).astype(np.uint8))
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--objects", nargs="+", default=["mushroom", "chair"])
    parser.add_argument("--only", nargs="+", help="names of the first column")
    parser.add_argument("--pictures", type=Path, help="a folder for a picture of each object")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'object':12} {'representation':16} {'PSNR unseen':>11} {'ms, first':>10} {'ms, median':>10} {'ms, last':>9} {'parameters':>10}")
    for name in arguments.objects:
        vertices, faces, colors = known_object(name)
        cameras, unseen = views_to_learn(), views_unseen()
        with torch.no_grad():
            target = render_mesh(vertices, faces, colors, cameras, arguments.size, supersample=4)
            hidden = render_mesh(vertices, faces, colors, unseen, arguments.size, supersample=4)
        rows = [hidden.composite(1.0)]
        for label, (representation, rate) in contenders(arguments.only).items():
            seconds = fit(representation, target, cameras, arguments.steps, rate)
            with torch.no_grad():
                seen = representation.render(unseen, arguments.size)
            rows.append(seen.composite(1.0))
            count = sum(p.numel() for group in representation.parameter_groups() for p in group["params"])
            milliseconds = [1e3 * value for value in (max(seconds[:3]), median(seconds), median(seconds[-20:]))]
            print(
                f"{name:12} {label:16} {psnr(seen, hidden):11.2f} {milliseconds[0]:10.0f} {milliseconds[1]:10.0f} "
                f"{milliseconds[2]:9.0f} {count:10}",
                flush=True,
            )
        if arguments.pictures:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            picture(rows, arguments.pictures / f"{name}.png")


if __name__ == "__main__":
    main()
