"""Meshes from outside are checked, meshes of our own are made sound.

An artist's mesh is never changed: it is either used as it is, with notes on what is unusual about it, or refused with
one sentence. A generated mesh has no order to keep: what optimization has left of folds and dust is removed.
"""

from __future__ import annotations

import warnings

import numpy as np

from backend.errors import InputError
from backend.representations.closest_point import transfer_attributes
from backend.representations.isosurface import extract_isosurface
from backend.representations.mesh_checks import MAX_FACES, check_mesh, counted
from backend.representations.mesh_data import MeshData
from backend.representations.remesh import remesh_isotropic
from backend.representations.soundness import Soundness, drop_dust, soundness

with warnings.catch_warnings():  # its package imports scipy.ndimage.filters, a name that scipy deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    import gpytoolbox

__all__ = ["MAX_FACES", "Soundness", "check_and_repair", "inverted_share", "make_sound", "soundness"]

MAX_INVERTED = 0.002
"""Share of the area that may lie inside the object or face inward before the surface is rebuilt."""

REBUILD_RESOLUTION = 112


def check_and_repair(mesh: MeshData) -> tuple[MeshData, list[str]]:
    """The same mesh as contiguous float32 and int32 arrays, and notes for a person on what is unusual about it.

    Vertices and faces are neither removed nor reordered, so that a refined mesh can go back to where it came from.

    Raises:
        InputError: there is nothing to optimize, or numbers that cannot be worked with.
    """
    positions, faces = np.asarray(mesh.positions), np.asarray(mesh.faces)
    check_mesh(mesh)
    positions = np.ascontiguousarray(positions, dtype=np.float32)
    faces = np.ascontiguousarray(faces, dtype=np.int32)
    if _is_flat(positions, faces).all():
        raise InputError("The faces of the mesh have no area: there is nothing to optimize; give one with a surface.")
    colors = None if mesh.colors is None else np.asarray(mesh.colors).clip(0.0, 1.0)
    checked = MeshData(positions, faces, None if colors is None else np.ascontiguousarray(colors, dtype=np.float32))
    return checked, _notes(checked)


def make_sound(mesh: MeshData) -> MeshData:
    """A generated mesh, watertight, manifold and facing outward: itself if it is, without dust, rebuilt if it must be.

    A surface that is not manifold, or folds through itself so that some of it faces inward, is rebuilt as the boundary
    of where its generalized winding number exceeds one half (Jacobson et al. 2013), with as many vertices as before and
    its colors carried over. Deterministic.

    Raises:
        InputError: `mesh` is not a mesh (see `check_mesh`).
    """
    check_mesh(mesh)
    kept, faces = drop_dust(mesh.positions, mesh.faces)
    candidate = MeshData(mesh.positions[kept], faces, None if mesh.colors is None else mesh.colors[kept])
    if soundness(candidate).sound and inverted_share(candidate) <= MAX_INVERTED:
        return candidate
    rebuilt = _rebuild(candidate)
    if rebuilt is None:
        return candidate
    colors = None
    if candidate.colors is not None:
        colors = transfer_attributes(rebuilt[0], candidate.positions, candidate.faces, candidate.colors)
    return MeshData(*rebuilt, colors)


def inverted_share(mesh: MeshData) -> float:
    """The share of a closed mesh's area that is not seen from outside as an outer side: inward-facing or buried.

    Just outside a face of a clean solid the winding number is 0, and 1 just inside; outside a buried face it is 1, and
    outside a face that looks inward it is -1. 0 for a mesh without area.

    Raises:
        InputError: `mesh` is not a mesh (see `check_mesh`).
    """
    check_mesh(mesh)
    corners = mesh.positions.astype(np.float64)[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    double_area = np.linalg.norm(normals, axis=1)
    if not double_area.any():
        return 0.0
    edge = np.sqrt(double_area.mean())
    outside = corners.mean(axis=1) + normals / np.maximum(double_area, 1e-30)[:, None] * (0.02 * edge)
    inverted = np.abs(_winding_numbers(outside, mesh.positions, mesh.faces)) > 0.5
    return float(double_area[inverted].sum() / double_area.sum())


def _is_flat(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces that repeat a vertex or whose area is 0 to the precision of the coordinates."""
    corners = positions.astype(np.float64)[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    longest = np.square(corners - np.roll(corners, 1, axis=1)).sum(-1).max(axis=1)
    return np.linalg.norm(normals, axis=1) <= 1e-9 * longest


def _notes(mesh: MeshData) -> list[str]:
    notes = []
    facts = soundness(mesh)
    flat = int(_is_flat(mesh.positions, mesh.faces).sum())
    if flat:
        notes.append(f"{counted(flat, 'face')} without area will be kept, but cannot be seen.")
    unused = len(mesh.positions) - len(np.unique(mesh.faces))
    if unused:
        notes.append(f"{counted(unused, 'vertex', 'vertices')} that no face uses will stay where they are.")
    twins = len(mesh.positions) - len(np.unique(mesh.positions, axis=0))
    if twins:
        notes.append(f"{counted(twins, 'vertex', 'vertices')} lie exactly on others and move together with them.")
    if not facts.manifold:
        notes.append("Some edges or vertices join more faces than a surface can (not manifold); shading may be odd there.")
    if not facts.watertight:
        notes.append("The surface is open; its rim is free to move.")
    elif facts.oriented and facts.volume < 0.0:
        notes.append("The faces look inward; lighting will be wrong until they are flipped.")
    if not facts.oriented:
        notes.append("Some neighboring faces look to opposite sides; lighting will be wrong there.")
    return notes


def _rebuild(mesh: MeshData) -> tuple[np.ndarray, np.ndarray] | None:
    """The boundary of {winding number > 1/2} with about as many vertices; None if nothing is inside."""
    proper = mesh.faces[~_is_flat(mesh.positions, mesh.faces)]  # the others enclose nothing and have no barycentrics
    if len(proper) == 0:
        return None
    low, high = mesh.positions.min(axis=0).astype(np.float64), mesh.positions.max(axis=0).astype(np.float64)
    voxel = float((high - low).max()) / (REBUILD_RESOLUTION - 5)
    shape = np.ceil((high - low) / voxel).astype(int) + 5
    origin = (low + high) / 2.0 - voxel * (shape - 1) / 2.0
    x, y, z = (origin[axis] + voxel * np.arange(shape[axis]) for axis in range(3))
    grid = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1)
    points = grid.reshape(-1, 3)
    inside = (_winding_numbers(points, mesh.positions, mesh.faces) > 0.5).reshape(shape)
    if not inside.any():
        return None
    # Exact distances where the surface passes between voxels make it smooth; elsewhere only the sign matters.
    near = np.zeros(shape, dtype=bool)
    for axis in range(3):
        changes = np.diff(inside, axis=axis)
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        near[tuple(ahead)] |= changes
        near[tuple(behind)] |= changes
    distance = np.full(shape, voxel)
    squared = gpytoolbox.squared_distance(
        grid[near], mesh.positions.astype(np.float64), proper.astype(np.int32), use_cpp=True
    )[0]
    distance[near] = np.clip(np.sqrt(squared), 1e-3 * voxel, voxel)
    field = np.where(inside, distance, -distance).astype(np.float32)
    positions, faces = extract_isosurface(field, origin, voxel)
    kept, faces = drop_dust(positions, faces)
    return remesh_isotropic(positions[kept], faces, len(mesh.positions))


def _winding_numbers(points: np.ndarray, positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return gpytoolbox.fast_winding_number(
        np.ascontiguousarray(points, dtype=np.float64), positions.astype(np.float64), faces.astype(np.int32)
    )
