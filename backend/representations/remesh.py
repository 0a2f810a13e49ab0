"""Isotropic remeshing of closed surfaces to a given number of vertices."""

from __future__ import annotations

import warnings

import fast_simplification
import numpy as np

from backend.representations.mesh_data import MeshData
from backend.representations.soundness import soundness

with warnings.catch_warnings():  # its package imports scipy.ndimage.filters, a name that scipy deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    import gpytoolbox

ITERATIONS = 4


def remesh_isotropic(
    positions: np.ndarray, faces: np.ndarray, target_vertices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nearly equilateral triangles with about `target_vertices` vertices (within a few percent on smooth shapes).

    Quadric simplification (Garland and Heckbert 1997) comes first where there is much to remove, then splits, collapses,
    flips and tangential smoothing projected on the surface (Botsch and Kobbelt 2004). A step whose result is no longer
    as sound as what it was given, or has lost or gained a handle, is left out: at worst the input comes back.
    """
    simplified = positions, faces
    if len(positions) > 1.2 * target_vertices:
        points, triangles = fast_simplification.simplify(
            positions.astype(np.float32), faces.astype(np.int32), target_count=2 * target_vertices
        )
        simplified = _if_equivalent((points, triangles), simplified)
    area = np.linalg.norm(
        np.cross(
            simplified[0][simplified[1][:, 1]] - simplified[0][simplified[1][:, 0]],
            simplified[0][simplified[1][:, 2]] - simplified[0][simplified[1][:, 0]],
        ),
        axis=1,
    ).sum(dtype=np.float64) / 2.0
    # A closed surface of V vertices has 2 V faces; an equilateral triangle of edge h has the area sqrt(3)/4 h^2.
    edge_length = float(np.sqrt(area / (2 * target_vertices) * 4.0 / np.sqrt(3.0)))
    points, triangles = gpytoolbox.remesh_botsch(
        np.ascontiguousarray(simplified[0], dtype=np.float64),
        np.ascontiguousarray(simplified[1], dtype=np.int32),
        ITERATIONS,
        edge_length,
        True,
    )
    return _if_equivalent((points, triangles), simplified)


def _if_equivalent(
    candidate: tuple[np.ndarray, np.ndarray], original: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """`candidate` as float32 and int32 if it is as sound as `original` and of the same topology, else `original`."""
    positions, faces = candidate[0].astype(np.float32), candidate[1].astype(np.int32)
    if len(faces) == 0 or not np.isfinite(positions).all():
        return original
    before, after = soundness(MeshData(*original)), soundness(MeshData(positions, faces))
    same = (before.components, before.euler) == (after.components, after.euler)
    as_sound = after.sound or not before.sound and after.manifold >= before.manifold
    return (positions, faces) if same and as_sound else original
