"""A refined mesh in the glTF 2.0 file that it came in (.glb, or .gltf with everything packed inside).

Positions and normals are rewritten within the file's own buffers; accessors, primitives, materials, textures, UVs and
the node tree stay. Morph targets and skins refer to the old shape and are refused.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from backend.cli.own_format import Refined
from backend.errors import InputError

_FLOAT = 5126
_INDEX_TYPES = {5121: "u1", 5123: "<u2", 5125: "<u4"}


def rewrite_gltf(source: Path, refined: Refined) -> bytes:
    """The file with its vertices moved.

    Raises:
        InputError: it uses what cannot be written back (compression, sparse data, skins, morph targets, one mesh shown
            in several places).
    """
    content = source.read_bytes()
    binary = content[:4] == b"glTF"
    document, buffers = _read_glb(content) if binary else (json.loads(content), [])
    for buffer in document.get("buffers", [])[len(buffers) :]:
        buffers.append(_read_uri(buffer["uri"], source.parent))
    _rewrite_meshes(document, buffers, refined)
    return _write_glb(document, buffers) if binary else _write_gltf(document, buffers, source.parent)


def _rewrite_meshes(document: dict, buffers: list[bytearray], refined: Refined) -> None:
    placed: dict[int, np.ndarray] = {}
    for mesh, matrix in _placements(document):
        if mesh in placed and not np.array_equal(placed[mesh], matrix):
            raise InputError("The file shows one mesh in several places; make each a mesh of its own to refine them.")
        placed[mesh] = matrix
    done: set[int] = set()
    for mesh, matrix in placed.items():
        for primitive in document["meshes"][mesh]["primitives"]:
            if primitive.get("targets"):
                raise InputError("The file has morph targets, which a refined shape would break; remove them first.")
            if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
                raise InputError("The file is Draco-compressed; save it without compression to get it back.")
            where = primitive["attributes"]["POSITION"]
            if where in done:
                continue
            done.add(where)
            _rewrite_primitive(document, buffers, primitive, matrix, refined)


def _rewrite_primitive(
    document: dict, buffers: list[bytearray], primitive: dict, matrix: np.ndarray, refined: Refined
) -> None:
    accessor = document["accessors"][primitive["attributes"]["POSITION"]]
    positions = _floats(document, buffers, accessor)
    original = positions.astype(np.float64)
    world = original @ matrix[:3, :3].T + matrix[:3, 3]
    moved = (refined.positions(world) - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    positions[:] = moved
    accessor["min"] = [float(value) for value in positions.min(0)]
    accessor["max"] = [float(value) for value in positions.max(0)]
    if "NORMAL" in primitive["attributes"]:
        normals = _floats(document, buffers, document["accessors"][primitive["attributes"]["NORMAL"]])
        faces = _triangles(document, buffers, primitive, len(positions))
        normals[:] = _new_normals(original, moved, faces, normals.copy())


def _new_normals(original: np.ndarray, moved: np.ndarray, faces: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Area-weighted, shared by the vertices that shared both position and normal: hard edges stay, UV seams do not show."""
    keys = np.concatenate([original, np.round(normals, 3)], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    corners = moved[faces]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.zeros((group.max() + 1, 3))
    for corner in range(3):
        np.add.at(sums, group[faces[:, corner]], facing)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    unit = sums / np.maximum(lengths, 1e-30)
    return np.where(lengths[group] > 0, unit[group], normals)


def _placements(document: dict) -> list[tuple[int, np.ndarray]]:
    """(mesh, world matrix [4, 4]) of every node that shows a mesh in the file's scene."""
    nodes = document.get("nodes", [])
    scenes = document.get("scenes") or [{"nodes": list(range(len(nodes)))}]
    waiting = [(index, np.eye(4)) for index in scenes[document.get("scene", 0)].get("nodes", [])]
    found = []
    while waiting:
        index, above = waiting.pop()
        node = nodes[index]
        matrix = above @ _local_matrix(node)
        if "mesh" in node:
            if "skin" in node:
                raise InputError("The file has a skinned mesh, which refining does not support; apply its pose first.")
            found.append((node["mesh"], matrix))
        waiting += [(child, matrix) for child in node.get("children", [])]
    return found


def _local_matrix(node: dict) -> np.ndarray:
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


def _floats(document: dict, buffers: list[bytearray], accessor: dict) -> np.ndarray:
    """A writable [N, 3] view of an accessor's floats."""
    if accessor["componentType"] != _FLOAT or "sparse" in accessor or "bufferView" not in accessor:
        raise InputError("The file packs its vertices in a way that cannot be written back; save it uncompressed.")
    view = document["bufferViews"][accessor["bufferView"]]
    offset = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    strides = (view.get("byteStride", 12), 4)
    return np.ndarray((accessor["count"], 3), "<f4", buffers[view["buffer"]], offset, strides)


def _triangles(document: dict, buffers: list[bytearray], primitive: dict, count: int) -> np.ndarray:
    if primitive.get("mode", 4) != 4:
        raise InputError("The file holds strips or fans of triangles; save it with plain triangles to get it back.")
    if "indices" not in primitive:
        return np.arange(count - count % 3).reshape(-1, 3)
    accessor = document["accessors"][primitive["indices"]]
    view = document["bufferViews"][accessor["bufferView"]]
    offset = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    kind = _INDEX_TYPES[accessor["componentType"]]
    return np.frombuffer(buffers[view["buffer"]], kind, accessor["count"], offset).reshape(-1, 3).astype(np.int64)


def _read_glb(content: bytes) -> tuple[dict, list[bytearray]]:
    document, buffers, at = {}, [], 12
    while at + 8 <= len(content):
        size, kind = struct.unpack_from("<I4s", content, at)
        chunk = content[at + 8 : at + 8 + size]
        if kind == b"JSON":
            document = json.loads(chunk)
        elif kind == b"BIN\0":
            buffers.append(bytearray(chunk))
        at += 8 + size
    return document, buffers


def _write_glb(document: dict, buffers: list[bytearray]) -> bytes:
    for buffer, content in zip(document["buffers"][1:], buffers[1:], strict=True):
        buffer["uri"] = _data_uri(content)
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = bytes(buffers[0]) + b"\0" * (-len(buffers[0]) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _write_gltf(document: dict, buffers: list[bytearray], folder: Path) -> bytes:
    for buffer, content in zip(document["buffers"], buffers, strict=True):
        buffer["uri"] = _data_uri(content)
    for image in document.get("images", []):
        if "uri" in image and not image["uri"].startswith("data:"):
            kind = "image/png" if image["uri"].lower().endswith(".png") else "image/jpeg"
            image["uri"] = _data_uri(_read_uri(image["uri"], folder), kind)
    return json.dumps(document).encode()


def _read_uri(uri: str, folder: Path) -> bytearray:
    if uri.startswith("data:"):
        return bytearray(base64.b64decode(uri.partition(",")[2]))
    try:
        return bytearray((folder / unquote(uri)).read_bytes())
    except OSError as error:
        raise InputError(f"The file refers to {uri}, which cannot be read; put it beside the mesh.") from error


def _data_uri(content: bytes | bytearray, kind: str = "application/octet-stream") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
