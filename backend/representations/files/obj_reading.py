"""OBJ files, polygons as they are; their materials are in `mtl_reading`.

Read by ourselves: trimesh cuts polygons into triangles, splits vertices along seams, and forgets which object a face is in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backend.errors import InputError
from backend.representations.files.disk import text_of
from backend.representations.files.file_mesh import FileMesh
from backend.representations.files.images import ImageShelf
from backend.representations.files.mtl_reading import read_materials


@dataclass
class _Lines:
    """What an OBJ file's lines say, before numbers are read; names are numbered in their order."""

    vertices: list[bytes] = field(default_factory=list)
    coordinates: list[bytes] = field(default_factory=list)
    words: list[bytes] = field(default_factory=list)  # the corners of all faces
    sizes: list[int] = field(default_factory=list)
    vertices_before: list[int] = field(default_factory=list)  # at each face, for indices that count backward
    coordinates_before: list[int] = field(default_factory=list)
    face_material: list[int] = field(default_factory=list)
    face_object: list[int] = field(default_factory=list)
    materials: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)
    others: set[bytes] = field(default_factory=set)


def read_obj(path: Path, max_faces: int) -> FileMesh:
    """Raises InputError for what cannot be used, anything for a damaged file."""
    lines = _sorted_lines(path.read_bytes(), max_faces)
    positions, colors = _vertices(lines.vertices)
    sizes = np.array(lines.sizes, dtype=np.int64)
    corners, uv_corners = _corners(lines, sizes)
    shelf = ImageShelf()
    if lines.others & {b"l", b"p"}:
        shelf.notes.append("The file's lines and points are left out.")
    if lines.others & {b"curv", b"surf", b"cstype"}:
        shelf.notes.append("The file's curved surfaces are left out; make meshes of them first.")
    materials, unknown = read_materials(path.parent, lines.libraries, list(lines.materials), shelf)
    mesh = FileMesh(
        positions,
        sizes,
        corners,
        colors=colors,
        materials=materials,
        polygon_material=np.array(lines.face_material, dtype=np.int64),
        objects=list(lines.objects),
        polygon_object=np.array(lines.face_object, dtype=np.int64),
        uvs_are_shared=True,
        unknown_materials=unknown,
    )
    if (uv_corners >= 0).any():
        mesh.uvs, mesh.uv_corners = _numbers(lines.coordinates, 2, pad=True)[:, :2].astype(np.float32), uv_corners
    mesh.notes = list(dict.fromkeys(shelf.notes))
    return mesh


def _sorted_lines(content: bytes, max_faces: int) -> _Lines:
    content = content.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    named_by = b"o" if re.search(rb"(?m)^[ \t]*o[ \t]", content) else b"g"
    lines = _Lines()
    material = object_ = -1
    for line in content.splitlines():
        words = line.split(None, 1)
        if not words:
            continue
        kind, rest = words[0], words[1] if len(words) > 1 else b""
        if kind == b"v":
            lines.vertices.append(rest)
        elif kind == b"vt":
            lines.coordinates.append(rest)
        elif kind == b"f":
            object_ = object_ if object_ >= 0 else lines.objects.setdefault("", len(lines.objects))
            corners = rest.partition(b"#")[0].split()
            lines.words += corners
            lines.sizes.append(len(corners))
            lines.vertices_before.append(len(lines.vertices))
            lines.coordinates_before.append(len(lines.coordinates))
            lines.face_material.append(material)
            lines.face_object.append(object_)
            if len(lines.sizes) > max_faces:
                raise InputError(f"The file has more than {max_faces:,} faces; decimate the mesh first.")
        elif kind == b"usemtl":
            material = lines.materials.setdefault(text_of(rest.strip()), len(lines.materials))
        elif kind == named_by:
            object_ = lines.objects.setdefault(text_of(rest.strip()), len(lines.objects))
        elif kind == b"mtllib":
            lines.libraries.append(text_of(rest.strip()))
        else:
            lines.others.add(kind)
    return lines


def _vertices(lines: list[bytes]) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions [P, 3] and, where lines go on after x y z (and w) with r g b, colors [P, 3] (NaN where they do not)."""
    widths = np.array([len(line.split()) for line in lines], dtype=np.int64)
    positions, colors = np.zeros((len(lines), 3)), np.full((len(lines), 3), np.nan)
    for width in np.unique(widths):
        rows = np.flatnonzero(widths == width)
        values = _numbers([lines[row] for row in rows] if len(rows) < len(lines) else lines, 3)
        positions[rows] = values[:, :3]
        if width >= 6:
            colors[rows] = values[:, 3:6] if width != 7 else values[:, 4:7]  # 7: x y z w r g b
    return positions, None if np.isnan(colors).all() else colors


def _numbers(lines: list[bytes], least: int, pad: bool = False) -> np.ndarray:
    """The numbers of lines [N, width], all as long as the first or, with `pad`, cut and filled up to `least` each."""
    if pad:
        lines = [b" ".join((line.split() + [b"0"] * least)[:least]) for line in lines]
    width = len(lines[0].split()) if lines else least
    if width < least:
        raise ValueError("too few numbers on a line")
    values = np.fromstring(b" ".join(lines), dtype=np.float64, sep=" ")
    return values.reshape(len(lines), width)


def _corners(lines: _Lines, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the vertices and of the texture coordinates (-1: none) at all corners."""
    slashes = {word.count(b"/") for word in lines.words}
    text = b" ".join(lines.words)
    if len(slashes) == 1 and b"//" not in text and b"/ " not in text and not text.endswith(b"/"):
        width = slashes.pop() + 1
        indices = np.fromstring(text.replace(b"/", b" "), dtype=np.int64, sep=" ").reshape(len(lines.words), width)
        indices = indices[:, :2] if width > 1 else np.pad(indices, ((0, 0), (0, 1)))
    else:
        split = [(word.split(b"/") + [b""])[:2] for word in lines.words]
        indices = np.array([(int(v), int(t or 0)) for v, t in split], dtype=np.int64).reshape(-1, 2)
    known = np.repeat(np.array([lines.vertices_before, lines.coordinates_before], dtype=np.int64).T, sizes, axis=0)
    rows = np.where(indices > 0, indices - 1, np.where(indices < 0, known + indices, -1))
    if (rows[:, 0] < 0).any() or (rows >= [len(lines.vertices), len(lines.coordinates)]).any() or (rows < -1).any():
        raise InputError("A face names vertices or texture coordinates that the file does not have; export it again.")
    return rows[:, 0], rows[:, 1]
