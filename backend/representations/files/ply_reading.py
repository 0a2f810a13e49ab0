"""PLY files, text and binary, polygons as they are.

Read by ourselves: trimesh cuts polygons into triangles and drops texture coordinates of corners.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backend.errors import InputError
from backend.representations.files.disk import read_beside, text_of
from backend.representations.files.file_mesh import FileMesh
from backend.representations.files.images import MAX_BYTES, ImageShelf, tinted
from backend.representations.mesh_data import MaterialData

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_INDICES = ("vertex_indices", "vertex_index")
_COORDINATES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))


@dataclass
class Property:
    """A column; `length` is the type of a list's length, None for a single number."""

    name: str
    kind: str
    length: str | None = None


@dataclass
class Element:
    name: str
    count: int
    properties: list[Property] = field(default_factory=list)


@dataclass
class Column:
    """An element's values of one property: numbers [N], or lists one after another with their lengths [N]."""

    values: np.ndarray
    lengths: np.ndarray | None = None


def read_ply(path: Path, max_faces: int) -> FileMesh:
    """Raises InputError for what cannot be used, anything for a damaged file."""
    content = path.read_bytes()
    order, elements, textures, start = read_header(content)
    for element in elements:
        if element.name == "face" and element.count > max_faces:
            raise InputError(f"The file has more than {max_faces:,} faces; decimate the mesh first.")
        if element.count > len(content):
            raise ValueError("the file ends too early")
    read = _read_text if order == "ascii" else _read_binary
    tables = read(content[start:], elements, ">" if order == "binary_big_endian" else "<")
    vertex, face = tables["vertex"], tables.get("face", {})
    positions = np.stack([vertex[axis].values for axis in "xyz"], axis=1).astype(np.float64)
    indices = next((face[name] for name in _INDICES if name in face), Column(np.zeros(0, int), np.zeros(0, int)))
    if "tristrips" in tables:
        raise InputError("The file holds strips of triangles; save it with plain faces.")
    mesh = FileMesh(positions, indices.lengths.astype(np.int64), indices.values.astype(np.int64), colors=_colors(vertex))
    if len(mesh.corners) and not 0 <= mesh.corners.min() <= mesh.corners.max() < len(positions):
        raise InputError("A face names vertices that the file does not have; export it again.")
    pair = next((pair for pair in _COORDINATES if set(pair) <= vertex.keys()), None)
    corner_uvs = face.get("texcoord")
    if corner_uvs is not None and np.array_equal(corner_uvs.lengths, 2 * mesh.sizes):
        mesh.uvs = corner_uvs.values.astype(np.float32).reshape(-1, 2)
        mesh.uv_corners = np.arange(len(mesh.corners))
    elif pair is not None:
        mesh.uvs = np.stack([vertex[name].values for name in pair], axis=1).astype(np.float32)
        mesh.uv_corners = mesh.corners
    shelf = ImageShelf()
    if textures and mesh.uvs is not None:
        image = shelf.decode(textures[0], textures[0], lambda: read_beside(path.parent, textures[0], MAX_BYTES))
        if image is not None:
            mesh.materials = [MaterialData(tinted(image, np.ones(3)), name="")]
            mesh.polygon_material = np.zeros(len(mesh.sizes), dtype=np.int64)
    mesh.notes = shelf.notes
    return mesh


def read_header(content: bytes) -> tuple[str, list[Element], list[str], int]:
    """The byte order, the elements, the texture files named in comments, and where the data begins."""
    marker = content.index(b"end_header")
    start = content.index(b"\n", marker) + 1
    order, elements, textures = "", [], []
    for line in map(text_of, content[:start].splitlines()):
        words = line.split()
        match words:
            case ["format", order, *_]:
                pass
            case ["comment", "TextureFile", *_]:
                textures.append(line.split("TextureFile", 1)[1].strip())
            case ["element", name, count]:
                elements.append(Element(name, int(count)))
            case ["property", "list", length, kind, name]:
                elements[-1].properties.append(Property(name, TYPES[kind], TYPES[length]))
            case ["property", kind, name]:
                elements[-1].properties.append(Property(name, TYPES[kind]))
    if not content.startswith(b"ply") or order not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise ValueError("no PLY header")
    return order, elements, textures, start


def _colors(vertex: dict[str, Column]) -> np.ndarray | None:
    names = next((n for n in (("red", "green", "blue"), ("r", "g", "b")) if set(n) <= vertex.keys()), None)
    if names is None:
        return None
    values = np.stack([vertex[name].values for name in names], axis=1)
    return values / (1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max))


def _read_text(data: bytes, elements: list[Element], _: str) -> dict[str, dict[str, Column]]:
    rows = [row for row in data.splitlines() if row.strip()]
    tables, at = {}, 0
    for element in elements:
        mine = rows[at : at + element.count]
        at += element.count
        if len(mine) < element.count:
            raise ValueError("the file ends too early")
        tables[element.name] = _columns_of_text(mine, element)
    return tables


def _columns_of_text(rows: list[bytes], element: Element) -> dict[str, Column]:
    numbers = np.fromstring(b" ".join(rows), dtype=np.float64, sep=" ")
    if all(each.length is None for each in element.properties):
        table = numbers.reshape(len(rows), len(element.properties))
        return {each.name: Column(table[:, i].astype(each.kind)) for i, each in enumerate(element.properties)}
    columns: dict[str, tuple[list, list]] = {each.name: ([], []) for each in element.properties}
    at = 0
    for _ in rows:
        for each in element.properties:
            values, lengths = columns[each.name]
            length = 1
            if each.length is not None:
                length = int(numbers[at])
                lengths.append(length)
                at += 1
            if length < 0 or at + length > len(numbers):
                raise ValueError("a list is longer than its line")
            values.append(numbers[at : at + length])
            at += length
    return {
        each.name: Column(
            np.concatenate([*columns[each.name][0], np.zeros(0)]).astype(each.kind),
            None if each.length is None else np.array(columns[each.name][1], dtype=np.int64),
        )
        for each in element.properties
    }


def _read_binary(data: bytes, elements: list[Element], sign: str) -> dict[str, dict[str, Column]]:
    tables, at = {}, 0
    for element in elements:
        if all(each.length is None for each in element.properties):
            kind = np.dtype([(each.name, sign + each.kind) for each in element.properties])
            table = np.frombuffer(data, kind, element.count, at)
            tables[element.name] = {each.name: Column(table[each.name]) for each in element.properties}
            at += table.nbytes
        else:
            tables[element.name], at = _binary_lists(data, at, element, sign)
    return tables


def _binary_lists(data: bytes, at: int, element: Element, sign: str) -> tuple[dict[str, Column], int]:
    """Rows with lists, read in runs of rows whose lists are equally long; and where the next element begins."""
    lists = [each for each in element.properties if each.length is not None]
    columns: dict[str, tuple[list, list]] = {each.name: ([], []) for each in element.properties}
    done = 0
    while done < element.count:
        kind, lengths = _row_type(data, at, element, sign)
        there = min(element.count - done, (len(data) - at) // kind.itemsize)
        if there < 1:
            raise ValueError("the file ends too early")
        ahead = 16
        while True:  # looking further only while all is alike keeps the whole linear
            rows = np.frombuffer(data, kind, min(ahead, there), at)
            same = np.all([rows[f"#{each.name}"] == lengths[each.name] for each in lists], axis=0)
            if not same.all() or len(rows) == there:
                break
            ahead *= 8
        run = len(rows) if same.all() else int(np.argmin(same))
        rows = rows[:run]
        for each in element.properties:
            values, counted = columns[each.name]
            values.append(rows[each.name].reshape(-1))
            counted.append(np.full(run, lengths.get(each.name, 1)))
        done += run
        at += run * kind.itemsize
    return {
        each.name: Column(
            np.concatenate([*columns[each.name][0], np.zeros(0, each.kind)]),
            None if each.length is None else np.concatenate([*columns[each.name][1], np.zeros(0, np.int64)]),
        )
        for each in element.properties
    }, at


def _row_type(data: bytes, at: int, element: Element, sign: str) -> tuple[np.dtype, dict[str, int]]:
    """The layout of the row that begins at `at`, and the lengths of its lists."""
    fields, lengths, offset = [], {}, at
    for each in element.properties:
        size = np.dtype(each.kind).itemsize
        if each.length is None:
            fields.append((each.name, sign + each.kind))
            offset += size
            continue
        length = int(np.frombuffer(data, sign + each.length, 1, offset)[0])
        if length < 0 or length > len(data):
            raise ValueError("a list is longer than the file")
        lengths[each.name] = length
        fields += [(f"#{each.name}", sign + each.length), (each.name, sign + each.kind, (length,))]
        offset += np.dtype(each.length).itemsize + length * size
    return np.dtype(fields), lengths
