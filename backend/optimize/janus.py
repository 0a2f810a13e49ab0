"""From where a view is looked at, by the prior's own reading: an object with two fronts looks like its front from behind (Janus).

A prior that is told the camera, in numbers or in words, predicts the noise in a view better when it is told the true one.
So the same noisy views are shown under the cameras of the ring turned by 0, 90, 180 and 270 degrees, and a view is read as
standing where the error is the lowest: the classifier that any conditional diffusion model is (Li et al. 2023, Your Diffusion
Model is Secretly a Zero-Shot Classifier), here over cameras instead of texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backend.cameras import Cameras
from backend.distillation.denoiser import Denoiser
from backend.distillation.timesteps import sample_noise
from backend.optimize.control_pictures import control_picture
from backend.optimize.pictures import even_light
from backend.optimize.views import render_side
from backend.priors.prior import Conditioning, Prior, Views, add_noise
from backend.representations.representation import Representation
from protocol.settings import StageSettings

TIME = 0.5
"""Share of the schedule."""

AZIMUTHS = (0.0, 90.0, 180.0, 270.0)
BACKGROUND = 0.5

TELLING = 1.2
"""A view can be read where the worst direction's error is so many times the best one's. On true objects of the embedded prior:
1.5 and more for kinds with a front, 1.03 and less for bodies of revolution."""

LEVEL = 1.05
"""The true direction counts as read where its error is within this factor of the best one's: objects with two equal sides."""


@dataclass(frozen=True)
class ViewReading:
    """True and read azimuth in degrees of each view that can be read; and whether the prior heard the cameras at all."""

    views: tuple[tuple[float, float], ...]
    hears_cameras: bool

    @property
    def janus(self) -> float | None:
        """Share of views read wrong by more than 45 degrees; None where fewer than half of them can be read."""
        if 2 * len(self.views) < len(AZIMUTHS):
            return None
        return sum(true != read for true, read in self.views) / len(self.views)

    @property
    def turned(self) -> float | None:
        """By how many degrees all views are read away from where they stand, if by the same, and not by 0."""
        turns = {(read - true) % 360.0 for true, read in self.views}
        return turns.pop() if len(turns) == 1 and len(self.views) > 1 and turns != {0.0} else None


@torch.no_grad()
def read_views(
    representation: Representation, stage: StageSettings, prior: Prior, conditioning: Conditioning, progress: float = 1.0
) -> ViewReading:
    """What the prior reads in four views from all sides. As many predictions of one question as there are directions.

    Draws none of the job's random numbers and does not change the representation.
    """
    settings, device = stage.cameras, prior.alphas_cumprod.device
    middle = (settings.elevation_min + settings.elevation_max) / 2
    cameras = Cameras.orbit(list(AZIMUTHS), middle, settings.distance, settings.fov).to(device)
    background = torch.full((len(cameras), 3), BACKGROUND, device=device)
    side = render_side(stage.render_size, progress, prior.image_size)
    shading = "normal" if stage.shading == "normals" else "lit"
    latents = prior.encode_images(representation.render(cameras, side, even_light(cameras), shading), background)
    control = control_picture(prior.control, representation, cameras, prior.image_size)

    t = torch.tensor(int(TIME * len(prior.alphas_cumprod)), device=device)
    noise = sample_noise(latents, torch.Generator().manual_seed(0))
    errors = []
    for turn in AZIMUTHS:
        told = Cameras.orbit((cameras.azimuth + turn) % 360.0, middle, settings.distance, settings.fov)
        denoiser = Denoiser(prior, conditioning, Views(told, background, control))
        (epsilon,) = denoiser(add_noise(latents, noise, denoiser.alpha_bar(t)), t, "text")
        errors.append((epsilon - noise).square().flatten(1).mean(1))
    table = torch.stack(errors, dim=1).cpu()  # [view, turn]
    best, worst = table.min(1).values, table.max(1).values
    views = [
        (true, true if table[view, 0] <= LEVEL * best[view] else (true + AZIMUTHS[int(table[view].argmin())]) % 360.0)
        for view, true in enumerate(AZIMUTHS)
        if worst[view] > TELLING * best[view]
    ]
    return ViewReading(tuple(views), bool((table != table[:, :1]).any()))
