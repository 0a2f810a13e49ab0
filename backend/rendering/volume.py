"""Volume rendering of a density and color grid inside the unit sphere, composited by nerfacc.

Emission-absorption rendering as in NeRF (Mildenhall et al. 2020, eq. 3): a sample of density sigma on an interval dt
has opacity 1 - exp(-sigma dt), and is seen through the product of the transparencies before it. Samples lie at the
midpoints of equal intervals of the chord that a ray cuts out of the unit sphere: none is spent outside the object's
space, and no random number is drawn.

nerfacc's own marching and everything "packed" needs its CUDA extension; its batched compositing is plain torch and runs
anywhere. The grid is therefore sampled here: by kernels where Warp runs, which keep nothing but densities between
forward and backward, and by plain torch (`reference_*`, the oracle in tests) where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from nerfacc import render_weight_from_density
from torch import Tensor

try:
    from backend.rendering.kernels import runtime
    from backend.rendering.kernels import volume as kernels
except ImportError:  # no Warp wheel for this platform: plain torch does the same, slower
    kernels = None

NEGLIGIBLE = 1e-6
"""Samples that are seen with less than this weight contribute no normal and no color."""


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

    def middles(self) -> Float[Tensor, "P S"]:
        """Distances from the origin of the ray to the samples."""
        index = torch.arange(self.samples, device=self.near.device)
        return self.near[:, None] + self.step[:, None] * (index + 0.5)

    def points(self) -> Float[Tensor, "P S 3"]:
        return torch.addcmul(self.origins[:, None], self.directions[:, None], self.middles()[..., None])


@dataclass(frozen=True)
class VolumeImage:
    """What P rays see, each a sum weighted by visibility: opacity [P], normal and color [P, 3], distance [P]."""

    opacity: Tensor
    normal: Tensor
    color: Tensor
    distance: Tensor


def unit_sphere_chords(origins: Tensor, directions: Tensor, samples: int) -> Chords:
    """Cut rays [P, 3] (unit directions) to the unit sphere around the origin, in front of their origins."""
    middle = -(origins * directions).sum(-1)
    closest = (origins * origins).sum(-1) - middle * middle
    half = (1.0 - closest).clamp_min(0.0).sqrt()
    near = (middle - half).clamp_min(0.0)
    length = (middle + half - near).clamp_min(0.0)
    return Chords(origins.contiguous(), directions.contiguous(), near, length / samples, samples)


def render_volume(
    logits: Float[Tensor, "R R R"],
    normals: Float[Tensor, "R R R 3"],
    colors: Float[Tensor, "R R R 3"],
    chords: Chords,
    *,
    scale: float,
    sharpness: float,
) -> VolumeImage:
    """Composite a grid over [-1, 1]^3 (indexed [z, y, x]) along `chords`.

    Density is scale * softplus(sharpness * logit), activated after interpolating the logits trilinearly; normals and
    colors are interpolated as they are.
    """
    fast = kernels is not None and logits.dtype == torch.float32
    sample, accumulate = (_SampleDensity.apply, _Accumulate.apply) if fast else (reference_density, reference_accumulate)
    density = sample(logits, chords, scale, sharpness)
    ends = chords.step[:, None] * torch.arange(1, chords.samples + 1, device=logits.device)
    weights = render_weight_from_density(ends - chords.step[:, None], ends, density)[0]
    normal, color = accumulate(normals, colors, weights, chords)
    distance = (weights * chords.middles()).sum(1)
    return VolumeImage(opacity=weights.sum(1), normal=normal, color=color, distance=distance)


@torch.no_grad()
def peak_along(logits: Float[Tensor, "R R R"], chords: Chords) -> tuple[Float[Tensor, "P"], Float[Tensor, "P 3"]]:
    """The largest interpolated value along each chord and where it is found.

    A chord meets the level set {logit = l} from outside exactly if its peak is at least l.
    """
    points = chords.points()
    values, index = _trilinear(logits[None], points)[0].max(dim=1)
    return values, points[torch.arange(points.shape[0], device=points.device), index]


def reference_density(
    logits: Float[Tensor, "R R R"], chords: Chords, scale: float, sharpness: float
) -> Float[Tensor, "P S"]:
    """Densities at the samples, in plain torch."""
    values = _trilinear(logits[None], chords.points())[0]
    return scale * functional.softplus(sharpness * values)


def reference_accumulate(
    normals: Float[Tensor, "R R R 3"], colors: Float[Tensor, "R R R 3"], weights: Float[Tensor, "P S"], chords: Chords
) -> tuple[Float[Tensor, "P 3"], Float[Tensor, "P 3"]]:
    """Sums of normals and colors at the samples weighted by `weights`, in plain torch."""
    values = _trilinear(torch.cat([normals, colors], dim=-1).movedim(-1, 0), chords.points())
    sums = (values * weights).sum(-1)
    return sums[:3].T, sums[3:].T


def _trilinear(volume: Float[Tensor, "C R R R"], points: Float[Tensor, "P S 3"]) -> Float[Tensor, "C P S"]:
    sampled = functional.grid_sample(
        volume[None], points[None, None], mode="bilinear", padding_mode="border", align_corners=True
    )
    return sampled[0, :, 0]


class _SampleDensity(torch.autograd.Function):
    """`reference_density` by kernel; gradients flow to the logits alone."""

    @staticmethod
    def forward(ctx, logits: Tensor, chords: Chords, scale: float, sharpness: float) -> Tensor:
        density = torch.empty(chords.near.shape[0], chords.samples, device=logits.device)
        resolution = logits.shape[0]
        runtime.launch(
            kernels.sample_density_kernel,
            chords.near.shape[0],
            [
                logits.detach().contiguous(),
                runtime.rows(chords.origins),
                runtime.rows(chords.directions),
                chords.near,
                chords.step,
                resolution,
                chords.samples,
                scale,
                sharpness,
                density,
            ],
        )
        ctx.save_for_backward(density)
        ctx.chords, ctx.scale, ctx.sharpness, ctx.resolution = chords, scale, sharpness, resolution
        return density

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        (density,) = ctx.saved_tensors
        chords: Chords = ctx.chords
        logits_gradient = torch.zeros((ctx.resolution,) * 3, device=density.device)
        runtime.launch(
            kernels.sample_density_backward_kernel,
            chords.near.shape[0],
            [
                runtime.rows(chords.origins),
                runtime.rows(chords.directions),
                chords.near,
                chords.step,
                ctx.resolution,
                chords.samples,
                ctx.scale,
                ctx.sharpness,
                density,
                gradient.contiguous(),
                logits_gradient,
            ],
        )
        return logits_gradient, None, None, None


class _Accumulate(torch.autograd.Function):
    """`reference_accumulate` by kernel; gradients flow to normals, colors and weights."""

    @staticmethod
    def forward(ctx, normals: Tensor, colors: Tensor, weights: Tensor, chords: Chords) -> tuple[Tensor, Tensor]:
        normals, colors, weights = normals.detach().contiguous(), colors.detach().contiguous(), weights.contiguous()
        normal = torch.empty(weights.shape[0], 3, device=weights.device)
        color = torch.empty_like(normal)
        runtime.launch(
            kernels.accumulate_kernel,
            weights.shape[0],
            [*_accumulate_inputs(normals, colors, weights, chords), runtime.rows(normal), runtime.rows(color)],
        )
        ctx.save_for_backward(normals, colors, weights)
        ctx.chords = chords
        return normal, color

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, normal_gradient: Tensor, color_gradient: Tensor):
        normals, colors, weights = ctx.saved_tensors
        of_normals, of_colors, of_weights = (torch.zeros_like(each) for each in (normals, colors, weights))
        runtime.launch(
            kernels.accumulate_backward_kernel,
            weights.shape[0],
            [
                *_accumulate_inputs(normals, colors, weights, ctx.chords),
                runtime.rows(normal_gradient.contiguous()),
                runtime.rows(color_gradient.contiguous()),
                runtime.rows(of_normals),
                runtime.rows(of_colors),
                of_weights,
            ],
        )
        return of_normals, of_colors, of_weights, None


def _accumulate_inputs(normals: Tensor, colors: Tensor, weights: Tensor, chords: Chords) -> list:
    return [
        runtime.rows(normals),
        runtime.rows(colors),
        weights,
        runtime.rows(chords.origins),
        runtime.rows(chords.directions),
        chords.near,
        chords.step,
        normals.shape[0],
        chords.samples,
        NEGLIGIBLE,
    ]
