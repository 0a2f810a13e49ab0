"""The outside of glTF 2.0 files: the GLB container, buffers, accessors, and where nodes place meshes.

Shared by the reader, the writer, and `backend.cli.own_format_gltf`, which changes a file in place.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.errors import InputError
from backend.representations.files.disk import read_beside

FLOAT = 5126
COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", FLOAT: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
MAX_BUFFER = 1 << 30
MAX_NODES = 100_000


@dataclass
class Gltf:
    """A document and its buffers; `binary`: it came as GLB. References are followed inside `folder` only."""

    document: dict
    buffers: list[bytearray]
    binary: bool
    folder: Path


def read_gltf(path: Path) -> Gltf:
    """Raises InputError for a buffer that is not there; anything else for what is no glTF."""
    content = path.read_bytes()
    binary = content[:4] == b"glTF"
    document, buffers = _unpack(content) if binary else (json.loads(content), [])
    if not isinstance(document, dict):
        raise ValueError("the document is no object")
    for buffer in document.get("buffers", [])[len(buffers) :]:
        buffers.append(bytearray(read_uri(buffer["uri"], path.parent)))
    return Gltf(document, buffers, binary, path.parent)


def _unpack(content: bytes) -> tuple[dict, list[bytearray]]:
    document, buffers, at = {}, [], 12
    while at + 8 <= len(content):
        size, kind = struct.unpack_from("<I4s", content, at)
        chunk = content[at + 8 : at + 8 + size]
        if len(chunk) < size:
            raise ValueError("the file ends too early")
        if kind == b"JSON":
            document = json.loads(chunk)
        elif kind == b"BIN\0":
            buffers.append(bytearray(chunk))
        at += 8 + size
    return document, buffers


def read_uri(uri: str, folder: Path) -> bytes:
    """What a `uri` of a glTF file in `folder` stands for: data, or a file beside it; an InputError if it is not there."""
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2])
    content = read_beside(folder, uri, MAX_BUFFER)
    if content is None:
        raise InputError(f"The file refers to {uri}, which cannot be read; put it beside the mesh.")
    return content


def data_uri(content: bytes | bytearray, kind: str = "application/octet-stream") -> str:
    """A `uri` that holds the content itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def pack_glb(document: dict, binary: bytes | bytearray) -> bytes:
    """A GLB file of a document whose first buffer is `binary`."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunk = bytes(binary) + b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(chunk), b"BIN\0") + chunk
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def view_bytes(gltf: Gltf, index: int) -> bytes:
    """The content of a buffer view."""
    view = gltf.document["bufferViews"][index]
    start = view.get("byteOffset", 0)
    return bytes(gltf.buffers[view["buffer"]][start : start + view["byteLength"]])


def accessor_array(gltf: Gltf, index: int) -> np.ndarray:
    """An accessor's numbers as they are stored, `[N, C]`, a view of its buffer.

    Raises:
        InputError: they are stored sparsely or compressed.
    """
    accessor = gltf.document["accessors"][index]
    if "sparse" in accessor or "bufferView" not in accessor:
        raise InputError("The file packs its vertices sparsely or compressed; save it uncompressed.")
    view = gltf.document["bufferViews"][accessor["bufferView"]]
    if "EXT_meshopt_compression" in view.get("extensions", {}):
        raise InputError("The file is compressed with meshopt; save it uncompressed.")
    kind = np.dtype(COMPONENTS[accessor["componentType"]])
    width = WIDTHS[accessor["type"]]
    offset = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    strides = (view.get("byteStride") or width * kind.itemsize, kind.itemsize)
    return np.ndarray((accessor["count"], width), kind, gltf.buffers[view["buffer"]], offset, strides)


def accessor_floats(gltf: Gltf, index: int) -> np.ndarray:
    """An accessor's numbers as float64, normalized integers as what they stand for."""
    values = accessor_array(gltf, index)
    if values.dtype.kind == "f" or not gltf.document["accessors"][index].get("normalized", False):
        return values.astype(np.float64)
    return np.maximum(values.astype(np.float64) / np.iinfo(values.dtype).max, -1.0)


def triangles(gltf: Gltf, primitive: dict, count: int) -> np.ndarray | None:
    """The faces [F, 3] int64 of a primitive with `count` vertices, strips and fans taken apart; None of lines, points."""
    mode = primitive.get("mode", 4)
    if mode not in (4, 5, 6):
        return None
    order = np.arange(count)
    if "indices" in primitive:
        order = accessor_array(gltf, primitive["indices"]).reshape(-1).astype(np.int64)
    if mode == 4:
        return order[: len(order) - len(order) % 3].reshape(-1, 3)
    if mode == 6:
        return np.stack([np.full(max(len(order) - 2, 0), order[0]), order[1:-1], order[2:]], axis=1)
    faces = np.stack([order[:-2], order[1:-1], order[2:]], axis=1)
    faces[1::2] = faces[1::2, [1, 0, 2]]
    return faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]


def placements(document: dict) -> list[tuple[dict, np.ndarray]]:
    """(node, world matrix [4, 4]) of every node that shows a mesh in the file's scene, in the file's order.

    Raises:
        InputError: the node tree is not a tree, or too large.
    """
    nodes = document.get("nodes", [])
    scenes = document.get("scenes") or [{"nodes": _roots(nodes)}]
    waiting = [(index, np.eye(4)) for index in reversed(scenes[document.get("scene", 0)].get("nodes", []))]
    found, seen = [], 0
    while waiting:
        index, above = waiting.pop()
        seen += 1
        if seen > min(len(nodes), MAX_NODES):
            raise InputError("The file's nodes do not form a tree, or are too many; export it again.")
        node = nodes[index]
        matrix = above @ local_matrix(node)
        if "mesh" in node:
            found.append((node, matrix))
        waiting += [(child, matrix) for child in reversed(node.get("children", []))]
    return found


def _roots(nodes: list[dict]) -> list[int]:
    children = {child for node in nodes for child in node.get("children", [])}
    return [index for index in range(len(nodes)) if index not in children]


def local_matrix(node: dict) -> np.ndarray:
    """A node's own transform [4, 4], acting on columns."""
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)))
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix
