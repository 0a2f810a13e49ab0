"""A triangle mesh with vertex colors to images: rasterize, interpolate, shade, antialias, average down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.constants import SMALLEST_LENGTH
from backend.rendering.fragments import Topology, build_topology
from backend.rendering.lambert import shade
from backend.rendering.lighting import Light, Shading, headlight
from backend.rendering.operators import rasterize, vertex_normals
from backend.rendering.silhouettes import antialias, edge_gradient, soft_rasterize

PLAIN_GRAY = 0.8

Silhouettes = Literal["edge-driven", "edge-gradient", "soft"]


@dataclass(frozen=True)
class Softness:
    """The temperatures of soft silhouettes, see `soft_rasterize`; a caller lowers them over time.

    Attributes:
        sigma: of outlines, in squared units of half the image's height.
        gamma: of depth, in scene units along the viewing axis.
    """

    sigma: float = 1e-4
    gamma: float = 1e-2


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
            carries a gradient only where a volume was rendered, whose rays are stopped in the mean at that distance.
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
    silhouettes: Silhouettes = "edge-driven",
    softness: Softness = Softness(),
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
        silhouettes: how they become differentiable: "edge-driven" (blended by where edges cross pixel pairs),
            "edge-gradient" (hard in value, with gradients of their steps) or "soft" (every face is spread out; depth
            is then a mean, too).
        softness: the temperatures of "soft".

    Raises:
        InputError: shapes or types do not fit, or the shading or the kind of silhouettes is unknown.
    """
    if silhouettes not in ("edge-driven", "edge-gradient", "soft"):
        raise InputError(f'silhouettes is "{silhouettes}"; use "edge-driven", "edge-gradient" or "soft".')
    if shading not in ("lit", "albedo", "textureless", "normal"):
        raise InputError(f'shading is "{shading}"; use "lit", "albedo", "textureless" or "normal".')
    light = headlight(cameras) if light is None else light
    colors = torch.full_like(vertices, PLAIN_GRAY) if colors is None else colors
    normals = torch.zeros_like(vertices) if shading == "albedo" else vertex_normals(vertices, faces)
    clip = to_clip_space(vertices, cameras.clip_matrix())
    size = resolution * supersample
    if silhouettes == "soft":
        image, depth = _soft_image(clip, faces, colors, normals, light, shading, size, softness)
    else:
        fragments = rasterize(clip, faces, size, size)
        image, depth = shade(colors, normals, fragments, faces, light, shading), fragments.w
        if silhouettes == "edge-gradient":
            image = edge_gradient(image, fragments, clip, faces)
        else:
            topology = build_topology(faces) if topology is None else topology
            image = antialias(image, fragments, clip, faces, topology)
    image = average_down(image, supersample)
    return Rendered(image[..., :3], image[..., 3:], nearest_down(depth.detach(), supersample))


def _soft_image(
    clip: Tensor,
    faces: Tensor,
    colors: Tensor,
    normals: Tensor,
    light: Light,
    shading: Shading,
    size: int,
    softness: Softness,
) -> tuple[Tensor, Tensor]:
    """Premultiplied color and coverage `[N, S, S, 4]`, and depth, of faces that are mixed before they are shaded."""
    both = torch.cat([colors, normals], dim=1)
    soft = soft_rasterize(clip, faces, size, size, sigma=softness.sigma, gamma=softness.gamma, attributes=both)
    coverage = soft.coverage[..., None]
    rgb, normal = soft.attributes.split(3, dim=-1)
    if shading != "albedo":
        normal = torch.nn.functional.normalize(normal, dim=-1, eps=SMALLEST_LENGTH)
        cosine = (normal * light.direction[:, None, None, :]).sum(dim=-1, keepdim=True).clamp_min(0.0)
        ambient = light.ambient[:, None, None, None]
        lit = ambient + (1.0 - ambient) * cosine
        rgb = {"lit": rgb * lit, "textureless": lit.expand_as(rgb), "normal": 0.5 * normal + 0.5}[shading]
    return torch.cat([rgb * coverage, coverage], dim=-1), soft.depth


def to_clip_space(vertices: Tensor, clip_matrix: Tensor) -> Tensor:
    """`[V, 3]` through `[N, 4, 4]` matrices to `[N, V, 4]`."""
    return vertices @ clip_matrix[:, :, :3].transpose(1, 2) + clip_matrix[:, None, :, 3]


def average_down(image: Tensor, factor: int) -> Tensor:
    """`[N, H, W, C]` averaged over blocks of `factor` x `factor` pixels."""
    if factor == 1:
        return image
    pooled = torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), factor)
    return pooled.permute(0, 2, 3, 1)


def nearest_down(depth: Tensor, factor: int) -> Tensor:
    """`[N, H, W]` depth, the nearest of each block of `factor` x `factor` pixels."""
    if factor == 1:
        return depth
    return -torch.nn.functional.max_pool2d(-depth, factor)
