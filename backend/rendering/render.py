"""A triangle mesh with vertex colors to images: rasterize, interpolate, shade, antialias, average down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.fragments import Fragments, Topology, build_topology
from backend.rendering.lighting import Light, headlight, lambert
from backend.rendering.operators import antialias, interpolate, rasterize, vertex_normals

Shading = Literal["lit", "albedo", "textureless", "normal"]

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
        depth: `[N, R, R]`, distance along the viewing axis to the nearest surface, infinite on the background; carries no gradient.
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
    clip = to_clip_space(vertices, cameras.clip_matrix())
    side = resolution * supersample
    fragments = rasterize(clip, faces, side, side)
    if shading in ("lit", "textureless") and light is None:
        light = headlight(cameras)
    rgb = _shade(vertices, faces, colors, fragments, light, shading)
    covered = (fragments.face_id >= 0).unsqueeze(-1)
    image = torch.cat([rgb, covered.to(rgb.dtype)], dim=-1)
    image = antialias(image, fragments, clip, faces, topology)
    depth = fragments.w.detach()
    if supersample > 1:
        shape = (len(image), resolution, supersample, resolution, supersample)
        image = image.view(*shape, 4).mean(dim=(2, 4))
        depth = depth.view(shape).amin(dim=(2, 4))
    return Rendered(image[..., :3], image[..., 3:], depth)


def to_clip_space(vertices: Tensor, clip_matrix: Tensor) -> Tensor:
    """`[V, 3]` through `[N, 4, 4]` matrices to `[N, V, 4]`."""
    return vertices @ clip_matrix[:, :, :3].transpose(1, 2) + clip_matrix[:, None, :, 3]


def _shade(
    vertices: Tensor, faces: Tensor, colors: Tensor | None, fragments: Fragments, light: Light | None, shading: Shading
) -> Tensor:
    """Premultiplied color `[N, H, W, 3]` of each fragment."""
    if colors is None:
        colors = torch.full_like(vertices, PLAIN_GRAY)
    if shading == "albedo":
        return interpolate(colors, fragments, faces)
    normals = vertex_normals(vertices, faces)
    if shading == "lit":
        both = interpolate(torch.cat([colors, normals], dim=1), fragments, faces)
        colors_seen, normals_seen = both[..., :3], both[..., 3:]
    else:
        colors_seen, normals_seen = None, interpolate(normals, fragments, faces)
    normals_seen = torch.nn.functional.normalize(normals_seen, dim=-1, eps=1e-8)
    covered = (fragments.face_id >= 0).unsqueeze(-1)
    if shading == "normal":
        return (0.5 * normals_seen + 0.5) * covered
    factor = lambert(normals_seen, light)
    return colors_seen * factor if colors_seen is not None else (factor * covered).expand(-1, -1, -1, 3)
