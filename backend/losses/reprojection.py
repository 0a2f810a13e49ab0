"""Where the pixels of one view are found in another, by their own depth: what losses between views are computed from.

A pixel goes through its depth to a point in space and through the other camera to a place in the other picture. It is
compared there only if the other view can see that point: what lies farther away than the surface which the other view
sees at that place is hidden behind it. What lies in front of that surface is *not* hidden: the other view looks right
through it, and that is a contradiction, which counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SURFACE = 0.05
"""The tolerance, in scene units, that suits surfaces rendered with some dozens of pixels."""


class PinholeCameras(Protocol):
    """`N` cameras with square pictures that look along their own -z, y up; `fov` [N] is vertical, in degrees."""

    fov: Tensor

    def camera_to_world(self) -> Tensor: ...

    def view_matrix(self) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The four pixels around each of many places in N pictures, and their bilinear weights."""

    index: Tensor  # [N, 4, H * W] into the flattened picture
    weights: Tensor  # [N, 4, H * W]

    def of(self, images: Float[Tensor, "N h w C"]) -> Float[Tensor, "N 4 P C"]:
        """The values of the pixels around each place."""
        flat = images.flatten(1, 2)
        index = self.index.flatten(1)[..., None].expand(-1, -1, flat.shape[2])
        return flat.gather(1, index).unflatten(1, self.index.shape[1:])


@dataclass(frozen=True, eq=False)
class Correspondence:
    """What pixels [N, H, W] of views A have to do with views B.

    Attributes:
        within: the pixel shows something whose place lies inside B's picture.
        seen: of those, whose point B can see, see the module's text; never None of background.
        expected: distance of the point along B's viewing axis.
        found: the distance at which B sees a surface there (`expected`, without gradient, where it sees none).
    """

    within: Tensor
    seen: Tensor
    expected: Tensor
    found: Tensor
    neighbors: Neighbors

    def look_up(self, images: Float[Tensor, "N h w C"]) -> Float[Tensor, "N H W C"]:
        """Images of B where the pixels of A are found, interpolated; only meaningful where `within` holds.

        Differentiable in the images alone: what pictures show is compared, and the place where that is done is known.
        """
        mixed = (self.neighbors.of(images) * self.neighbors.weights.detach()[..., None]).sum(1)
        return mixed.unflatten(1, self.within.shape[1:])


def unproject(depth: Float[Tensor, "N H W"], cameras: PinholeCameras) -> Float[Tensor, "N H W 3"]:
    """The points that pixel centers show at `depth`, distances along the viewing axis; row 0 on top."""
    count, height, width = depth.shape
    x = (torch.arange(width, device=depth.device, dtype=depth.dtype) + 0.5) * (2.0 / width) - 1.0
    y = 1.0 - (torch.arange(height, device=depth.device, dtype=depth.dtype) + 0.5) * (2.0 / height)
    tangent = _tangent(cameras, depth)[:, None, None]
    x = x[None, None, :] * tangent * depth
    y = y[None, :, None] * tangent * depth
    matrix = cameras.camera_to_world().to(depth.dtype)
    local = torch.stack([x, y, -depth], dim=-1)
    return torch.einsum("nij,nhwj->nhwi", matrix[:, :3, :3], local) + matrix[:, None, None, :3, 3]


def project(
    points: Float[Tensor, "N H W 3"], cameras: PinholeCameras
) -> tuple[Float[Tensor, "N H W 2"], Float[Tensor, "N H W"]]:
    """Places in square pictures, from -1 (left, bottom) to 1 (right, top), and distances along the viewing axis."""
    matrix = cameras.view_matrix().to(points.dtype)
    local = torch.einsum("nij,nhwj->nhwi", matrix[:, :3, :3], points) + matrix[:, None, None, :3, 3]
    distance = -local[..., 2]
    safe = torch.where(distance.abs() < 1e-6, torch.full_like(distance, 1e-6), distance)
    return local[..., :2] / (safe * _tangent(cameras, points)[:, None, None])[..., None], distance


def correspond(
    depth: Float[Tensor, "N H W"],
    cameras: PinholeCameras,
    other_depth: Float[Tensor, "N h w"],
    other_cameras: PinholeCameras,
    tolerance: float = SURFACE,
) -> Correspondence:
    """Find the pixels of views A, which have `depth` (infinite on the background), in views B.

    A point counts as hidden if it lies more than `tolerance` (scene units) behind the surface that B sees; and B sees no
    surface where the depths of the four pixels around a place are farther apart than that. Differentiable in both depths:
    places, expected and found distances move with them; who is seen does not.
    """
    shown = depth.isfinite()
    points = unproject(torch.where(shown, depth, torch.ones_like(depth)), cameras)
    places, expected = project(points, other_cameras)
    within = shown & (places.detach().abs() <= 1.0).all(-1) & (expected.detach() > 0.0)
    neighbors = _neighbors(places, other_depth.shape[1], other_depth.shape[2])

    surface = other_depth.isfinite()
    around = neighbors.of(torch.where(surface, other_depth, torch.zeros_like(other_depth))[..., None])[..., 0]
    sees_one = neighbors.of(surface[..., None].to(depth.dtype))[..., 0].amin(1) > 0.5
    apart = around.detach().amax(1) - around.detach().amin(1)
    found = (around * neighbors.weights).sum(1)
    smooth = (sees_one & (apart < tolerance)).unflatten(1, shown.shape[1:])
    found = torch.where(smooth, found.unflatten(1, shown.shape[1:]), expected.detach())
    in_front = expected.detach() < found.detach() + tolerance
    return Correspondence(within, within & smooth & in_front, expected, found, neighbors)


def mean_over(values: Float[Tensor, "N H W"], chosen: Bool[Tensor, "N H W"]) -> Float[Tensor, ""]:
    """The mean of the chosen values, 0 where none is; what is not chosen may hold anything."""
    return torch.where(chosen, values, torch.zeros_like(values)).sum() / chosen.sum().clamp_min(1)


def _neighbors(places: Float[Tensor, "N H W 2"], height: int, width: int) -> Neighbors:
    """Around places in pictures of `height` x `width`; beyond the outermost pixel centers their values hold."""
    x = ((places[..., 0] + 1.0) * (0.5 * width) - 0.5).clamp(0.0, width - 1.0).flatten(1)
    y = ((1.0 - places[..., 1]) * (0.5 * height) - 0.5).clamp(0.0, height - 1.0).flatten(1)
    left = x.detach().floor().clamp_max(max(0, width - 2))
    top = y.detach().floor().clamp_max(max(0, height - 2))
    right, bottom = (left + 1.0).clamp_max(width - 1.0), (top + 1.0).clamp_max(height - 1.0)
    across, down = x - left, y - top
    index = torch.stack([top * width + left, top * width + right, bottom * width + left, bottom * width + right], dim=1)
    weights = torch.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across], dim=1)
    return Neighbors(index.long(), weights)


def _tangent(cameras: PinholeCameras, like: Tensor) -> Float[Tensor, "N"]:
    return torch.tan(cameras.fov.to(like.dtype) * (math.pi / 360.0))
