"""At which level a density should be cut into a surface: where its silhouettes agree with the opacity that it renders.

The level is not a constant: a ray meets the surface of level l exactly if the largest interpolated logit along it is at
least l, so one pass over a few views tells for *every* level how well its silhouettes agree with the opacity. Parts that
the opacity shows and the chosen level would still miss (a thin handle, faint as yet) are lifted above it where they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from skimage.measure import euler_number
from torch import Tensor

from backend.rendering.volume import Chords, VolumeImage, peak_along, render_volume, unit_sphere_chords

RECALL = 1.1
"""beta of the F score between silhouettes and opacity: above 1 prefers keeping parts over staying slim."""

SIMPLER = 0.015
"""A level may score this much less than the best one if its surface has fewer pieces and holes."""

VISIBLE = 0.4
"""Rendered opacity from which a pixel is clearly part of the object."""

LOGIT_RANGE = 6.0
"""Logits are clipped to this distance from the level before anything is interpolated between them."""

Axes = list[tuple[int, int, int]]
CUBE_AXES: Axes = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)]
"""Through the faces, edges and corners of a cube: 13 of them."""

FACE_AXES: Axes = [axis for axis in CUBE_AXES if sum(map(abs, axis)) == 1]


@dataclass(frozen=True)
class SampledField:
    """Densities and colors at the vertices of a grid over [-1, 1]^3, indexed [z, y, x]; no gradients.

    density = scale * softplus(sharpness * logit); logits [R, R, R], colors [R, R, R, 3]; `samples` on each ray.
    """

    logits: Float[Tensor, "R R R"]
    colors: Float[Tensor, "R R R 3"]
    scale: float
    sharpness: float
    samples: int

    @torch.no_grad()
    def composite(self, chords: Chords) -> VolumeImage:
        """What rays see, unshaded. Its normals mean nothing."""
        return render_volume(
            self.logits, self.colors, self.colors, chords, scale=self.scale, sharpness=self.sharpness
        )


@dataclass(frozen=True)
class Silhouettes:
    """What V orthographic views of S x S rays see: opacity [V, S, S], peak logit [V, S, S], where it is [V, S, S, 3]."""

    opacity: np.ndarray
    peak: np.ndarray
    where: np.ndarray


def observe(field: SampledField, size: int, axes: Axes = CUBE_AXES) -> Silhouettes:
    """Look at the field along `axes`; opposite views have equal silhouettes."""
    chords = _orthographic_chords(size, field.samples, field.logits.device, axes)
    peak, where = peak_along(field.logits, chords)
    opacity = field.composite(chords).opacity
    shape = (-1, size, size)
    return Silhouettes(
        opacity.view(shape).cpu().numpy(), peak.view(shape).cpu().numpy(), where.view(*shape, 3).cpu().numpy()
    )


def surface_level(logits: np.ndarray, seen: Silhouettes) -> float:
    """The level whose silhouettes agree best with the opacity, by F score; nearly as good and simpler wins."""
    levels, score = scored_levels(seen)
    best = int(np.argmax(score))
    good = np.flatnonzero(score >= score[best] - SIMPLER)
    # The best level first, then by score: it stays unless another one is strictly simpler.
    candidates = [best, *sorted(good[np.linspace(0, len(good) - 1, min(len(good), 7)).astype(int)], key=lambda k: -score[k])]
    candidate_levels = [float(levels[k]) for k in candidates]
    return candidate_levels[int(np.argmin([_complexity(logits, level) for level in candidate_levels]))]


def scored_levels(seen: Silhouettes) -> tuple[np.ndarray, np.ndarray]:
    """Every level that tells rays apart, from the highest, and the F score of its silhouettes against the opacity.

    All scores come from one sort of the peaks: the rays with the k largest peaks are those that meet the surface of the
    k-th peak's level.
    """
    strongest = float(seen.opacity.max())
    if strongest < 1e-6:  # nothing shows at float32's precision: whatever density there is, is near its maximum
        return np.array([float(seen.peak.max()) - 1.0]), np.ones(1)
    order = np.argsort(-seen.peak.reshape(-1), kind="stable")
    peak = seen.peak.reshape(-1)[order].astype(np.float64)
    opacity = seen.opacity.reshape(-1)[order].astype(np.float64) / strongest
    covered = np.cumsum(opacity)
    excess = np.cumsum(1.0 - opacity)
    missed = covered[-1] - covered
    weight = RECALL**2
    score = (1.0 + weight) * covered / ((1.0 + weight) * covered + weight * missed + excess)
    return peak - 1e-3, score


def lift_missed_parts(field: SampledField, level: float, seen: Silhouettes) -> np.ndarray:
    """The logits, raised where the opacity that was `seen` clearly shows what the surface of `level` does not.

    A ray counts as missed if it and its surroundings of two pixels stay below the level: the soft rim of a kept part is
    not a missed part. At most four rounds; what cannot be reached stays as it is.
    """
    logits = field.logits.cpu().numpy()
    resolution, size = logits.shape[0], seen.opacity.shape[1]
    reached = np.ones((1, 5, 5), dtype=bool)
    for _ in range(4):
        covered = ndimage.binary_dilation(seen.peak >= level, structure=reached)
        missed = (seen.opacity > VISIBLE) & ~covered
        if not missed.any():
            break
        # The margin leaves it above the level after blurring.
        needed = level - seen.peak[missed] + 1.0
        index = np.rint((seen.where[missed][:, ::-1] + 1.0) * 0.5 * (resolution - 1)).astype(int)
        lift = np.zeros_like(logits)
        np.maximum.at(lift, tuple(index.clip(0, resolution - 1).T), needed)
        logits = logits + ndimage.gaussian_filter(ndimage.maximum_filter(lift, size=3), 0.6)
        seen = observe(replace(field, logits=torch.as_tensor(logits, device=field.logits.device)), size)
    return logits


def closed_field(logits: np.ndarray, level: float) -> np.ndarray:
    """logits - level, cut by the unit sphere so that every surface is closed."""
    axis = np.linspace(-1.0, 1.0, logits.shape[0], dtype=np.float32)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    cut = (1.0 - radius) * (LOGIT_RANGE * logits.shape[0] / 8.0)
    return np.minimum(logits - np.float32(level), cut.astype(np.float32))


def _orthographic_chords(size: int, samples: int, device: torch.device, axes: Axes) -> Chords:
    forward = torch.nn.functional.normalize(torch.tensor(axes, dtype=torch.float32, device=device), dim=1)
    helper = torch.eye(3, device=device)[forward.abs().argmin(dim=1)]
    right = torch.nn.functional.normalize(torch.linalg.cross(helper, forward), dim=1)
    up = torch.linalg.cross(forward, right)
    offset = (torch.arange(size, device=device) + 0.5) * (2.0 / size) - 1.0
    plane = offset[None, None, :, None] * right[:, None, None] + offset[None, :, None, None] * up[:, None, None]
    origins = (plane - 2.0 * forward[:, None, None]).reshape(-1, 3)
    directions = forward[:, None, None].expand(-1, size, size, 3).reshape(-1, 3)
    return unit_sphere_chords(origins, directions, samples)


def _complexity(logits: np.ndarray, level: float) -> int:
    """Pieces plus tunnels of {logit > level} inside the unit sphere; diagonal contact connects, cavities do not count."""
    inside = ndimage.binary_fill_holes(closed_field(logits, level) > 0.0)
    pieces = ndimage.label(inside, structure=np.ones((3, 3, 3)))[1]
    return 2 * pieces - int(euler_number(inside, connectivity=3))
