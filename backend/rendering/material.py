"""A metal-rough material as tensors that can be optimized, and the tangent frames that its normal map is told in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.constants import SMALLEST_LENGTH

CHANNELS = {"base_color": 3, "metallic": 1, "roughness": 1, "normal": 3, "emission": 3}


@dataclass(frozen=True)
class Material:
    """Each property is a texture `[H, W, C]` (row 0 at v = 1), one value `[C]`, or one value a vertex `[V, C]`.

    Attributes:
        base_color: 3 channels in [0, 1], as displayed (sRGB): what diffuse surfaces scatter and metals reflect.
        metallic: 1 channel in [0, 1].
        roughness: 1 channel in [0, 1].
        normal: tangent-space normal map `[H, W, 3]` of vectors around (0, 0, 1), x along u and y along v as in glTF, or
            None for the normals of the vertices.
        emission: 3 channels in [0, 1], as displayed, or None for a surface that does not shine.

    Raises:
        InputError: a property has another shape or type.
    """

    base_color: Tensor
    metallic: Tensor
    roughness: Tensor
    normal: Tensor | None = None
    emission: Tensor | None = None

    def __post_init__(self) -> None:
        for name, channels in CHANNELS.items():
            values: Tensor | None = getattr(self, name)
            if values is None and name in ("normal", "emission"):
                continue
            sizes = "[H, W, 3]" if name == "normal" else f"[H, W, {channels}], [V, {channels}] or [{channels}]"
            dimensions = (3,) if name == "normal" else (1, 2, 3)
            if not isinstance(values, Tensor):
                raise InputError(f"{name} must be a tensor of shape {sizes}, not {type(values).__name__}.")
            if values.dim() not in dimensions or values.shape[-1] != channels or values.dtype != torch.float32:
                raise InputError(f"{name} must be float32 of shape {sizes}, not {values.dtype} {list(values.shape)}.")

    @staticmethod
    def plain(
        color: tuple[float, float, float],
        metallic: float = 0.0,
        roughness: float = 0.5,
        device: torch.device | str = "cpu",
    ) -> Material:
        """One displayed color, metallic and roughness everywhere."""
        return Material(*(torch.tensor(value, device=device) for value in (list(color), [metallic], [roughness])))

    def has_textures(self) -> bool:
        return any(value is not None and value.dim() == 3 for value in (getattr(self, name) for name in CHANNELS))


def tangent_corners(faces: Tensor, uvs: Tensor, uv_faces: Tensor) -> Tensor:
    """Which corners share a tangent, `[F, 3]` int32: those of one vertex, one texture coordinate and one handedness.

    As MikkTSpace groups them (Mikkelsen 2008): a mirrored chart has tangents of its own where it touches its twin.
    """
    corner_uv = uvs.detach()[uv_faces.long()]
    along, across = corner_uv[:, 1] - corner_uv[:, 0], corner_uv[:, 2] - corner_uv[:, 0]
    mirrored = along[:, 0] * across[:, 1] < along[:, 1] * across[:, 0]
    key = (faces.long() * (len(uvs) + 1) + uv_faces.long()) * 2 + mirrored[:, None]
    return torch.unique(key, return_inverse=True)[1].int()


def vertex_tangents(
    vertices: Tensor, faces: Tensor, normals: Tensor, uvs: Tensor, uv_faces: Tensor, corners: Tensor
) -> Tensor:
    """Tangents `[K, 4]` as glTF has them: unit x along u, and w the sign of the bitangent `w * cross(normal, tangent)`.

    Each face's direction of growing u, laid into the plane of the vertex normal, averaged over the corners that share
    it, weighted by their angles in that plane (MikkTSpace; what Blender computes too). The gradient flows to vertices
    and normals. `corners` is `tangent_corners(faces, uvs, uv_faces)`.
    """
    place, spot = vertices[faces.long()], uvs[uv_faces.long()]
    place = torch.where(place.isfinite().all(dim=-1).all(dim=-1)[:, None, None], place, 0.0)  # others are not drawn
    (e1, e2), (t1, t2) = ((p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]) for p in (place, spot))
    area = t1[:, 0] * t2[:, 1] - t1[:, 1] * t2[:, 0]
    sign = torch.where(area < 0.0, -torch.ones_like(area), 1.0).detach()
    along = _unit((e1 * t2[:, 1:] - e2 * t1[:, 1:]) * sign[:, None])
    normal = normals[faces.long()]
    flat = _unit(_onto_plane(along[:, None], normal))
    ahead, behind = (_unit(_onto_plane(place.roll(shift, 1) - place, normal)) for shift in (-1, 1))
    angle = torch.arccos((ahead * behind).sum(dim=-1).clamp(-1.0 + 1e-6, 1.0 - 1e-6))
    angle = torch.where(area[:, None] == 0.0, 0.0, angle)  # a face without area in the texture has no direction of u
    count = int(corners.max()) + 1 if len(corners) else 0
    index = corners.long().reshape(-1)
    sums = vertices.new_zeros(count, 3).index_add(0, index, (flat * angle[..., None]).reshape(-1, 3))
    signs = vertices.new_ones(count, 1)
    signs[index] = sign[:, None, None].expand(-1, 3, 1).reshape(-1, 1)
    return torch.cat([_unit(sums), signs], dim=1)


def bend_normals(normal: Tensor, tangent: Tensor, mapped: Tensor) -> Tensor:
    """World-space normals `[..., 3]`, of any length, from a normal map's values.

    `normal` `[..., 3]` and `tangent` `[..., 4]` are interpolated and not normalized, as MikkTSpace and Cycles use them.
    """
    bitangent = tangent[..., 3:] * torch.linalg.cross(normal, tangent[..., :3], dim=-1)
    return mapped[..., :1] * tangent[..., :3] + mapped[..., 1:2] * bitangent + mapped[..., 2:] * normal


def _onto_plane(vectors: Tensor, normal: Tensor) -> Tensor:
    return vectors - normal * (normal * vectors).sum(dim=-1, keepdim=True)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1, eps=SMALLEST_LENGTH)
