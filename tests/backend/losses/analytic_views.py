"""Views of balls and walls in closed form: depth along the viewing axis, infinite where nothing is, and what they show."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.cameras import Cameras


def ball_depth(cameras: Cameras, size: int, radius: float = 0.8, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """[N, size, size] float64 depth of a ball; infinite on the background."""
    origins, directions = (each.double() for each in cameras.rays(size, size))
    from_center = origins - torch.tensor(center, dtype=torch.float64)
    half = (from_center * directions).sum(-1)
    inside = half.square() - from_center.square().sum(-1) + radius**2
    distance = -half - inside.clamp_min(0.0).sqrt()
    axis = -cameras.camera_to_world()[:, :3, 2].double()
    depth = distance * torch.einsum("nhwc,nc->nhw", directions, axis)
    return torch.where(inside > 0.0, depth, torch.inf)


def wall(depth: float, size: int, views: int = 1) -> Tensor:
    """[views, size, size] float64: the same depth everywhere."""
    return torch.full((views, size, size), depth, dtype=torch.float64)


def aside(offset: float) -> Cameras:
    """The camera in front, moved to the right without turning."""
    one = Cameras.orbit([0.0], 0.0)
    return Cameras(one.azimuth, one.elevation, one.distance, one.fov, torch.tensor([[offset, 0.0, 0.0]]))
