"""Meshes from files and to GLB files.

Files are read with trimesh, whatever their format; everything that can go wrong with a damaged or hostile file becomes
one `InputError`. Vertices at one place are welded, so that the copies that formats make along UV seams and hard edges
move together; `backend.cli.own_format` finds each copy again by its position.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import InputError
from backend.representations.mesh_data import MeshData
from backend.representations.repair import MAX_FACES, check_and_repair

READABLE = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
MAX_BYTES = 1 << 30
UNCOLORED = 0.8


@dataclass(frozen=True)
class ImportedMesh:
    """A mesh as its file has it: own units, place and orientation, scenes flattened with their transforms.

    positions [V, 3] float64, one row for each place where the file has vertices, in the order of the file;
    faces [F, 3] int32, polygons cut into triangles; colors [V, 3] float32 in [0, 1] as displayed, from the file's
    vertex colors, texture or material, or None; notes: sentences for a person on what is unusual about the mesh.
    """

    positions: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None
    notes: tuple[str, ...]


def load_mesh(path: Path) -> ImportedMesh:
    """Read a mesh file (GLB, glTF, OBJ, PLY, STL, OFF).

    Raises:
        InputError: the file is missing, too large, not readable as a mesh, or `check_and_repair` refuses the mesh.
    """
    _check_file(path)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            positions, faces, colors = _flattened(_parts(path))
    except InputError:
        raise
    except Exception as error:  # parsers of damaged files raise anything
        raise InputError(f"{path} cannot be read as a {path.suffix[1:].upper()} mesh; export it again.") from error
    if len(faces) and (faces.min() < 0 or faces.max() >= len(positions)):
        raise InputError(f"{path} names vertices that it does not have; the file is damaged, so export it again.")
    positions, faces, colors = _weld(positions, faces, colors)
    checked, notes = check_and_repair(MeshData(_centered(positions), faces, colors))
    return ImportedMesh(positions, checked.faces, checked.colors, tuple(notes))


def write_glb(mesh: MeshData, path: Path, name: str = "Galatea") -> None:
    """Write a binary glTF 2.0 file: positions, smooth normals, vertex colors and a matte material; y up.

    The file appears complete or not at all.

    Raises:
        InputError: the folder cannot be written to, or its disk is full.
    """
    write_atomically(path, glb_bytes(mesh, name))


def glb_bytes(mesh: MeshData, name: str = "Galatea") -> bytes:
    """The content of `write_glb`'s file."""
    positions = np.ascontiguousarray(mesh.positions, dtype="<f4")
    arrays = [
        ("POSITION", positions, "VEC3", 5126),
        ("NORMAL", _smooth_normals(positions, mesh.faces).astype("<f4"), "VEC3", 5126),
    ]
    if mesh.colors is not None:
        # glTF's vertex colors are linear; 16 bits keep the dark ones apart, alpha pads each to a multiple of 4 bytes.
        linear = _srgb_to_linear(mesh.colors.astype(np.float64).clip(0.0, 1.0))
        rgba = np.concatenate([linear, np.ones((len(linear), 1))], axis=1)
        arrays.append(("COLOR_0", np.rint(rgba * 65535).astype("<u2"), "VEC4", 5123))
    arrays.append(("indices", mesh.faces.astype("<u4").reshape(-1), "SCALAR", 5125))
    views, accessors, content = [], [], b""
    for key, array, kind, component in arrays:
        target = 34963 if key == "indices" else 34962
        views.append({"buffer": 0, "byteOffset": len(content), "byteLength": array.nbytes, "target": target})
        accessor = {"bufferView": len(views) - 1, "componentType": component, "count": len(array), "type": kind}
        if key == "POSITION":
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        if key == "COLOR_0":
            accessor["normalized"] = True
        accessors.append(accessor)
        content += array.tobytes()
    attributes = {key: index for index, (key, *_) in enumerate(arrays) if key != "indices"}
    primitive = {"attributes": attributes, "indices": len(arrays) - 1, "material": 0}
    matte = {"baseColorFactor": [1.0, 1.0, 1.0, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0}
    document = {
        "asset": {"version": "2.0", "generator": "Galatea"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [primitive]}],
        "materials": [{"name": "matte", "pbrMetallicRoughness": matte}],
        "buffers": [{"byteLength": len(content)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(content), b"BIN\0") + content
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, sync, then rename over it.

    Raises:
        InputError: the system refuses; nothing half-written is left.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"There is no file {path}; give the path of a mesh ({', '.join(READABLE)}).")
    if path.suffix.lower() not in READABLE:
        raise InputError(f'{path} ends in "{path.suffix}"; meshes can be read from {", ".join(READABLE)} files.')
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path} is empty; export the mesh again.")
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size / 2**30:.1f} GiB; at most {MAX_BYTES >> 30} GiB can be read.")


Part = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""positions [V, 3], faces [F, 3] and displayed colors [V, 3] or None."""


def _parts(path: Path) -> Iterator[Part]:
    """The triangle meshes of a file's scene, each where its node places it."""
    import trimesh

    linear = path.suffix.lower() in (".glb", ".gltf")
    scene = trimesh.load_scene(path, process=False, maintain_order=True)
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        geometry = scene.geometry[name]
        if not isinstance(geometry, trimesh.Trimesh):
            continue
        positions = np.asarray(geometry.vertices, dtype=np.float64).reshape(-1, 3)
        faces = np.asarray(geometry.faces, dtype=np.int64).reshape(-1, 3)
        if not np.array_equal(matrix, np.eye(4)):
            positions = positions @ matrix[:3, :3].T + matrix[:3, 3]
            faces = faces[:, ::-1] if np.linalg.det(matrix[:3, :3]) < 0.0 else faces
        yield positions, faces, _displayed_colors(geometry.visual, len(positions), linear)


def _flattened(parts: Iterator[Part]) -> Part:
    """All parts as one mesh; uncolored parts of a partly colored file are gray."""
    positions, faces, colors, count, total = [], [], [], 0, 0
    for part_positions, part_faces, part_colors in parts:
        total += len(part_faces)
        if total > MAX_FACES:
            raise InputError(f"The file has more than {MAX_FACES:,} faces; decimate the mesh first.")
        positions.append(part_positions)
        faces.append(part_faces + count)
        colors.append(part_colors)
        count += len(part_positions)
    if not positions:
        return np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64), None
    colored = any(each is not None for each in colors)
    filled = [np.full(p.shape, UNCOLORED) if c is None else c for p, c in zip(positions, colors, strict=True)]
    return np.concatenate(positions), np.concatenate(faces), np.concatenate(filled) if colored else None


def _displayed_colors(visual: Any, count: int, linear: bool) -> np.ndarray | None:
    """Vertex colors [V, 3] as displayed: the file's own, else its texture's or material's, else None.

    `linear`: the file's vertex colors are linear, as glTF's are.
    """
    own = getattr(visual, "vertex_attributes", {}).get("color")
    if own is None and visual.kind == "vertex":
        own = visual.vertex_colors
    try:
        if own is not None:
            own = np.asarray(own)[:, :3]
            scale = np.iinfo(own.dtype).max if np.issubdtype(own.dtype, np.integer) else 1.0
            colors = own.astype(np.float64) / scale
            colors = _linear_to_srgb(colors.clip(0.0, 1.0)) if linear else colors
        elif visual.kind == "texture" and (visual.uv is not None or _has_base_color(visual.material)):
            colors = np.asarray(visual.to_color().vertex_colors)[:, :3] / 255.0
        elif visual.kind == "face":
            colors = np.asarray(visual.vertex_colors)[:, :3] / 255.0
        else:
            return None
    except Exception:  # a broken texture is no reason to refuse the shape
        return None
    return colors if colors.shape == (count, 3) and np.isfinite(colors).all() else None


def _has_base_color(material: Any) -> bool:
    return getattr(material, "baseColorFactor", None) is not None or getattr(material, "diffuse", None) is not None


def _weld(
    positions: np.ndarray, faces: np.ndarray, colors: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """One vertex for each place, in order of first appearance; colors are averaged."""
    rows = np.ascontiguousarray(positions + 0.0).view([("", np.float64)] * 3).reshape(-1)  # -0 and 0 are one place
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    group = rank[group.reshape(-1)]
    kept = np.sort(first)
    if colors is not None:
        counts = np.bincount(group)[:, None]
        colors = np.stack([np.bincount(group, colors[:, channel]) for channel in range(3)], axis=1) / counts
    return positions[kept], group[faces].astype(np.int32), colors


def _centered(positions: np.ndarray) -> np.ndarray:
    """Around the middle of their extent: far from the origin, float32 would lose what float64 has."""
    if len(positions) == 0 or not np.isfinite(positions).all():
        return positions
    with np.errstate(over="ignore"):
        return positions - (positions.min(axis=0) / 2.0 + positions.max(axis=0) / 2.0)


def _smooth_normals(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals [V, 3]; (0, 1, 0) where no face says anything, since glTF wants unit length."""
    corners = positions.astype(np.float64)[faces]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros((len(positions), 3))
    for corner in range(3):
        np.add.at(normals, faces[:, corner], facing)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 1e-30, normals / np.maximum(length, 1e-30), [0.0, 1.0, 0.0])


def _srgb_to_linear(colors: np.ndarray) -> np.ndarray:
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def _linear_to_srgb(colors: np.ndarray) -> np.ndarray:
    return np.where(colors <= 0.0031308, colors * 12.92, 1.055 * colors ** (1.0 / 2.4) - 0.055)
