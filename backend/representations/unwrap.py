"""Texture coordinates: the artist's own where they can be used, else charts made and packed by xatlas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xatlas

from backend.errors import InputError
from backend.representations.mesh_checks import check_colors, check_numbers, check_shapes
from backend.representations.mesh_data import MeshData
from backend.representations.surface_pieces import one_sided_pieces
from backend.representations.texel_map import rasterize_uvs

PADDING = 1.0 / 64.0
"""Room between two charts, as a share of the texture's side; at least LEAST_PADDING texels."""

LEAST_PADDING = 4

MOST_OVERLAP = 0.002
"""Own texture coordinates are usable if at most this share of the covered texels lies under more than one face ..."""

MOST_WITHOUT_AREA = 0.002
"""... and at most this share of the surface has texture coordinates without area."""

OVERLAP_RESOLUTION = 1024
OUTSIDE = 1e-4
"""How far outside the unit square a coordinate may lie by rounding."""

FIRST_GUESS = 1.6
"""How much more padding xatlas is asked for at first: its atlas comes out larger than the one it was asked for."""

ATTEMPTS = 4
LEAST_ROOM = 1.5
"""Charts that come closer than this, in texels, cannot be kept apart even by bilinear filters."""


def unwrap(mesh: MeshData, size: int) -> MeshData:
    """The mesh with texture coordinates for a texture of `size` x `size` texels.

    Its own are kept bit for bit if they can be used (see `usable_uvs`). Otherwise xatlas cuts the surface into charts,
    which lie at least `padding_texels(size)` apart and half as far from the border, all at one scale; less than that
    only where so many charts do not fit otherwise. Positions, faces and their order stay as they are in any case;
    vertices at one place count as one. Faces without area get texture coordinates without area. Deterministic.

    Raises:
        InputError: there is no surface, a coordinate is not finite, an index is out of range, the texture coordinates are
            UDIM tiles, the size is not in 16 to 8192, or the charts cannot be packed into so small a texture.
    """
    if not 16 <= size <= 8192:
        raise InputError(f"A texture of {size} texels a side was asked for; use 16 to 8192.")
    _check_surface(mesh)
    if usable_uvs(mesh):
        return mesh
    places, where = np.unique(mesh.positions.astype(np.float32) + np.float32(0.0), axis=0, return_inverse=True)
    faces = where.reshape(-1)[mesh.faces]
    pieces = one_sided_pieces(places, faces)
    needed = padding_texels(size)
    asked, best, room = int(np.ceil(FIRST_GUESS * needed)), mesh, 0.0
    for _ in range(ATTEMPTS):
        uvs, uv_faces, pixels = _charts(places, faces, pieces, size, asked)
        side = pixels + float(asked)  # half of the padding around all
        if asked * size / side > room:
            room = asked * size / side
            uvs = ((uvs + asked / 2.0) / side).astype(np.float32)
            best = replace(mesh, uvs=uvs, uv_faces=uv_faces.astype(np.int32))
        if room >= needed:
            return best
        asked = int(np.ceil(1.1 * needed * side / size))
    if room < LEAST_ROOM:
        raise InputError(
            f"The mesh falls into too many charts for a texture of {size} x {size} texels; use a larger one, or unwrap it "
            "by hand."
        )
    return best


def padding_texels(size: int) -> int:
    """Texels between two charts in a texture of `size` texels a side."""
    return max(LEAST_PADDING, round(size * PADDING))


def usable_uvs(mesh: MeshData) -> bool:
    """Whether the mesh's own texture coordinates give (almost) each point of the surface a place of its own.

    They must be there, be finite and lie in the unit square; at most MOST_OVERLAP of what they cover may be covered twice
    (counted on a grid of 1024 x 1024 points), and at most MOST_WITHOUT_AREA of the surface may have no area there.

    Raises:
        InputError: they are UDIM tiles, or an index is out of range.
    """
    if mesh.uvs is None or mesh.uv_faces is None:
        return False
    uvs, uv_faces = mesh.uvs, mesh.uv_faces
    if uvs.ndim != 2 or uvs.shape[1] != 2 or uv_faces.shape != mesh.faces.shape:
        raise InputError(
            f"Texture coordinates must be [T, 2] with one row of indices a face, but are {uvs.shape} and {uv_faces.shape} "
            f"for {len(mesh.faces)} faces."
        )
    if uv_faces.size and not (0 <= uv_faces.min() and uv_faces.max() < len(uvs)):
        raise InputError(f"A face names texture coordinates that do not exist ({len(uvs)} do); export the mesh again.")
    corners = uvs.astype(np.float64)[uv_faces]
    if not np.isfinite(corners).all():
        return False
    if (corners < -OUTSIDE).any() or (corners > 1.0 + OUTSIDE).any():
        _refuse_tiles(corners)
        return False
    area = np.abs(_cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    on_surface = _areas(mesh)
    if on_surface[area < 1e-14].sum() > MOST_WITHOUT_AREA * on_surface.sum():
        return False
    return overlapping_share(corners) <= MOST_OVERLAP


def overlapping_share(corners: np.ndarray) -> float:
    """The share of what the texture coordinates `corners` [F, 3, 2] cover that lies under more than one face; 0 for none.

    Seen from the front and from the back, a stack of faces shows two different ones exactly where it is a stack.
    """
    depth = np.linspace(-0.9, 0.9, len(corners)) if len(corners) > 1 else np.zeros(len(corners))
    size = OVERLAP_RESOLUTION
    # Off the lines on which texture coordinates like to lie: a diagonal through texel centers is no overlap.
    shift = (0.317, 0.143)
    front, back = (rasterize_uvs(corners, size, size, order, shift)[0] for order in (depth, -depth))
    covered = front >= 0
    return float((front != back).sum() / max(int(covered.sum()), 1))


def _charts(
    places: np.ndarray, faces: np.ndarray, pieces: np.ndarray, size: int, padding: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """xatlas' coordinates in pixels [T, 2] with v upward, their faces [F, 3], and the longer side of its atlas in pixels."""
    atlas = xatlas.Atlas()
    members = np.split(np.argsort(pieces, kind="stable"), np.cumsum(np.bincount(pieces))[:-1])
    for member in members:
        used, corners = np.unique(faces[member], return_inverse=True)
        atlas.add_mesh(places[used], corners.reshape(-1, 3).astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.padding, packing.resolution = padding, size
    atlas.generate(xatlas.ChartOptions(), packing)
    if atlas.chart_count == 0:
        raise InputError("No face of the mesh has an area: there is nothing to unwrap.")
    uv_faces, uvs, count = np.zeros((len(faces), 3), dtype=np.int64), [], 0
    for index, member in enumerate(members):
        _, corners, coordinates = atlas[index]
        uv_faces[member] = corners.astype(np.int64) + count
        uvs.append(coordinates.astype(np.float64))
        count += len(coordinates)
    return np.concatenate(uvs) * (atlas.width, atlas.height), uv_faces, max(atlas.width, atlas.height)


def _refuse_tiles(corners: np.ndarray) -> None:
    """Raise if every face lies within one tile of the grid of unit squares: that is how UDIM spreads over pictures."""
    low, high = np.floor(corners.min(axis=1) + OUTSIDE), np.ceil(corners.max(axis=1) - OUTSIDE)
    if (high - low <= 1.0).all():
        tiles = sorted({1001 + int(u) + 10 * int(v) for u, v in np.unique(low, axis=0) if 0 <= u < 10 and v >= 0})
        names = ", ".join(map(str, tiles[:6])) + (", ..." if len(tiles) > 6 else "")
        raise InputError(
            f"The texture coordinates lie in UDIM tiles{f' ({names})' if tiles else ''}; only one picture is optimized, so "
            "move all into the first tile (0 to 1) or remove them to have the mesh unwrapped."
        )


def _check_surface(mesh: MeshData) -> None:
    positions, faces = mesh.positions, mesh.faces
    if len(positions) == 0 or len(faces) == 0:
        raise InputError(f"A mesh of {len(positions)} vertices and {len(faces)} faces has nothing to unwrap.")
    check_shapes(positions, faces)
    check_numbers(positions, faces)
    check_colors(mesh.colors, len(positions))


def _areas(mesh: MeshData) -> np.ndarray:
    a, b, c = (mesh.positions.astype(np.float64)[mesh.faces[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2.0


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
