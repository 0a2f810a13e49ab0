"""Random camera groups for score distillation: evenly spaced in azimuth, as multi-view priors were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from backend.cameras.orbit import Cameras

if TYPE_CHECKING:  # the operators need no more than torch and Warp
    from protocol.settings import CameraSettings


def sample_view_group(settings: CameraSettings, generator: torch.Generator) -> Cameras:
    """`settings.views` cameras, evenly spaced in azimuth from a random start, all at one random elevation.

    Draws exactly two uniform numbers from `generator`; the cameras live on the generator's device. The elevation is
    uniform in degrees between the two bounds (MVDream, Shi et al. 2023, section 3.2, draws its groups in this way).
    """
    start, height = torch.rand(2, generator=generator, device=generator.device).unbind()
    azimuth = (start + torch.arange(settings.views, device=generator.device) / settings.views) * 360.0 % 360.0
    span = settings.elevation_max - settings.elevation_min
    elevation = (settings.elevation_min + span * height).expand(settings.views)
    return Cameras.orbit(azimuth, elevation, settings.distance, settings.fov)
