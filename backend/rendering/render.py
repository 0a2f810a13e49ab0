"""A triangle mesh with vertex colors to images: rasterize, interpolate, shade, antialias, average down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.fragments import Topology, build_topology
from backend.rendering.lambert import shade
from backend.rendering.lighting import Light, Shading, headlight
from backend.rendering.operators import rasterize, vertex_normals
from backend.rendering.silhouettes import antialias

PLAIN_GRAY = 0.8


class ViewCameras(Protocol):
    """What rendering needs of the cameras."""

    def position(self) -> Tensor: ...

    def clip_matrix(self, aspect: float = 1.0) -> Tensor: ...


@dataclass(frozen=True)
class Rendered:
    """Images of `N` views, row 0 on top.

    Attributes:
        rgb: `[N, R, R, 3]`, premultiplied by alpha.
        alpha: `[N, R, R, 1]`, coverage in [0, 1].
        depth: `[N, R, R]`, distance along the viewing axis to the nearest surface, infinite on the background; it
            carries no gradient.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor

    def composite(self, background: Tensor | float) -> Tensor:
        """`[N, R, R, 3]` over a background color that broadcasts against the images."""
        return self.rgb + (1.0 - self.alpha) * background


def render_mesh(
    vertices: Tensor,
    faces: Tensor,
    colors: Tensor | None,
    cameras: ViewCameras,
    resolution: int,
    *,
    light: Light | None = None,
    shading: Shading = "lit",
    topology: Topology | None = None,
    supersample: int = 1,
) -> Rendered:
    """Differentiable images of a mesh in all `cameras`.

    Args:
        vertices: `[V, 3]` float32, world space.
        faces: `[F, 3]` int32.
        colors: `[V, 3]` in [0, 1], or None for a plain gray.
        cameras: the views, on the device of the mesh.
        resolution: side of the square images, in pixels.
        light: for "lit" and "textureless"; a light at each camera if it is not given.
        shading: "lit" (colors under the light), "albedo" (colors alone), "textureless" (light alone, on white) or
            "normal" (world-space normals, `n / 2 + 1/2`).
        topology: `build_topology(faces)`, if the caller keeps it; built anew otherwise.
        supersample: images are rendered at `supersample * resolution` and averaged down.

    Raises:
        InputError: shapes or types do not fit, or the shading is unknown.
    """
    if shading not in ("lit", "albedo", "textureless", "normal"):
        raise InputError(f'shading is "{shading}"; use "lit", "albedo", "textureless" or "normal".')
    topology = build_topology(faces) if topology is None else topology
    light = headlight(cameras) if light is None else light
    colors = torch.full_like(vertices, PLAIN_GRAY) if colors is None else colors
    normals = torch.zeros_like(vertices) if shading == "albedo" else vertex_normals(vertices, faces)
    clip = to_clip_space(vertices, cameras.clip_matrix())
    fragments = rasterize(clip, faces, resolution * supersample, resolution * supersample)
    image = shade(colors, normals, fragments, faces, light, shading)
    image = antialias(image, fragments, clip, faces, topology)
    image = _average_down(image, supersample)
    return Rendered(image[..., :3], image[..., 3:], _nearest_down(fragments.w.detach(), supersample))


def to_clip_space(vertices: Tensor, clip_matrix: Tensor) -> Tensor:
    """`[V, 3]` through `[N, 4, 4]` matrices to `[N, V, 4]`."""
    return vertices @ clip_matrix[:, :, :3].transpose(1, 2) + clip_matrix[:, None, :, 3]


def _average_down(image: Tensor, factor: int) -> Tensor:
    """`[N, H, W, C]` averaged over blocks of `factor` x `factor` pixels."""
    if factor == 1:
        return image
    pooled = torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), factor)
    return pooled.permute(0, 2, 3, 1)


def _nearest_down(depth: Tensor, factor: int) -> Tensor:
    """`[N, H, W]` depth, the nearest of each block of `factor` x `factor` pixels."""
    if factor == 1:
        return depth
    return -torch.nn.functional.max_pool2d(-depth, factor)
