"""Which point of the surface each texel of a texture shows: a mesh rasterized in its texture coordinates.

A texel shows the surface if its center lies in a chart, or if the rim of a chart passes through it: then it shows the
rim's point nearest to its center. So the smallest chart has a texel, and bilinear lookups anywhere in a chart read
texels of that chart and texels beside those, which hold what the nearest texel of the surface holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from backend.errors import InputError
from backend.rendering import rasterize
from backend.representations.mesh_data import MeshData

RIM_STEP = 0.25
"""Distance in texels between the points of a rim that are looked at."""


@dataclass(frozen=True)
class TexelMap:
    """Texels of a `[H, W]` texture, row 0 on top.

    Attributes:
        face: int32 `[H, W]`, the face that a texel shows, -1 where there is none.
        barycentrics: float32 `[H, W, 3]`, the point of that face.
        chart: int32 `[F]`, the chart of each face: faces connected through edges in texture coordinates.
    """

    face: np.ndarray
    barycentrics: np.ndarray
    chart: np.ndarray

    @property
    def covered(self) -> np.ndarray:
        """Whether a texel shows the surface, bool `[H, W]`."""
        return self.face >= 0

    @cached_property
    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """For each texel the flat index of the nearest one that shows the surface, and how far it is, int `[H, W]`.

        Distances are counted along the longer axis, as filters reach equally far to the sides and along diagonals.
        """
        distance, (row, column) = ndimage.distance_transform_cdt(~self.covered, "chessboard", return_indices=True)
        return row.astype(np.int64) * self.face.shape[1] + column, distance

    @cached_property
    def margin(self) -> float:
        """How many texels around every chart are nearer to it than to another chart, also across the texture's borders.

        Infinite for a single chart.
        """
        source, distance = self.nearest
        owner = self.chart[self.face.reshape(-1)[source]]
        room = np.inf
        for axis in (0, 1):
            foreign = owner != np.roll(owner, -1, axis)
            smaller = np.minimum(distance, np.roll(distance, -1, axis))
            room = min(room, float(smaller[foreign].min(initial=np.iinfo(smaller.dtype).max)))
        return room if room < max(owner.shape) else np.inf

    def fill(self, image: np.ndarray) -> np.ndarray:
        """`image` `[H, W, ...]` where every texel that shows no surface holds what the nearest one that does holds."""
        return image.reshape(-1, *image.shape[2:])[self.nearest[0]]

    def side_by_side(self) -> tuple[np.ndarray, np.ndarray]:
        """The flat indices [T] of the covered texels, and pairs [E, 2] of rows of that list: neighbors along a row or a column of
        which both show the same chart."""
        texels = np.flatnonzero(self.covered)
        row = np.full(self.face.size, -1, dtype=np.int64)
        row[texels] = np.arange(len(texels))
        row, owner = row.reshape(self.face.shape), np.where(self.covered, self.chart[self.face], -1)
        pairs = []
        for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            same = (owner[one] == owner[other]) & (owner[one] >= 0)
            pairs.append(np.stack([row[one][same], row[other][same]], axis=1))
        return texels, np.concatenate(pairs)

    def interpolate(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """`values` `[V, C]` of the corners `faces` `[F, 3]`, at the points that the covered texels show, `[K, C]` float32.

        The K texels are those of `covered`, row by row.
        """
        rows = faces[self.face[self.covered]]
        return np.einsum("pk,pkc->pc", self.barycentrics[self.covered], values[rows]).astype(np.float32)


def map_texels(mesh: MeshData, height: int, width: int) -> TexelMap:
    """The points of `mesh` that the texels of a `height` x `width` texture show. Where charts overlap, one face wins.

    Raises:
        InputError: the mesh has no texture coordinates, or they cover no texel.
    """
    if mesh.uvs is None or mesh.uv_faces is None:
        raise InputError("The mesh has no texture coordinates; unwrap it first.")
    chart, rim_face, rim_side = _charts(mesh)
    corners = mesh.uvs.astype(np.float64)[mesh.uv_faces]
    face, barycentrics = rasterize_uvs(corners, height, width)
    flat, flat_barycentrics = face.reshape(-1), barycentrics.reshape(-1, 3)
    texel, rim, weights = _rim_texels(corners, rim_face, rim_side, height, width)
    free = flat[texel] < 0
    flat[texel[free]], flat_barycentrics[texel[free]] = rim[free], weights[free]
    if not (face >= 0).any():
        raise InputError("The mesh's texture coordinates have no area; unwrap it anew.")
    return TexelMap(face, barycentrics, chart)


def rasterize_uvs(
    corners: np.ndarray, height: int, width: int, depth: np.ndarray | None = None, shift: tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """The face [H, W] int32 (-1: none) at each texel center and its barycentrics [H, W, 3], for uvs `corners` [F, 3, 2].

    Where faces overlap, the one with the smallest `depth` [F] in [-1, 1] shows. `shift` moves the faces, in texels.
    """
    ndc = 2.0 * (corners.reshape(-1, 2) + np.array(shift) / (width, height)) - 1.0
    clip = np.zeros((1, len(ndc), 4), dtype=np.float32)
    clip[0, :, :2], clip[0, :, 3] = np.nan_to_num(ndc, nan=9.0).clip(-9.0, 9.0), 1.0
    if depth is not None:
        clip[0, :, 2] = np.repeat(depth, 3)
    faces = torch.arange(len(ndc), dtype=torch.int32).view(-1, 3)
    fragments = rasterize(torch.from_numpy(clip), faces, height, width)
    return fragments.face_id[0].numpy().copy(), fragments.barycentrics[0].numpy().copy()


def _charts(mesh: MeshData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The chart of each face [F], and the face [R] and side [R] (0: from corner 0 to 1) of every edge on a rim."""
    where = np.unique(mesh.positions + np.float32(0.0), axis=0, return_inverse=True)[1].reshape(-1)[mesh.faces]
    uv = mesh.uvs[mesh.uv_faces].reshape(-1, 2) + np.float32(0.0)
    keys = np.column_stack([np.ascontiguousarray(uv).view(np.int32), where.reshape(-1)])
    corner = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1, 3).astype(np.int64)
    count = len(corner)
    start, end = corner.T.reshape(-1), np.roll(corner, -1, axis=1).T.reshape(-1)
    edge = np.minimum(start, end) * (int(corner.max(initial=0)) + 1) + np.maximum(start, end)
    order = np.argsort(edge, kind="stable")
    same = edge[order][1:] == edge[order][:-1]
    first, second = order[:-1][same] % max(count, 1), order[1:][same] % max(count, 1)
    graph = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(count, count))
    alone = np.ones(len(edge), dtype=bool)
    alone[1:] &= ~same
    alone[:-1] &= ~same
    rim = np.sort(order[alone])
    return connected_components(graph, directed=False)[1].astype(np.int32), rim % max(count, 1), rim // max(count, 1)


def _rim_texels(
    corners: np.ndarray, face: np.ndarray, side: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texels that rims pass through, each once: flat index, face, and barycentrics of the rim's point nearest its center."""
    place = np.stack([corners[..., 0] * width, (1.0 - corners[..., 1]) * height], -1)
    start, end = place[face, side], place[face, (side + 1) % 3]
    length = np.abs(end - start).max(axis=1)
    usable = np.isfinite(length) & (length < 4 * (height + width))
    steps = np.ceil(np.where(usable, length, 0.0) / RIM_STEP).astype(np.int64) + 1
    edge = np.repeat(np.arange(len(face)), steps)
    t = (np.arange(len(edge)) - np.repeat(np.cumsum(steps) - steps, steps)) / np.maximum(steps - 1, 1)[edge]
    point = start[edge] + t[:, None] * (end - start)[edge]
    column, row = np.floor(np.nan_to_num(point, nan=-1.0)).astype(np.int64).T
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    texel = np.where(inside, row * width + column, 0)
    off = np.square(point - np.stack([column + 0.5, row + 0.5], -1)).sum(-1)
    order = np.lexsort((off, texel))
    order = order[inside[order]]
    first = np.ones(len(order), dtype=bool)
    first[1:] = texel[order][1:] != texel[order][:-1]
    chosen = order[first]
    weights = np.zeros((len(chosen), 3), dtype=np.float32)
    each, at = np.arange(len(chosen)), edge[chosen]
    weights[each, side[at]] = 1.0 - t[chosen]
    weights[each, (side[at] + 1) % 3] = t[chosen]
    return texel[chosen], face[at].astype(np.int32), weights
