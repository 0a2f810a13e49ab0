"""Training of the embedded prior: first the 3D template with the text encoder, then the denoiser on top of it.

Both phases are functions of (seed, step): the batch of a step is drawn by a generator seeded with them, so a run that
was killed and resumed sees what an uninterrupted one sees. States go to `folder` (the user's cache) every minute.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from backend.cameras import Cameras
from backend.toybox.captions import VOCABULARY, caption, words
from backend.toybox.data import GROUPS, ToyData
from backend.toybox.model import VIEWS, TextStates, ToyboxModel, camera_features, over_background
from backend.toybox.unet import IMAGE_SIZE

EMA = 0.999
DROP_CAPTION = 0.1
SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class TrainingSettings:
    """Steps and rates of both phases; batches are counted in objects of four views."""

    seed: int = 0
    template_steps: int = 5000
    unet_steps: int = 5000
    template_batch: int = 16
    unet_batch: int = 16
    rays: int = 112
    template_rate: float = 2e-3
    unet_rate: float = 6e-4
    decay_share: float = 0.3
    volume_smoothness: float = 2e-3


@dataclass(frozen=True)
class TrainingStep:
    """One step done: `phase` is "template" or "unet"; steps count from 1 within the phase."""

    phase: str
    step: int
    steps: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Batch:
    """captions [B]; rgba [B, 4, 4, 32, 32] premultiplied; cameras of B * 4 views."""

    captions: list[str]
    rgba: Tensor
    cameras: Cameras


def train(model: ToyboxModel, data: ToyData, settings: TrainingSettings, folder: Path) -> Iterator[TrainingStep]:
    """Train `model` in place, continuing from what `folder` holds; ends with the averaged (EMA) weights in place."""
    folder.mkdir(parents=True, exist_ok=True)
    template = nn.ModuleDict({"text_encoder": model.text_encoder, "template": model.template})
    yield from _phase("template", template, lambda batch, g: _template_loss(model, batch, settings, g), data, settings, folder)
    template.requires_grad_(False)
    template.eval()
    unet = nn.ModuleDict({"unet": model.unet})
    yield from _phase("unet", unet, lambda batch, g: _unet_loss(model, batch, g), data, settings, folder)


def _phase(name, networks, loss_of, data, settings, folder) -> Iterator[TrainingStep]:
    steps = settings.template_steps if name == "template" else settings.unet_steps
    rate = settings.template_rate if name == "template" else settings.unet_rate
    size = settings.template_batch if name == "template" else settings.unet_batch
    device = next(networks.parameters()).device
    networks.train()
    optimizer = torch.optim.AdamW(networks.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    average = {key: value.detach().clone() for key, value in networks.state_dict().items()}
    done = _restore(folder / f"{name}.pt", networks, optimizer, average, device)
    saved = time.monotonic()
    for step in range(done, steps):
        started = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = rate * _rate_factor(step, steps, settings.decay_share)
        generator = torch.Generator().manual_seed((settings.seed * 2 + (name == "unet")) * 2**32 + step)
        loss = loss_of(draw_batch(data, size, generator, device), generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        decay = min(EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            for key, value in networks.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, 1 - decay)
        if time.monotonic() - saved > SAVE_SECONDS or step + 1 == steps:
            _store(folder / f"{name}.pt", networks, optimizer, average, step + 1)
            saved = time.monotonic()
        yield TrainingStep(name, step + 1, steps, loss.item(), time.monotonic() - started)
    networks.load_state_dict(average)


def _rate_factor(step: int, steps: int, decay_share: float) -> float:
    """Warm up over 100 steps, stay, then fall linearly to 2 % over the last `decay_share` of the steps."""
    warm = min(1.0, (step + 1) / 100)
    left = (steps - step) / max(1.0, decay_share * steps)
    return warm * max(0.02, min(1.0, left))


def _template_loss(model: ToyboxModel, batch: Batch, settings: TrainingSettings, generator: torch.Generator) -> Tensor:
    """Squared error of premultiplied RGBA on random pixels, plus the volume's total variation."""
    count, device = len(batch.captions), batch.rgba.device
    text = model.encode(batch.captions)
    volume = model.template.volume(text.tokens, text.mask, text.pooled)
    origins, directions = batch.cameras.rays(IMAGE_SIZE, IMAGE_SIZE)
    pixels = IMAGE_SIZE * IMAGE_SIZE
    pick = torch.randint(VIEWS * pixels, (count, VIEWS * settings.rays), generator=generator).to(device)[..., None]
    origins, directions = (x.reshape(count, VIEWS * pixels, 3).gather(1, pick.expand(-1, -1, 3)) for x in (origins, directions))
    truth = batch.rgba.permute(0, 1, 3, 4, 2).reshape(count, VIEWS * pixels, 4).gather(1, pick.expand(-1, -1, 4))
    error = (model.template.march(volume, origins, directions) - truth).square().mean()
    density = volume[0]
    variation = sum(density.diff(dim=axis).abs().mean() for axis in (2, 3, 4))
    return error + settings.volume_smoothness * 0.05 * variation


def _unet_loss(model: ToyboxModel, batch: Batch, generator: torch.Generator) -> Tensor:
    """Squared error of the network's unit-variance share of v (see ``model.py``)."""
    count, device = len(batch.captions), batch.rgba.device
    with torch.no_grad():
        text = model.encode(batch.captions)
        guess = template_views(model, text, batch.cameras)
        background = draw_backgrounds(count, generator).to(device).repeat_interleave(VIEWS, 0)
        clean = over_background(batch.rgba.flatten(0, 1), background)
        guess = over_background(guess, background)
        t = torch.randint(0, len(model.alphas_cumprod), (count,), generator=generator).to(device).repeat_interleave(VIEWS)
        abar = model.alphas_cumprod.to(clean)[t].view(-1, 1, 1, 1)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        target = abar.sqrt() * noise - (1 - abar).sqrt() * clean
        camera = camera_features(batch.cameras.azimuth, batch.cameras.elevation)
    predicted, _, scale = model.predict_v(noisy, t, guess, per_view(text), camera, background)
    return ((predicted - target) / scale).square().mean()


def template_views(model: ToyboxModel, text: TextStates, cameras: Cameras, samples: int = 20) -> Tensor:
    """The template's premultiplied RGBA for B captions at B * 4 cameras, [B * 4, 4, 32, 32]."""
    volume = model.template.volume(text.tokens, text.mask, text.pooled)
    origins, directions = cameras.rays(IMAGE_SIZE, IMAGE_SIZE)
    shape = (len(text.pooled), -1, 3)
    rgba = model.template.march(volume, origins.reshape(shape), directions.reshape(shape), samples)
    return rgba.view(-1, IMAGE_SIZE, IMAGE_SIZE, 4).permute(0, 3, 1, 2)


def per_view(text: TextStates) -> TextStates:
    """One row a caption -> one row a view."""
    return TextStates(*(x.repeat_interleave(VIEWS, 0) for x in (text.tokens, text.mask, text.pooled)))


def draw_backgrounds(count: int, generator: torch.Generator) -> Tensor:
    """Random background colors [count, 3]; half of them gray."""
    color = torch.rand(count, 3, generator=generator)
    gray = torch.rand(count, 1, generator=generator).expand(-1, 3)
    return torch.where(torch.rand(count, 1, generator=generator) < 0.5, gray, color)


def draw_batch(data: ToyData, size: int, generator: torch.Generator, device: torch.device | str) -> Batch:
    """`size` random objects, one view group each, with fresh captions; some captions are empty (guidance needs both)."""
    index = torch.randint(len(data), (size,), generator=generator)
    group = torch.randint(GROUPS, (size,), generator=generator)
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    texts = [
        "" if rng.random() < DROP_CAPTION else " ".join(words(caption(data.spec(i), rng))) for i in index.tolist()
    ]
    azimuth, elevation = data.azimuth[index, group].flatten(), data.elevation[index, group].flatten()
    return Batch(texts, data.images[index, group].to(device).float() / 255, Cameras.orbit(azimuth, elevation).to(device))


def new_model(seed: int) -> ToyboxModel:
    """An untrained model over toybox's vocabulary."""
    torch.manual_seed(seed)
    return ToyboxModel.new(list(VOCABULARY))


def _store(path: Path, networks: nn.Module, optimizer: torch.optim.Optimizer, average: dict, step: int) -> None:
    state = {"networks": networks.state_dict(), "optimizer": optimizer.state_dict(), "average": average, "step": step}
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _restore(path: Path, networks: nn.Module, optimizer: torch.optim.Optimizer, average: dict, device) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    networks.load_state_dict(state["networks"])
    optimizer.load_state_dict(state["optimizer"])
    average.update(state["average"])
    return state["step"]
