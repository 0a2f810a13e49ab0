"""Volume rendering inside the unit sphere, composited by nerfacc.

Emission-absorption rendering as in NeRF (Mildenhall et al. 2020, eq. 3): a sample of density sigma on an interval dt
has opacity 1 - exp(-sigma dt), and is seen through the product of the transparencies before it. Samples lie at the
midpoints of equal intervals of the chord that a ray cuts out of the unit sphere: none is spent outside the object's
space, and no random number is drawn.

nerfacc's own marching needs its CUDA extension; its compositing is plain torch and runs anywhere. Grids are therefore
sampled, and the samples of fields chosen, by kernels of our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as functional
from nerfacc import accumulate_along_rays, render_weight_from_density
from torch import Tensor

from backend.rendering import reference
from backend.rendering.chords import Chords, unit_sphere_chords
from backend.rendering.implementation import implementation
from backend.rendering.lighting import CameraPositions, Light, Shading, headlight
from backend.rendering.reference.volume import trilinear

if TYPE_CHECKING:  # the operators need no more than torch and Warp
    from jaxtyping import Bool, Float, Int32

__all__ = [
    "Chords",
    "VolumeImage",
    "mean_depth",
    "occupied_samples",
    "peak_along",
    "render_parts",
    "render_volume",
    "shade_volume",
    "sum_along",
    "unit_sphere_chords",
    "visibility_weights",
]


@dataclass(frozen=True)
class VolumeImage:
    """What P rays see, each a sum weighted by visibility: opacity [P], normal and color [P, 3], distance [P]."""

    opacity: Tensor
    normal: Tensor
    color: Tensor
    distance: Tensor


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
    room = implementation if logits.dtype == torch.float32 else reference
    density = room.sample_density(logits, chords, scale, sharpness)
    weights = visibility_weights(density, chords)
    normal, color = room.accumulate(normals, colors, weights, chords)
    distance = (weights * chords.middles()).sum(1)
    return VolumeImage(opacity=weights.sum(1), normal=normal, color=color, distance=distance)


def visibility_weights(density: Float[Tensor, "P S"], chords: Chords) -> Float[Tensor, "P S"]:
    """How much each sample adds to what its ray sees; their sum over a ray is its opacity."""
    ends = chords.step[:, None] * torch.arange(1, chords.samples + 1, device=density.device)
    return render_weight_from_density(ends - chords.step[:, None], ends, density)[0]


def sum_along(
    weights: Float[Tensor, "M"], values: Float[Tensor, "M C"], rays: Tensor, count: int
) -> Float[Tensor, "P C"]:
    """Weighted sums over the samples of each of `count` rays; `rays` [M] is the ray of each sample."""
    return accumulate_along_rays(weights, values, rays, count)


def mean_depth(
    distance: Float[Tensor, "N H W"],
    opacity: Float[Tensor, "N H W"],
    cameras: CameraPositions,
    directions: Float[Tensor, "N H W 3"],
) -> Float[Tensor, "N H W"]:
    """Distance along the viewing axis at which rays with these unit directions are stopped in the mean.

    `distance` is the visibility-weighted sum along each ray, as in `VolumeImage`. Infinite, without gradient, where less
    than half of a ray is stopped: there the mean says nothing about a surface.
    """
    stopped = opacity >= 0.5
    axis = -cameras.camera_to_world()[:, :3, 2]
    along = distance / opacity.clamp_min(0.5) * torch.einsum("nhwc,nc->nhw", directions, axis)
    return torch.where(stopped, along, torch.inf)


@torch.no_grad()
def occupied_samples(chords: Chords, bits: Int32[Tensor, "B"], resolution: int) -> Bool[Tensor, "P S"]:
    """Which samples lie in cells whose bit is set; none of a ray that misses the sphere.

    `resolution` cells along each edge of [-1, 1]^3; cell [z, y, x] is number (z * resolution + y) * resolution + x, and
    its bit is number `cell % 32` of `bits[cell // 32]`.
    """
    return implementation.occupied_samples(chords, bits, resolution)


@torch.no_grad()
def peak_along(logits: Float[Tensor, "R R R"], chords: Chords) -> tuple[Float[Tensor, "P"], Float[Tensor, "P 3"]]:
    """The largest interpolated value along each chord and where it is found.

    A chord meets the level set {logit = l} from outside exactly if its peak is at least l.
    """
    points = chords.points()
    values, index = trilinear(logits[None], points)[0].max(dim=1)
    return values, points[torch.arange(points.shape[0], device=points.device), index]


def render_parts(
    density: Float[Tensor, "B D D D"],
    logits: Float[Tensor, "B 4 S S S"],
    colors: Float[Tensor, "B 3 3"],
    chords: Chords,
    *,
    scale: float,
    negligible: float = 0.0,
) -> Float[Tensor, "B P 4"]:
    """Premultiplied RGBA of B volumes of three flat-colored parts; the first P of the B P `chords` see the first volume.

    Density is scale * softplus(value). `logits` hold a shade, 0.8 + 0.3 tanh of it, and the membership of each part, whose
    softmax mixes `colors`; both are looked up at each sample, so borders between parts stay sharp. Samples that are seen with
    no more than `negligible` add no color. Gradients flow only if one of the volumes asks for them, which is slower.
    """
    asked = torch.is_grad_enabled() and any(each.requires_grad for each in (density, logits, colors))
    room = reference if asked or density.dtype != torch.float32 else implementation
    return room.render_parts(density, logits, colors, chords, scale, negligible)


def shade_volume(
    color: Float[Tensor, "N H W 3"],
    normal: Float[Tensor, "N H W 3"],
    alpha: Float[Tensor, "N H W 1"],
    cameras: CameraPositions,
    light: Light | None,
    shading: Shading,
) -> Float[Tensor, "N H W 3"]:
    """Premultiplied color from visibility-weighted sums of color and (unnormalized) normal; as `render_mesh` shades."""
    if shading == "albedo":
        return color
    normal = functional.normalize(normal, dim=-1, eps=1e-6)
    if shading == "normal":
        return (0.5 * normal + 0.5) * alpha
    light = headlight(cameras) if light is None else light
    cosine = torch.einsum("nhwc,nc->nhw", normal, light.direction).clamp_min(0.0)
    ambient = light.ambient[:, None, None]
    factor = (ambient + (1.0 - ambient) * cosine)[..., None]
    return color * factor if shading == "lit" else (factor * alpha).expand(-1, -1, -1, 3)
