"""A mesh with a material to images: rasterize, interpolate, look up textures, shade in linear light, display, antialias."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.color import to_display, to_linear
from backend.rendering.fragments import Fragments, Topology, build_topology
from backend.rendering.lighting import Light, headlight
from backend.rendering.material import Material, bend_normals, tangent_corners, vertex_tangents
from backend.rendering.metal_rough import Illumination, shade_material
from backend.rendering.operators import check_faces, interpolate, rasterize, screen_derivatives, vertex_normals
from backend.rendering.render import Rendered, ViewCameras, average_down, nearest_down, to_clip_space
from backend.rendering.silhouettes import antialias, edge_gradient
from backend.rendering.texturing import texture

MaterialShading = Literal["material", "lit", "albedo", "textureless", "normal"]


def render_material(
    vertices: Tensor,
    faces: Tensor,
    uvs: Tensor | None,
    uv_faces: Tensor | None,
    material: Material,
    cameras: ViewCameras,
    resolution: int,
    *,
    illumination: Illumination | None = None,
    shading: MaterialShading = "material",
    topology: Topology | None = None,
    tangent_groups: Tensor | None = None,
    supersample: int = 1,
    highest_level: int | None = None,
    silhouettes: Literal["edge-driven", "edge-gradient"] = "edge-driven",
) -> Rendered:
    """Differentiable images of a mesh with a material in all `cameras`.

    Args:
        vertices: `[V, 3]` float32, world space.
        faces: `[F, 3]` int32.
        uvs: `[T, 2]` float32, v upward, or None for a material without textures.
        uv_faces: `[F, 3]` int32, the rows of `uvs` at the corners of each face; None exactly if `uvs` is.
        material: textures, single values or values at the vertices.
        cameras: the views, on the device of the mesh.
        resolution: side of the square images, in pixels.
        illumination: the light; a `Light` at each camera if it is not given. "lit" and "textureless" need a `Light`.
        shading: "material" (see `shade_material`; faces seen from behind are lit from behind, as in Blender), "albedo"
            (base color alone), "lit" (base color, as displayed, under Lambert's law), "textureless" (the same on white)
            or "normal" (world-space normals with the normal map, `n / 2 + 1/2`).
        topology: `build_topology(faces)`, if the caller keeps it; built anew otherwise.
        tangent_groups: `tangent_corners(faces, uvs, uv_faces)`, if the caller keeps it; only used with a normal map.
        supersample: images are rendered at `supersample * resolution` and averaged down.
        highest_level: look textures up trilinearly, in no smaller mip map of the base color than this (and in none of
            fewer texels in the others); `highest_safe_level` keeps charts apart. Bilinearly if it is not given.
        silhouettes: how they become differentiable, see `render_mesh`.

    Raises:
        InputError: shapes or types do not fit, the shading or the kind of silhouettes is unknown, or the light is not of
            a kind that it can use.
    """
    if silhouettes not in ("edge-driven", "edge-gradient"):
        raise InputError(f'silhouettes is "{silhouettes}"; with a material use "edge-driven" or "edge-gradient".')
    light = headlight(cameras) if illumination is None else illumination
    _check(vertices, faces, uvs, uv_faces, material, light, shading)
    if highest_level is not None and highest_level < 0:
        raise InputError(f"highest_level is {highest_level}; give 0 (the full texture) or more.")
    if topology is None:
        topology = build_topology(faces)
        _check_range(uv_faces, uvs)
    if topology.vertex_count > len(vertices):
        raise InputError(f"The faces refer to {topology.vertex_count} vertices, but there are {len(vertices)}.")
    clip = to_clip_space(vertices, cameras.clip_matrix())
    fragments = rasterize(clip, faces, resolution * supersample, resolution * supersample)
    covered = (fragments.face_id >= 0)[..., None].to(vertices.dtype)
    look_up = _Lookup(fragments, clip, faces, uvs, uv_faces)
    if highest_level is not None and material.base_color.dim() == 3:
        look_up.use_mip_maps(max(material.base_color.shape[:2]) / 2**highest_level)
    if shading == "albedo":
        rgb = look_up(material.base_color) * covered
    else:
        normals = vertex_normals(vertices, faces)
        normal, position = interpolate(torch.cat([normals, vertices], dim=1), fragments, faces).split(3, dim=-1)
        if material.normal is not None:
            groups = tangent_corners(faces, uvs, uv_faces) if tangent_groups is None else tangent_groups
            tangents = vertex_tangents(vertices, faces, normals, uvs, uv_faces, groups)
            normal = bend_normals(normal, interpolate(tangents, fragments, groups), look_up(material.normal))
        if shading == "material":
            normal = normal * _sides(vertices.detach(), faces, cameras.position(), fragments)
            toward_viewer = cameras.position()[:, None, None] - position
            albedo = to_linear(look_up(material.base_color))
            surface = (look_up(material.metallic), look_up(material.roughness), normal, toward_viewer)
            radiance = shade_material(albedo, *surface, light)
            if material.emission is not None:
                radiance = radiance + to_linear(look_up(material.emission)) * covered
            rgb = to_display(radiance)
        else:
            rgb = _plain(look_up, material, torch.nn.functional.normalize(normal, dim=-1), covered, light, shading)
    image = torch.cat([rgb, covered], dim=-1)
    if silhouettes == "edge-gradient":
        image = edge_gradient(image, fragments, clip, faces)
    else:
        image = antialias(image, fragments, clip, faces, topology)
    image = average_down(image, supersample)
    return Rendered(image[..., :3], image[..., 3:], nearest_down(fragments.w.detach(), supersample))


class _Lookup:
    """A property of the material at each pixel, `[N, H, W, C]`, or `[C]` where it is the same everywhere."""

    def __init__(
        self, fragments: Fragments, clip: Tensor, faces: Tensor, uvs: Tensor | None, uv_faces: Tensor | None
    ) -> None:
        self._fragments, self._clip, self._faces, self._uvs, self._uv_faces = fragments, clip, faces, uvs, uv_faces
        self._uv = None if uvs is None else interpolate(uvs, fragments, uv_faces)
        self._derivatives: Tensor | None = None
        self._fewest_texels = 1.0

    def use_mip_maps(self, fewest_texels: float) -> None:
        """From now on; in none that is smaller than that on its longer side."""
        self._derivatives = screen_derivatives(self._uvs, self._fragments, self._clip, self._faces, self._uv_faces)
        self._fewest_texels = fewest_texels

    def __call__(self, values: Tensor) -> Tensor:
        if values.dim() == 1:
            return values
        if values.dim() == 2:
            return interpolate(values, self._fragments, self._faces)
        if self._derivatives is None:
            return texture(values, self._uv)
        level = max(0, math.floor(math.log2(max(values.shape[:2]) / self._fewest_texels)))
        return texture(values, self._uv, self._derivatives, filter="trilinear", highest_level=level)


def _sides(vertices: Tensor, faces: Tensor, eyes: Tensor, fragments: Fragments) -> Tensor:
    """1 where a pixel sees a face from the front, -1 from behind; `[N, H, W, 1]`."""
    if len(faces) == 0:
        return torch.ones_like(fragments.w)[..., None]
    first, second, third = vertices[faces.long()].unbind(dim=1)
    facing = torch.linalg.cross(second - first, third - first)
    ahead = eyes @ facing.T >= (first * facing).sum(dim=1)
    seen = ahead.flatten(1).gather(1, fragments.face_id.flatten(1).clamp_min(0).long())
    return torch.where(seen, 1.0, -1.0).view(*fragments.face_id.shape, 1)


def _plain(
    look_up: _Lookup, material: Material, normal: Tensor, covered: Tensor, light: Light, shading: MaterialShading
) -> Tensor:
    """The pictures that `render_mesh` makes too, with the material's colors and normals."""
    if shading == "normal":
        return (0.5 * normal + 0.5) * covered
    share = light.ambient[:, None, None, None]
    cosine = (normal * light.direction[:, None, None]).sum(dim=-1, keepdim=True).clamp_min(0.0)
    brightness = (share + (1.0 - share) * cosine) * covered
    return brightness.expand(-1, -1, -1, 3) if shading == "textureless" else look_up(material.base_color) * brightness


def _check(
    vertices: Tensor,
    faces: Tensor,
    uvs: Tensor | None,
    uv_faces: Tensor | None,
    material: Material,
    light: Illumination,
    shading: str,
) -> None:
    if shading not in get_args(MaterialShading):
        raise InputError(f'shading is "{shading}"; use one of {", ".join(get_args(MaterialShading))}.')
    if shading in ("lit", "textureless") and not isinstance(light, Light):
        raise InputError(f'"{shading}" needs a Light, not {type(light).__name__}; use "material" for it.')
    if (uvs is None) != (uv_faces is None):
        raise InputError("uvs and uv_faces belong together; give both or neither.")
    if vertices.dim() != 2 or vertices.shape[1] != 3 or vertices.dtype != torch.float32:
        raise InputError(f"vertices must be float32 of shape [V, 3], not {vertices.dtype} {list(vertices.shape)}.")
    check_faces(faces, vertices.device)
    if uvs is None:
        if material.has_textures():
            raise InputError("The material has textures, but the mesh has no uvs; unwrap it, or give single values.")
    else:
        if uvs.dim() != 2 or uvs.shape[1] != 2 or uvs.dtype != torch.float32:
            raise InputError(f"uvs must be float32 of shape [T, 2], not {uvs.dtype} {list(uvs.shape)}.")
        check_faces(uv_faces, uvs.device)
        if uv_faces.shape != faces.shape:
            raise InputError(f"uv_faces has {len(uv_faces)} faces, but the mesh has {len(faces)}.")
    for name in ("base_color", "metallic", "roughness", "emission"):
        values: Tensor | None = getattr(material, name)
        if values is not None and values.dim() == 2 and len(values) != len(vertices):
            raise InputError(f"{name} has values for {len(values)} vertices, but the mesh has {len(vertices)}.")


def _check_range(uv_faces: Tensor | None, uvs: Tensor | None) -> None:
    if uv_faces is None or len(uv_faces) == 0:
        return
    lowest, highest = int(uv_faces.min()), int(uv_faces.max())
    if lowest < 0 or highest >= len(uvs):
        raise InputError(f"uv_faces refers to rows {lowest} to {highest} of uvs, which has {len(uvs)}.")
    if not bool(uvs.isfinite().all()):
        raise InputError("Some texture coordinates are not numbers; unwrap the mesh anew or leave them out.")
