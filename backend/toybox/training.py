"""Training of the embedded prior: the 3D template with the text encoder, the picture encoder on top, the denoiser on both.

All phases are functions of (seed, step): the batch of a step is drawn by a generator seeded with them, so a run that
was killed and resumed sees what an uninterrupted one sees. States go to `folder` (the user's cache) every minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from backend.cameras import Cameras
from backend.toybox.captions import VOCABULARY, caption, words
from backend.toybox.data import GROUPS, ToyData
from backend.toybox.model import VIEWS, References, ToyboxModel, camera_features, over_background
from backend.toybox.template import Volume
from backend.toybox.unet import IMAGE_SIZE

EMA = 0.999
DROP_CAPTION = 0.1
DROP_CAPTION_WITH_PICTURES = 0.5
TWO_PICTURES = 0.3
SAVE_SECONDS = 60.0


PHASES = ("template", "unet", "pictures")
"""What is trained; they run in the order template, pictures, unet. The order here numbers their random streams."""


@dataclass(frozen=True)
class TrainingSettings:
    """Steps and rates of the phases; batches are counted in objects of four views."""

    seed: int = 0
    template_steps: int = 5000
    pictures_steps: int = 2500
    unet_steps: int = 5000
    template_batch: int = 16
    pictures_batch: int = 16
    unet_batch: int = 16
    rays: int = 112
    template_rate: float = 2e-3
    pictures_rate: float = 1.5e-3
    unet_rate: float = 6e-4
    decay_share: float = 0.3
    volume_smoothness: float = 2e-3


@dataclass(frozen=True)
class TrainingStep:
    """One step done: `phase` is one of `PHASES`; steps count from 1 within the phase."""

    phase: str
    step: int
    steps: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Batch:
    """captions [B]; rgba [B, 4, 4, 32, 32] premultiplied; cameras of B * 4 views; the pictures that are shown besides, if any."""

    captions: list[str]
    rgba: Tensor
    cameras: Cameras
    references: References | None = None


def train(model: ToyboxModel, data: ToyData, settings: TrainingSettings, folder: Path) -> Iterator[TrainingStep]:
    """Train `model` in place, continuing from what `folder` holds; ends with the averaged (EMA) weights in place."""
    folder.mkdir(parents=True, exist_ok=True)
    template = nn.ModuleDict({"text_encoder": model.text_encoder, "template": model.template})
    yield from _phase("template", template, lambda g: template_loss(model, data, settings, g), settings, folder)
    template.requires_grad_(False)
    template.eval()
    pictures = nn.ModuleDict({"picture_encoder": model.picture_encoder})
    yield from _phase("pictures", pictures, lambda g: pictures_loss(model, data, settings, g), settings, folder)
    # What the encoder tells the denoiser is learned with the denoiser; its volumes stay.
    pictures.requires_grad_(False)
    tell = model.picture_encoder.tell.requires_grad_(True)
    unet = nn.ModuleDict({"unet": model.unet, "tell": tell})
    yield from _phase("unet", unet, lambda g: unet_loss(model, data, settings, g), settings, folder)
    unet.requires_grad_(False)


def _phase(
    name: str,
    networks: nn.ModuleDict,
    loss_of: Callable[[torch.Generator], Tensor],
    settings: TrainingSettings,
    folder: Path,
) -> Iterator[TrainingStep]:
    steps, rate = getattr(settings, f"{name}_steps"), getattr(settings, f"{name}_rate")
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
        generator = torch.Generator().manual_seed((settings.seed * len(PHASES) + PHASES.index(name)) * 2**32 + step)
        loss = loss_of(generator)
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


def template_loss(model: ToyboxModel, data: ToyData, settings: TrainingSettings, generator: torch.Generator) -> Tensor:
    """What the guess from a caption misses of its object's pictures."""
    batch = draw_batch(data, settings.template_batch, generator, _device(model))
    text = model.encode(batch.captions)
    volume = model.guess(text)
    return _volume_loss(model, volume, batch.rgba, batch.cameras, settings, generator)


def pictures_loss(model: ToyboxModel, data: ToyData, settings: TrainingSettings, generator: torch.Generator) -> Tensor:
    """The corrected volume's pictures, at the other cameras and, to one part in five, at that of the first reference."""
    batch = draw_batch(data, settings.pictures_batch, generator, _device(model), _draw_picture_count(generator))
    with torch.no_grad():
        text = model.encode(batch.captions)
    volume, _ = model.correct(text, batch.references)
    shown = batch.references
    azimuth, elevation = (
        torch.cat([a.unflatten(0, (-1, VIEWS)), b[:, :1]], 1).flatten()
        for a, b in ((batch.cameras.azimuth, shown.azimuth), (batch.cameras.elevation, shown.elevation))
    )
    rgba = torch.cat([batch.rgba, shown.pictures[:, :1]], 1)
    return _volume_loss(model, volume, rgba, Cameras.orbit(azimuth, elevation), settings, generator)


def _volume_loss(
    model: ToyboxModel, volume: Volume, rgba: Tensor, cameras: Cameras, settings: TrainingSettings, generator: torch.Generator
) -> Tensor:
    """Squared error of premultiplied RGBA on random pixels, plus the volume's total variation."""
    count, pixels = len(rgba), rgba.shape[1] * IMAGE_SIZE * IMAGE_SIZE
    origins, directions = cameras.rays(IMAGE_SIZE, IMAGE_SIZE)
    pick = torch.randint(pixels, (count, VIEWS * settings.rays), generator=generator).to(rgba.device)[..., None]
    origins, directions = (x.reshape(count, pixels, 3).gather(1, pick.expand(-1, -1, 3)) for x in (origins, directions))
    truth = rgba.permute(0, 1, 3, 4, 2).reshape(count, pixels, 4).gather(1, pick.expand(-1, -1, 4))
    error = (model.template.march(volume, origins, directions) - truth).square().mean()
    density = volume[0]
    variation = sum(density.diff(dim=axis).abs().mean() for axis in (2, 3, 4))
    return error + settings.volume_smoothness * 0.05 * variation


def unet_loss(model: ToyboxModel, data: ToyData, settings: TrainingSettings, generator: torch.Generator) -> Tensor:
    """Half of the objects by their captions alone, half with pictures of them."""
    device, size = _device(model), settings.unet_batch
    alone = draw_batch(data, size - size // 2, generator, device)
    shown = draw_batch(data, size // 2, generator, device, _draw_picture_count(generator))
    errors = [_denoising_error(model, batch, generator) for batch in (alone, shown) if batch.captions]
    return torch.cat(errors).mean()


def _denoising_error(model: ToyboxModel, batch: Batch, generator: torch.Generator) -> Tensor:
    """Squared errors of the network's unit-variance share of v (see ``model.py``)."""
    count, device = len(batch.captions), batch.rgba.device
    with torch.no_grad():
        text = model.encode(batch.captions)
    if batch.references is None:
        volume, references = model.guess(text), None
    else:  # with gradient: `tell` learns here
        text, volume, references = model.look(text, batch.references)
    with torch.no_grad():
        guess = model.render(volume, batch.cameras)
        background = draw_backgrounds(count, generator).to(device).repeat_interleave(VIEWS, 0)
        clean = over_background(batch.rgba.flatten(0, 1), background)
        guess = over_background(guess, background)
        t = torch.randint(0, len(model.alphas_cumprod), (count,), generator=generator).to(device).repeat_interleave(VIEWS)
        abar = model.alphas_cumprod.to(clean)[t].view(-1, 1, 1, 1)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        target = abar.sqrt() * noise - (1 - abar).sqrt() * clean
        camera = camera_features(batch.cameras.azimuth, batch.cameras.elevation)
    predicted, _, scale = model.predict_v(noisy, t, guess, text.repeat_each(VIEWS), camera, background, references)
    return ((predicted - target) / scale).square()


def _device(model: ToyboxModel) -> torch.device:
    return next(model.unet.parameters()).device


def draw_backgrounds(count: int, generator: torch.Generator) -> Tensor:
    """Random background colors [count, 3]; half of them gray."""
    color = torch.rand(count, 3, generator=generator)
    gray = torch.rand(count, 1, generator=generator).expand(-1, 3)
    return torch.where(torch.rand(count, 1, generator=generator) < 0.5, gray, color)


def draw_batch(
    data: ToyData, size: int, generator: torch.Generator, device: torch.device | str, pictures: int = 0
) -> Batch:
    """`size` random objects, one view group each, with fresh captions; some captions are empty (guidance needs both).

    With `pictures` each object is also shown by as many of the four views of its other group, under their own light, and more
    captions are empty: a picture has to do without words.
    """
    index = torch.randint(len(data), (size,), generator=generator)
    group = torch.randint(GROUPS, (size,), generator=generator)
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    drop = DROP_CAPTION_WITH_PICTURES if pictures else DROP_CAPTION
    texts = ["" if rng.random() < drop else " ".join(words(caption(data.spec(i), rng))) for i in index.tolist()]
    references = None
    if pictures:
        view = torch.rand(size, VIEWS, generator=generator).argsort(1)[:, :pictures]
        references = References(*_seen(data, index[:, None], 1 - group[:, None], view, device))
    rgba, azimuth, elevation = _seen(data, index[:, None], group[:, None], torch.arange(VIEWS)[None], device)
    return Batch(texts, rgba, Cameras.orbit(azimuth.flatten(), elevation.flatten()), references)


def _seen(data: ToyData, index: Tensor, group: Tensor, view: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Some views of some objects: pictures [B, V, 4, 32, 32], azimuth and elevation [B, V]."""
    images = data.images[index, group, view].to(device).float() / 255
    return images, data.azimuth[index, group, view].to(device), data.elevation[index, group, view].to(device)


def _draw_picture_count(generator: torch.Generator) -> int:
    return 1 + int(torch.rand((), generator=generator) < TWO_PICTURES)


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
