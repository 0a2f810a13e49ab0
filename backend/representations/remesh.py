"""Isotropic remeshing of surfaces to a given number of vertices."""

from __future__ import annotations

import fast_simplification
import numpy as np

from backend.errors import InputError
from backend.representations.adaptive_remesh import remesh_adaptive
from backend.representations.editable_mesh import face_normals, norm
from backend.representations.mesh_checks import check_mesh
from backend.representations.mesh_data import MeshData
from backend.representations.self_intersection import self_intersections
from backend.representations.soundness import soundness

ACCURACY = 0.04
"""Share of the wanted number of vertices by which the result may differ before it is done again with other edges."""

ATTEMPTS = 3


def remesh_isotropic(
    positions: np.ndarray, faces: np.ndarray, target_vertices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nearly equilateral triangles with about `target_vertices` vertices (within a few percent where the shape allows).

    Quadric simplification (Garland and Heckbert 1997) comes first where there is much to remove, then `remesh_adaptive`
    with one edge length, found in at most ATTEMPTS. A step whose result is no longer as sound as what it was given, has
    lost or gained a handle, or passes through itself more than before, is left out: at worst the input comes back.

    Raises:
        InputError: this is no mesh (see `check_mesh`), or fewer than four vertices are wanted.
    """
    check_mesh(MeshData(positions, faces))
    if target_vertices < 4:
        raise InputError(f"A mesh of {target_vertices} vertices was asked for; ask for at least 4.")
    original = MeshData(positions.astype(np.float32, copy=False), faces.astype(np.int32, copy=False))
    area = 0.5 * norm(face_normals(positions.astype(np.float64), faces)).sum()
    if not area > 0.0:
        return original.positions, original.faces
    simplified = _simplified(original, target_vertices)
    result = _to_number(simplified, area, target_vertices)
    if result is simplified and simplified is not original:
        # The long triangles of a simplified surface can fold where the many of the original do not.
        whole = _to_number(original, area, target_vertices)
        result = simplified if whole is original else whole
    return result.positions, result.faces


def _simplified(mesh: MeshData, target_vertices: int) -> MeshData:
    """With twice the wanted vertices, if there are far more than wanted and nothing is lost by it."""
    if len(mesh.positions) <= 3 * target_vertices or len(mesh.faces) <= 4 * target_vertices:
        return mesh
    points, triangles = fast_simplification.simplify(mesh.positions, mesh.faces, target_count=4 * target_vertices)
    return _if_equivalent(MeshData(points.astype(np.float32), triangles.astype(np.int32)), mesh)


def _to_number(start: MeshData, area: float, target_vertices: int) -> MeshData:
    """`start` with edges of one length, in at most ATTEMPTS to meet the number of vertices; itself if none is as sound."""
    # A closed surface of V vertices has 2 V faces; an equilateral triangle of edge h has the area sqrt(3)/4 h^2.
    edge_length = float(np.sqrt(area / (2 * target_vertices) * 4.0 / np.sqrt(3.0)))
    best = start
    for _ in range(ATTEMPTS):
        candidate = remesh_adaptive(start, edge_length)
        share = len(candidate.positions) / target_vertices
        if best is start or abs(np.log(share)) < abs(np.log(len(best.positions) / target_vertices)):
            best = candidate
        if abs(share - 1.0) <= ACCURACY:
            break
        edge_length *= float(np.sqrt(share))
    return _if_equivalent(best, start)


def _if_equivalent(candidate: MeshData, original: MeshData) -> MeshData:
    """`candidate` if it is as sound as `original`, of the same topology and not more entangled, else `original`."""
    if len(candidate.faces) == 0 or not np.isfinite(candidate.positions).all():
        return original
    before, after = soundness(original), soundness(candidate)
    same = (before.components, before.euler) == (after.components, after.euler)
    as_sound = after.sound or not before.sound and after.manifold >= before.manifold
    if not (same and as_sound):
        return original
    crossing = len(self_intersections(candidate))
    return candidate if crossing == 0 or crossing <= len(self_intersections(original)) else original
