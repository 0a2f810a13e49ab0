"""The part of a ray that a volume is rendered along: the chord it cuts out of the unit sphere, in equal intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # the operators need no more than torch and Warp
    from jaxtyping import Float


@dataclass(frozen=True)
class Chords:
    """The part of each of P rays inside the unit sphere, cut into equal intervals.

    origins and unit directions [P, 3]; near: where the chord begins, step: an interval's length (0 for a miss), both [P].
    """

    origins: Tensor
    directions: Tensor
    near: Tensor
    step: Tensor
    samples: int

    def __len__(self) -> int:
        return self.near.shape[0]

    def __getitem__(self, rays: slice) -> Chords:
        """The chords of some of the rays."""
        return Chords(self.origins[rays], self.directions[rays], self.near[rays], self.step[rays], self.samples)

    def middles(self) -> Float[Tensor, "P S"]:
        """Distances from the origin of the ray to the samples."""
        index = torch.arange(self.samples, device=self.near.device)
        return self.near[:, None] + self.step[:, None] * (index + 0.5)

    def points(self) -> Float[Tensor, "P S 3"]:
        return torch.addcmul(self.origins[:, None], self.directions[:, None], self.middles()[..., None])

    def points_at(self, rays: Tensor, samples: Tensor) -> Float[Tensor, "M 3"]:
        """Where the samples [M] of the rays [M] lie, both given by their numbers."""
        distance = self.near[rays] + self.step[rays] * (samples + 0.5)
        return torch.addcmul(self.origins[rays], self.directions[rays], distance[:, None])


def unit_sphere_chords(origins: Tensor, directions: Tensor, samples: int) -> Chords:
    """Cut rays [P, 3] (unit directions) to the unit sphere around the origin, in front of their origins."""
    middle = -(origins * directions).sum(-1)
    closest = (origins * origins).sum(-1) - middle * middle
    half = (1.0 - closest).clamp_min(0.0).sqrt()
    near = (middle - half).clamp_min(0.0)
    length = (middle + half - near).clamp_min(0.0)
    return Chords(origins.contiguous(), directions.contiguous(), near, length / samples, samples)
