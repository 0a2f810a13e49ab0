"""Meshes as raw buffers: sizes exactly as the header says, and nothing in them that could harm who uses them.

Arrays that are read share the memory of the frames they came in, and are read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .codec import WireError
from .messages import MAX_FACES, MAX_VERTICES, MeshHeader

MAX_COORDINATE = 1000.0
"""Jobs work within the unit sphere; what lies this far out is broken, though finite."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """`positions` [V, 3] float32; `faces` [F, 3] int32, None where the receiver has them; `colors` [V, 3] float32 in [0, 1]."""

    positions: np.ndarray
    faces: np.ndarray | None
    colors: np.ndarray | None = None


def mesh_frames(mesh: Mesh) -> tuple[MeshHeader, list[memoryview]]:
    """The header and the buffers to send after it, sharing memory with arrays that are float32 and int32 already.

    Raises WireError for arrays of other shapes, and for what `read_mesh` would refuse.
    """
    positions = _as_sent(mesh.positions, "<f4", "positions")
    faces = None if mesh.faces is None else _as_sent(mesh.faces, "<i4", "faces")
    colors = None if mesh.colors is None else _as_sent(mesh.colors, "<f4", "colors")
    if not 3 <= len(positions) <= MAX_VERTICES:
        raise WireError("too_large" if len(positions) > 3 else "invalid", _count(len(positions), "vertices", 3, MAX_VERTICES))
    if faces is not None and not 1 <= len(faces) <= MAX_FACES:
        raise WireError("too_large" if len(faces) else "invalid", _count(len(faces), "faces", 1, MAX_FACES))
    if colors is not None and len(colors) != len(positions):
        raise WireError("invalid", f"The mesh has {len(colors):,} colors for {len(positions):,} vertices; expected as many.")
    _check(positions, faces, colors)
    header = MeshHeader(vertices=len(positions), faces=0 if faces is None else len(faces), colors=colors is not None)
    return header, [memoryview(array) for array in (positions, faces, colors) if array is not None]


def read_mesh(header: MeshHeader, buffers: Sequence[memoryview], known_vertices: int | None = None) -> Mesh:
    """The checked mesh in `buffers`. `known_vertices` is how many the topology has that a mesh without faces refers to;
    None where faces are required.

    Raises WireError for buffers of another size than `header` says, for positions that are not finite or lie beyond
    `MAX_COORDINATE`, for faces with indices out of range or the same one twice, and for colors outside [0, 1]; it names
    the first.
    """
    names = ["positions", *(["faces"] if header.faces else []), *(["colors"] if header.colors else [])]
    if len(buffers) != len(names):
        expected = ", ".join(names)
        raise WireError("invalid", f"The mesh came in {len(buffers)} buffers; its header says {len(names)}: {expected}.")
    if not header.faces and known_vertices is None:
        raise WireError("invalid", "The mesh came without faces; expected at least one.")
    if not header.faces and header.vertices != known_vertices:
        raise WireError("invalid", f"The mesh has {header.vertices:,} vertices; its topology has {known_vertices:,}.")
    arrays = dict(zip(names, buffers, strict=True))
    positions = _as_read(arrays["positions"], "<f4", header.vertices, "positions")
    faces = _as_read(arrays["faces"], "<i4", header.faces, "faces") if header.faces else None
    colors = _as_read(arrays["colors"], "<f4", header.vertices, "colors") if header.colors else None
    _check(positions, faces, colors)
    return Mesh(positions, faces, colors)


def _as_sent(array: np.ndarray, kind: str, name: str) -> np.ndarray:
    try:
        array = np.asarray(array)
    except ValueError as error:
        raise WireError("invalid", f"The mesh's {name} are no array: {error}.") from None
    if array.ndim != 2 or array.shape[1] != 3:
        raise WireError("invalid", f"The mesh's {name} have the shape {list(array.shape)}; expected [N, 3].")
    whole = kind == "<i4"
    if array.dtype.kind not in ("iu" if whole else "fiu"):
        expected = "int32" if whole else "float32"
        raise WireError("invalid", f"The mesh's {name} are of the type {array.dtype}; expected {expected}.")
    if whole and array.dtype != np.int32:
        array = np.clip(array, -1, 2**31 - 1)  # what is out of range has to stay so
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused as such
        return np.ascontiguousarray(array, dtype=kind)


def _as_read(buffer: memoryview, kind: str, rows: int, name: str) -> np.ndarray:
    if buffer.nbytes != rows * 12:
        sentence = f"The mesh's {name} came as {buffer.nbytes:,} bytes; {rows:,} rows of 12 bytes make {rows * 12:,}."
        raise WireError("invalid", sentence)
    array = np.frombuffer(buffer, dtype=kind).reshape(rows, 3)
    if not array.flags.aligned:  # small frames lie anywhere in ZeroMQ's receive buffer
        array = array.copy()
    array.flags.writeable = False
    return array


def _check(positions: np.ndarray, faces: np.ndarray | None, colors: np.ndarray | None) -> None:
    # Minimum and maximum tell in one pass each, without temporary arrays; comparisons with NaN are false.
    if not (positions.min() >= -MAX_COORDINATE and positions.max() <= MAX_COORDINATE):
        wrong, expected = ~(np.abs(positions) <= MAX_COORDINATE), f"finite and within {MAX_COORDINATE:g}"
        _refuse_first(wrong, positions, "Vertex", "position", expected)
    if faces is not None and faces.view(np.uint32).max() >= len(positions):  # a negative index is a huge unsigned one
        wrong = (faces < 0) | (faces >= len(positions))
        _refuse_first(wrong, faces, "Face", "vertex indices", f"from 0 to {len(positions) - 1:,}")
    if faces is not None:
        a, b, c = np.ascontiguousarray(faces.T)
        if (twice := (a == b) | (b == c) | (c == a)).any():
            _refuse_first(twice[:, None], faces, "Face", "vertex indices", "three different ones")
    if colors is not None and not (colors.min() >= 0.0 and colors.max() <= 1.0):
        _refuse_first(~((colors >= 0) & (colors <= 1)), colors, "Vertex", "color", "within [0, 1]")


def _refuse_first(wrong: np.ndarray, array: np.ndarray, what: str, has: str, expected: str) -> None:
    row = int(wrong.any(axis=1).argmax())
    more = int(wrong.any(axis=1).sum()) - 1
    values = ", ".join(f"{value:g}" for value in array[row].tolist())
    others = f" ({more:,} more like it)" if more else ""
    raise WireError("invalid", f"{what} {row:,} of the mesh has the {has} ({values}){others}; expected {expected}.")


def _count(count: int, what: str, least: int, most: int) -> str:
    return f"The mesh has {count:,} {what}; expected {least:,} to {most:,}."
