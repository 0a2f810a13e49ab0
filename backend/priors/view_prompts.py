"""Which words tell a text-to-image prior from where it looks (DreamFusion, Poole et al. 2023, section 3.1).

A prior that does not know cameras draws the side it likes best on every side: the Janus problem. A suffix for the
direction lessens it. Priors that are told the camera need none of this.
"""

from __future__ import annotations

import torch
from torch import Tensor

VIEWS = ("front", "side", "back", "overhead")

FRONT_HALF_WIDTH = 45.0
"""Degrees of azimuth to both sides of the front and of the back that still count as such (DreamFusion)."""

OVERHEAD_ABOVE = 60.0
"""Degrees of elevation above which a view counts as overhead whatever its azimuth (DreamFusion)."""


def view_prompts(prompt: str) -> tuple[str, ...]:
    """`prompt` for each of `VIEWS`, as in "a red mug, front view"."""
    return tuple(f"{prompt}, {view} view" for view in VIEWS)


def view_index(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Index into `VIEWS`, [N] int64, of cameras at `azimuth` and `elevation` ([N], degrees; azimuth 0 is the front)."""
    from_front = ((azimuth + 180) % 360 - 180).abs()
    index = torch.ones_like(azimuth, dtype=torch.int64)
    index[from_front <= FRONT_HALF_WIDTH] = VIEWS.index("front")
    index[from_front >= 180 - FRONT_HALF_WIDTH] = VIEWS.index("back")
    index[elevation > OVERHEAD_ABOVE] = VIEWS.index("overhead")
    return index
