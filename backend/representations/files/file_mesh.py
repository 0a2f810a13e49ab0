"""What every reader of a mesh file hands over: the file's content in one shape, before anything is welded or checked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from backend.representations.mesh_data import MaterialData


@dataclass
class FileMesh:
    """A file's objects as one mesh, each where its node places it.

    Attributes:
        positions: `[P, 3]` float64, in the file's coordinates; formats split vertices as they like.
        sizes: `[N]` corners of each polygon; `corners` `[C]`: rows of `positions`, one polygon after another.
        uvs: `[T, 2]` float32, v upward, or None; `uv_corners` `[C]`: rows of `uvs`, -1 where a corner has none.
        colors: `[P, 3]` float64 as displayed, or None; rows of NaN where a part of the file has none.
        materials: those that polygons name by `polygon_material` `[N]` (-1: none).
        objects: names, which polygons name by `polygon_object` `[N]`.
        notes: sentences on what was not taken over.
        up, meters: the file's upward axis and its unit's length, where the format says so.
        uvs_are_shared: texture coordinates are rows of their own in the file, to be kept as they are there.
        unknown_materials: rows of `materials` that the file names and does not describe.
        colors_tint: vertex colors are multiplied by the material's color, instead of standing for it.
    """

    positions: np.ndarray
    sizes: np.ndarray
    corners: np.ndarray
    uvs: np.ndarray | None = None
    uv_corners: np.ndarray | None = None
    colors: np.ndarray | None = None
    materials: list[MaterialData] = field(default_factory=list)
    polygon_material: np.ndarray | None = None
    objects: list[str] = field(default_factory=list)
    polygon_object: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    up: str | None = None
    meters: float | None = None
    uvs_are_shared: bool = False
    colors_tint: bool = False
    unknown_materials: frozenset[int] = frozenset()


def joined(parts: list[FileMesh]) -> FileMesh:
    """Parts with the same materials, one object each, as one mesh."""
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        return FileMesh(np.zeros((0, 3)), nothing, nothing)
    counts = np.array([len(part.positions) for part in parts])
    starts = np.cumsum(counts) - counts
    objects = list(dict.fromkeys(part.objects[0] for part in parts))
    colored = any(part.colors is not None for part in parts)
    textured = any(part.uvs is not None for part in parts)
    result = FileMesh(
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.corners + start for part, start in zip(parts, starts, strict=True)]),
        materials=parts[0].materials,
        polygon_material=np.concatenate([part.polygon_material for part in parts]),
        objects=objects,
        polygon_object=np.repeat([objects.index(part.objects[0]) for part in parts], [len(part.sizes) for part in parts]),
        up=parts[0].up,
        meters=parts[0].meters,
    )
    if colored:
        result.colors = np.concatenate([np.full(p.positions.shape, np.nan) if p.colors is None else p.colors for p in parts])
    if textured:
        used = [np.zeros((0, 2), np.float32) if part.uvs is None else part.uvs for part in parts]
        firsts = np.cumsum([len(uvs) for uvs in used]) - [len(uvs) for uvs in used]
        result.uvs = np.concatenate(used)
        result.uv_corners = np.concatenate(
            [
                np.full(len(part.corners), -1) if part.uv_corners is None else part.uv_corners + first
                for part, first in zip(parts, firsts, strict=True)
            ]
        )
    return result
