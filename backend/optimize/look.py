"""Where a step looks from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from backend.cameras import Cameras
from backend.rendering import Light
from backend.rendering.lighting import Shading


@dataclass(frozen=True, eq=False)
class Look:
    """The cameras of a step, its light, and the background that it stands before ([N, 3])."""

    cameras: Cameras
    light: Light
    shading: Shading
    background: Tensor
