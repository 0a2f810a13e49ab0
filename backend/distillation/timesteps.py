"""The random draws of one distillation step, taken from the job's generator so that a seed repeats them.

Draws are made on the generator's own device and moved afterwards: a CPU generator gives the same numbers on every
machine, whatever the prior runs on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.errors import InputError


def sample_timestep(count: int, t_min: float, t_max: float, generator: torch.Generator) -> Tensor:
    """One timestep for the whole group of views: [] int64, uniform over [t_min, t_max] of a schedule of `count` steps.

    Both ends are included. Views of one object that are noised by different amounts are nothing a multi-view prior has
    ever seen, hence one t and not one for each view.

    Raises:
        InputError: the bounds are outside [0, 1] or the lower one is above the upper one.
    """
    if not 0 <= t_min <= t_max <= 1:
        raise InputError(
            f"The timestep range is {t_min:g} to {t_max:g}; both must lie in 0 to 1 and t_min must not exceed t_max. "
            "Check the schedules t_min and t_max of the stage's guidance."
        )
    low, high = (min(round(fraction * count), count - 1) for fraction in (t_min, t_max))
    return torch.randint(low, high + 1, (), generator=generator, device=generator.device)


def sample_noise(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise of the shape, type and device of `latents`, independent for each view and element."""
    noise = torch.randn(latents.shape, generator=generator, device=generator.device, dtype=latents.dtype)
    return noise.to(latents.device)
