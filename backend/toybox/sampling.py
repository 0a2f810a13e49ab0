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
from backend.toybox.data import render_object
from backend.toybox.model import VIEWS, References, ToyboxModel, camera_features, over_background
from backend.toybox.objects import KINDS, ObjectSpec, build_object, draw_spec
from backend.toybox.unet import CHANNELS, IMAGE_SIZE

GUIDANCE = 2.5
STEPS = 25

SHEET_VIEWS = Cameras.orbit([20.0, 110.0, 200.0, 290.0], 20.0)
SHEET_BACKGROUND = torch.full((VIEWS, 3), 0.9)


@torch.no_grad()
def sample(
    model: ToyboxModel,
    captions: list[str],
    cameras: Cameras,
    background: Tensor,
    generator: torch.Generator,
    references: References | None = None,
) -> tuple[Tensor, Tensor]:
    """DDIM (Song et al. 2021, eq. 12, eta 0) with classifier-free guidance; B captions at B * 4 cameras, with pictures or without.

    Returns the pictures and the model's own 3D guesses, both [B * 4, 4, 32, 32] in [-1, 1] over `background` [B * 4, 3].
    """
    count = len(captions)
    text, nothing, clean = model.encode(captions), model.encode([""] * count), None
    volume = model.guess(text)
    if references is not None:
        text, volume, clean = model.look(text, references)
    guess, plain_guess = (over_background(model.render(v, cameras), background) for v in (volume, model.guess(nothing)))
    camera = camera_features(cameras.azimuth, cameras.elevation)
    text, nothing = text.repeat_each(VIEWS), nothing.repeat_each(VIEWS)
    x = torch.randn(count * VIEWS, CHANNELS, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    # The last timestep holds no signal at all; the trailing grid starts just below it.
    grid = torch.linspace(0.98, 0.0, STEPS + 1) * (len(model.alphas_cumprod) - 1)
    for now, after in zip(grid[:-1].long(), grid[1:].long()):
        timesteps = now.expand(len(x))
        asked, _, _ = model.predict_v(x, timesteps, guess, text, camera, background, clean)
        without, _, _ = model.predict_v(x, timesteps, plain_guess, nothing, camera, background)
        v = without + GUIDANCE * (asked - without)
        a, s = (model.alphas_cumprod[now] ** 0.5), (1 - model.alphas_cumprod[now]) ** 0.5
        x0, epsilon = (a * x - s * v).clamp(-1, 1), a * v + s * x
        a, s = (model.alphas_cumprod[after] ** 0.5), (1 - model.alphas_cumprod[after]) ** 0.5
        x = a * x0 + s * epsilon
    return x0, guess


def draw_sample_sheet(model: ToyboxModel, path: Path, held_out: bool, seed: int) -> None:
    """One caption a kind, four views each; the template's guess on the left, the sample on the right."""
    rng, generator = np.random.default_rng([seed, held_out]), torch.Generator().manual_seed(seed)
    rows = []
    for kind in KINDS:
        spec = _spec_of_kind(kind, held_out, rng)
        text = caption(spec, rng)
        pictures, guess = sample(model, [" ".join(words(text))], SHEET_VIEWS, SHEET_BACKGROUND, generator)
        rows.append((text, [guess, pictures]))
    _draw_sheet(rows, path)


def draw_picture_sheet(model: ToyboxModel, path: Path, held_out: bool, seed: int) -> None:
    """One fresh object a kind and no words: the picture that was shown, the guess and the sample from four other sides."""
    rng, generator = np.random.default_rng([seed, held_out, 1]), torch.Generator().manual_seed(seed)
    rows = []
    for kind in KINDS:
        spec = _spec_of_kind(kind, held_out, rng)
        toy = build_object(spec.kind, spec.main, spec.second, spec.size, rng)
        camera = Cameras.orbit(360 * torch.rand(1, generator=generator), 10.0)
        shown = render_object(toy, camera, generator)
        references = References(shown[None], camera.azimuth[None], camera.elevation[None])
        pictures, guess = sample(model, [""], SHEET_VIEWS, SHEET_BACKGROUND, generator, references)
        title = f"{spec.main} {spec.kind.name}, seen at azimuth {camera.azimuth.item():.0f}"
        rows.append((title, [over_background(shown, SHEET_BACKGROUND[:1]), guess, pictures]))
    _draw_sheet(rows, path)


def _draw_sheet(rows: list[tuple[str, list[Tensor]]], path: Path, scale: int = 2, columns: int = 2) -> None:
    """Titled rows of blocks of pictures [K, 4, H, W] in [-1, 1], in so many columns."""
    cell, line, gap = IMAGE_SIZE * scale, 14, 8
    blocks = rows[0][1]
    width = sum(map(len, blocks)) * cell + len(blocks) * gap + 8
    sheet = Image.new("RGB", (columns * width, -(-len(rows) // columns) * (cell + line)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (title, blocks) in enumerate(rows):
        left, top = (i % columns) * width, (i // columns) * (cell + line)
        pen.text((left + 2, top), title, fill="black")
        for block in blocks:
            for picture in block:
                rgb = ((picture[:3] + 1) * 127.5).clamp(0, 255).byte().permute(1, 2, 0).numpy()
                sheet.paste(Image.fromarray(rgb).resize((cell, cell), Image.Resampling.NEAREST), (left, top + line))
                left += cell
            left += gap
    sheet.save(path)


def draw_loss_plot(log: Path, path: Path) -> None:
    """Loss over steps of both phases, from the training log."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    entries = [json.loads(line) for line in log.read_text().splitlines()]
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.2), layout="constrained")
    for axis, phase, title in zip(axes, ("template", "pictures", "unet"), ("3D template", "picture encoder", "denoiser")):
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
