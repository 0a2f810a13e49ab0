"""Our renderer beside Blender's Cycles: the same materials under the same light, and how far apart they are.

    python benchmarks/material_against_cycles.py [--samples N] [--picture FILE]

prints the mean absolute difference of each object in linear light (a white Lambert surface shows about 1) and draws ours,
Cycles and their difference side by side. Takes a minute, and the bpy module that the tests use (made on first use).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from backend.rendering.color import to_display  # noqa: E402
from backend.representations.mesh_data import MaterialData  # noqa: E402
from tests.blender import material_scenes  # noqa: E402
from tests.blender.blender import Blender  # noqa: E402
from tests.blender.environments import RELEASES, make_environment  # noqa: E402

ENLARGED = 4.0
"""Differences are drawn so many times as large as they are."""

COPPER, CREAM = (np.array(color, dtype=np.float32) for color in ((0.95, 0.6, 0.45), (0.9, 0.85, 0.75)))
ROUGHNESS = (0.3, 0.5, 0.8)


def shots(resolution: int) -> list[material_scenes.Shot]:
    spheres = [MaterialData(CREAM, 0.0, each) for each in ROUGHNESS]
    spheres += [MaterialData(COPPER, metallic, each) for metallic in (0.5, 1.0) for each in ROUGHNESS]
    lights = material_scenes.LIGHTS
    made = [material_scenes.sphere_grid(f"spheres-{name}", make(), spheres, resolution) for name, make in lights.items()]
    return made + [material_scenes.bumpy_egg("textures-map", lights["map"](), resolution)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=256, help="of Cycles, a pixel")
    parser.add_argument("--resolution", type=int, default=160, help="of each picture, in pixels")
    parser.add_argument("--picture", type=Path, help="where to draw them side by side (PNG or WebP)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = shots(options.resolution)
    with tempfile.TemporaryDirectory() as folder:
        render_with_cycles(every, Path(folder), options.samples)
        for shot in every:
            found = material_scenes.differences(shot, Path(folder))
            print(f"{shot.name:20}", " ".join(f"{each:.4f}" for each in found))
        if options.picture:
            draw(every, Path(folder)).save(options.picture, quality=90)


def render_with_cycles(every: list[material_scenes.Shot], folder: Path, samples: int) -> None:
    for shot in every:
        material_scenes.write(shot, folder)
    blender = Blender(make_environment(RELEASES["blender-4.5"]), folder / "blender", lambda: folder, lambda: folder)
    script = ROOT / "tests" / "blender" / "cycles_pictures.py"
    blender.run(script, folder, samples, function="render", timeout=1200)


def draw(every: list[material_scenes.Shot], folder: Path) -> Image.Image:
    """A column for each shot: ours, Cycles, and the difference around gray."""
    columns = []
    for shot in every:
        (picture, seen), cycles = material_scenes.ours(shot), material_scenes.cycles(shot, folder)
        both = ((seen >= 0) & (cycles[..., 3] > 0.999))[..., None]
        difference = 0.5 + ENLARGED * (picture - cycles[..., :3])
        shown = (to_display(picture), to_display(cycles[..., :3]), difference)
        columns.append(torch.cat([torch.where(both, each, 1.0) for each in shown]))
    pixels = torch.cat(columns, dim=1).clamp(0.0, 1.0).mul(255.0).round().byte().numpy()
    margin = 84
    sheet = Image.new("RGB", (pixels.shape[1] + margin, pixels.shape[0]), "white")
    sheet.paste(Image.fromarray(pixels), (margin, 0))
    side = pixels.shape[0] // 3
    for row, label in enumerate(("Galatea", "Cycles", f"difference\nx {ENLARGED:.0f}, linear")):
        ImageDraw.Draw(sheet).multiline_text((4, row * side + side // 2 - 8), label, fill="black")
    return sheet


if __name__ == "__main__":
    main()
