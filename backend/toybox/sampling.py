"""Pictures straight from the prior: DDIM sampling of four views, sample sheets and the loss plot."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from backend.cameras import Cameras
from backend.toybox.captions import caption, words
from backend.toybox.model import VIEWS, ToyboxModel, camera_features, over_background
from backend.toybox.objects import KINDS, ObjectSpec, draw_spec
from backend.toybox.training import per_view, template_views
from backend.toybox.unet import CHANNELS, IMAGE_SIZE

GUIDANCE = 2.5
STEPS = 25


@torch.no_grad()
def sample(
    model: ToyboxModel, captions: list[str], cameras: Cameras, background: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """DDIM (Song et al. 2021, eq. 12, eta 0) with classifier-free guidance; B captions at B * 4 cameras.

    Returns the pictures and the template's guesses, both [B * 4, 4, 32, 32] in [-1, 1] over `background` [B * 4, 3].
    """
    count = len(captions)
    text = model.encode([*captions, *[""] * count])
    twice = Cameras(*(torch.cat([x, x]) for x in (cameras.azimuth, cameras.elevation, cameras.distance, cameras.fov)))
    both_backgrounds = background.repeat(2, 1)
    guess = over_background(template_views(model, text, twice), both_backgrounds)
    camera, text = camera_features(twice.azimuth, twice.elevation), per_view(text)
    x = torch.randn(count * VIEWS, CHANNELS, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    # The last timestep holds no signal at all; the trailing grid starts just below it.
    grid = torch.linspace(0.98, 0.0, STEPS + 1) * (len(model.alphas_cumprod) - 1)
    for now, after in zip(grid[:-1].long(), grid[1:].long()):
        v, _, _ = model.predict_v(x.repeat(2, 1, 1, 1), now.expand(len(x) * 2), guess, text, camera, both_backgrounds)
        with_text, without = v.chunk(2)
        v = without + GUIDANCE * (with_text - without)
        a, s = (model.alphas_cumprod[now] ** 0.5), (1 - model.alphas_cumprod[now]) ** 0.5
        x0, epsilon = (a * x - s * v).clamp(-1, 1), a * v + s * x
        a, s = (model.alphas_cumprod[after] ** 0.5), (1 - model.alphas_cumprod[after]) ** 0.5
        x = a * x0 + s * epsilon
    return x0, guess[: len(x0)]


def draw_sample_sheet(model: ToyboxModel, path: Path, held_out: bool, seed: int) -> None:
    """One caption a kind, four views each; the template's guess on the left, the sample on the right."""
    rng, generator = np.random.default_rng([seed, held_out]), torch.Generator().manual_seed(seed)
    specs = [_spec_of_kind(kind, held_out, rng) for kind in KINDS]
    texts = [caption(spec, rng) for spec in specs]
    scale, cell, line = 2, IMAGE_SIZE * 2, 14
    columns = 2
    rows = -(-len(specs) // columns)
    sheet = Image.new("RGB", (columns * (8 * cell + 24), rows * (cell + line)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (spec, text) in enumerate(zip(specs, texts)):
        azimuth = torch.tensor([20.0, 110.0, 200.0, 290.0])
        background = torch.full((VIEWS, 3), 0.9)
        pictures = sample(model, [" ".join(words(text))], Cameras.orbit(azimuth, 20.0), background, generator)
        left, top = (i % columns) * (8 * cell + 24), (i // columns) * (cell + line)
        pen.text((left + 2, top), text, fill="black")
        for j, picture in enumerate([*pictures[1], *pictures[0]]):
            rgb = ((picture[:3] + 1) * 127.5).clamp(0, 255).byte().permute(1, 2, 0).numpy()
            tile = Image.fromarray(rgb).resize((IMAGE_SIZE * scale,) * 2, Image.Resampling.NEAREST)
            sheet.paste(tile, (left + j * cell + (8 if j >= VIEWS else 0), top + line))
    sheet.save(path)


def draw_loss_plot(log: Path, path: Path) -> None:
    """Loss over steps of both phases, from the training log."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    entries = [json.loads(line) for line in log.read_text().splitlines()]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, phase, title in zip(axes, ("template", "unet"), ("3D template", "denoiser")):
        points = {entry["step"]: entry["loss"] for entry in entries if entry["phase"] == phase}
        axis.plot(list(points), list(points.values()), lw=0.8)
        axis.set(title=title, xlabel="step", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _spec_of_kind(kind, held_out: bool, rng: np.random.Generator) -> ObjectSpec:
    while True:
        spec = draw_spec(rng, held_out)
        if spec.kind is kind:
            return spec
