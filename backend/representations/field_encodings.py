"""How points of the cube [-1, 1]^3 become features that a small network reads a field from.

All draw their start from a generator that they are given, never from torch's global one.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from backend.rendering.hash_grid import HashGridLevels, encode_hash_grid, hash_grid_levels

TABLE_START = 1e-3
"""What is learned of features begins uniform within this of 0: the field begins as its bias."""

FEATURE_GAIN = 10.0
"""Features are this many times what is learned, so that tables learn faster than the network at one learning rate."""


class Encoding(Protocol):
    """Features [P, width] of points [P, 3]; a torch module."""

    width: int

    def __call__(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P F"]: ...


class HashGridEncoding(nn.Module):
    """Learned features at the vertices of grids from coarse to fine, the fine ones hashed (Mueller et al. 2022).

    Few levels of four features instead of many of two: on a CPU the time goes into finding rows, not into reading them.
    Features count in inverse proportion to their level's cells, so that an optimizer's step, which is as large for a row
    seen by one ray as for one seen by all, adds the same slope on every level: without it the fine ones learn grain.
    """

    COARSEST = 8
    LEVELS = 4
    MOST_ROWS = 2**15

    layout: Tensor
    gains: Tensor

    def __init__(self, finest: int, generator: torch.Generator) -> None:
        super().__init__()
        levels = hash_grid_levels(self.COARSEST, finest, self.LEVELS, self.MOST_ROWS)
        self.width = 4 * self.LEVELS
        self.register_buffer("layout", levels.layout, persistent=False)
        gains = FEATURE_GAIN * self.COARSEST / levels.layout[:, 0].float()
        self.register_buffer("gains", gains.repeat_interleave(4), persistent=False)
        self.table = nn.Parameter(_uniform((levels.rows, 4), TABLE_START, generator))

    def forward(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P F"]:
        return encode_hash_grid(points, self.table, HashGridLevels(self.layout, self.table.shape[0])) * self.gains


class TriPlaneEncoding(nn.Module):
    """Learned features on the planes xy, xz and yz, interpolated bilinearly and summed (Chan et al. 2022, section 3.2)."""

    CHANNELS = 16

    def __init__(self, resolution: int, generator: torch.Generator) -> None:
        super().__init__()
        self.width = self.CHANNELS
        self.planes = nn.Parameter(_uniform((3, self.CHANNELS, resolution, resolution), TABLE_START, generator))

    def forward(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P F"]:
        at = torch.stack([points[:, [0, 1]], points[:, [0, 2]], points[:, [1, 2]]])[:, None]
        read = functional.grid_sample(self.planes, at, mode="bilinear", padding_mode="border", align_corners=True)
        return read.sum(dim=0)[:, 0].T * FEATURE_GAIN


class FrequencyEncoding(nn.Module):
    """The coordinates and their sines and cosines at octaves (Mildenhall et al. 2020, equation 4); nothing is learned.

    The shortest wave is as long as four of `resolution` cells along the cube's edge.
    """

    scales: Tensor

    def __init__(self, resolution: int) -> None:
        super().__init__()
        octaves = max(1, round(math.log2(resolution)))
        self.width = 3 + 6 * octaves
        self.register_buffer("scales", 0.5 * math.pi * 2.0 ** torch.arange(octaves), persistent=False)

    def forward(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P F"]:
        angles = (points[:, :, None] * self.scales).flatten(1)
        return torch.cat([points, angles.sin(), angles.cos()], dim=1)


def spherical_harmonics(directions: Float[Tensor, "P 3"]) -> Float[Tensor, "P 8"]:
    """The real spherical harmonics of degrees 1 and 2 at unit vectors; each has mean 0 over the sphere."""
    x, y, z = directions.unbind(dim=-1)
    first, second = math.sqrt(3.0 / (4.0 * math.pi)), math.sqrt(15.0 / (4.0 * math.pi))
    values = [
        first * y,
        first * z,
        first * x,
        second * x * y,
        second * y * z,
        second / math.sqrt(12.0) * (3.0 * z * z - 1.0),
        second * x * z,
        0.5 * second * (x * x - y * y),
    ]
    return torch.stack(values, dim=-1)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (2.0 * torch.rand(shape, generator=generator) - 1.0) * bound
