"""Whether arrays are a mesh at all: what every function that takes one from outside asks first."""

from __future__ import annotations

import numpy as np

from backend.errors import InputError
from backend.representations.mesh_data import MeshData

MAX_FACES = 5_000_000
MAX_COORDINATE = 1e15
"""Beyond this, squared lengths leave float32."""


def check_mesh(mesh: MeshData) -> None:
    """Raise if there is no surface, or numbers that cannot be worked with: everything below can rely on its arrays.

    Raises:
        InputError: wrong shapes or types, no vertices or faces, too many faces, coordinates that are not finite or
            beyond MAX_COORDINATE, indices out of range; the same for colors and texture coordinates.
    """
    positions, faces = np.asarray(mesh.positions), np.asarray(mesh.faces)
    check_shapes(positions, faces)
    check_numbers(positions, faces)
    check_colors(mesh.colors, len(positions))
    check_uvs(mesh)


def check_shapes(positions: np.ndarray, faces: np.ndarray) -> None:
    """Raise an InputError unless these are vertices and triangles, of each at least one and not too many."""
    if positions.ndim != 2 or positions.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise InputError(
            f"A mesh needs positions [V, 3] and triangles [F, 3], but has {positions.shape} and {faces.shape}."
        )
    if len(positions) == 0 or len(faces) == 0:
        raise InputError(
            f"The mesh has {counted(len(positions), 'vertex', 'vertices')} and {counted(len(faces), 'face')}: there is "
            "nothing to optimize; give one with a surface."
        )
    if len(faces) > MAX_FACES:
        raise InputError(f"The mesh has {len(faces):,} faces; at most {MAX_FACES:,} can be used, so decimate it first.")


def check_numbers(positions: np.ndarray, faces: np.ndarray) -> None:
    """Raise an InputError unless coordinates are finite and not huge, and faces name vertices that exist."""
    bad = ~np.isfinite(positions).all(axis=1)
    if bad.any():
        raise InputError(
            f"{counted(int(bad.sum()), 'vertex', 'vertices')} of the mesh {'has' if bad.sum() == 1 else 'have'} coordinates "
            f"that are not numbers (the first is vertex {int(np.argmax(bad))}); repair or remove them first."
        )
    if np.abs(positions).max() > MAX_COORDINATE:
        raise InputError(f"The mesh has coordinates beyond {MAX_COORDINATE:g}; scale it down first.")
    if not np.issubdtype(faces.dtype, np.integer):
        raise InputError(f"Faces must be integers, not {faces.dtype}.")
    wrong = (faces < 0) | (faces >= len(positions))
    if wrong.any():
        raise InputError(
            f"Face {int(np.argmax(wrong.any(axis=1)))} names vertex {int(faces[wrong][0])}, but the mesh has vertices 0 to "
            f"{len(positions) - 1}; the file is damaged, so export it again."
        )


def check_colors(colors: np.ndarray | None, vertex_count: int) -> None:
    """Raise an InputError unless these are None or finite numbers, three a vertex."""
    if colors is None:
        return
    colors = np.asarray(colors)
    if colors.shape != (vertex_count, 3) or not np.isfinite(colors).all():
        raise InputError(
            f"Vertex colors must be {vertex_count} x 3 numbers in [0, 1], not an array of shape {colors.shape}"
            + ("." if colors.shape != (vertex_count, 3) else " with values that are not numbers.")
        )


def check_uvs(mesh: MeshData) -> None:
    """Raise an InputError unless texture coordinates are missing altogether, or finite and fit the faces."""
    if mesh.uvs is None and mesh.uv_faces is None:
        return
    if mesh.uvs is None or mesh.uv_faces is None:
        raise InputError("Texture coordinates need both uvs [T, 2] and uv_faces [F, 3]; give both or neither.")
    uvs, uv_faces = np.asarray(mesh.uvs), np.asarray(mesh.uv_faces)
    if uvs.ndim != 2 or uvs.shape[1] != 2 or uv_faces.shape != np.shape(mesh.faces):
        raise InputError(
            f"Texture coordinates must be uvs [T, 2] and uv_faces {list(np.shape(mesh.faces))}, not {list(uvs.shape)} and "
            f"{list(uv_faces.shape)}."
        )
    if not np.isfinite(uvs).all():
        raise InputError("Some texture coordinates are not numbers; unwrap the mesh anew or leave them out.")
    if not np.issubdtype(uv_faces.dtype, np.integer) or uv_faces.min() < 0 or uv_faces.max() >= len(uvs):
        raise InputError(f"uv_faces must be integers from 0 to {len(uvs) - 1}, the rows of uvs.")


def counted(number: int, one: str, many: str | None = None) -> str:
    """ "1 face", "2 faces"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
