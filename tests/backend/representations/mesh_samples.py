"""Meshes that file formats are tried with."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.primitives import icosphere

QUAD_POSITIONS = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
QUAD_FACES = np.uint16([[0, 1, 2], [0, 2, 3]])
QUAD_UVS = np.float32([[0, 1], [1, 1], [1, 0], [0, 0]])


def eight_bit(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Random values that 8 bits hold exactly."""
    return generator.integers(0, 256, shape).astype(np.float32) / np.float32(255.0)


def random_normals(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    vectors = generator.normal(size=(height, width, 3)) * [0.4, 0.4, 0.1] + [0.0, 0.0, 1.0]
    return (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)


def textured_box(seed: int = 0) -> MeshData:
    """A box with a chart for each side (all vertices split), and every map there is, of different sizes."""
    generator = np.random.default_rng(seed)
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 2) for z in (0, 3)], np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces, uv_faces, uvs = [], [], []
    for side, (a, b, c, d) in enumerate(quads):
        faces += [(a, b, c), (a, c, d)]
        first = 4 * side
        uv_faces += [(first, first + 1, first + 2), (first, first + 2, first + 3)]
        uvs += (np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * 0.3 + generator.random(2) * 0.6).tolist()
    material = MaterialData(
        base_color=eight_bit(generator, 16, 8, 3),
        metallic=eight_bit(generator, 8, 8),
        roughness=eight_bit(generator, 8, 8),
        normal=random_normals(generator, 4, 16),
        emission=eight_bit(generator, 4, 4, 3),
        name="Käse 木",
    )
    return MeshData(corners, np.int32(faces), None, np.float32(uvs), np.int32(uv_faces), material)


def colored_ball(subdivisions: int = 2) -> MeshData:
    ball = icosphere(subdivisions)
    return MeshData(ball.positions, ball.faces, np.random.default_rng(0).random(ball.positions.shape, dtype=np.float32))


def png_uri(values: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def write_gltf(path: Path, arrays: dict[str, np.ndarray], **document: object) -> Path:
    """A .gltf of one primitive; `arrays` are its attributes and "indices"; `document` adds to or replaces the rest."""
    content, views, accessors = b"", [], []
    for array in arrays.values():
        kind = {"float32": 5126, "uint8": 5121, "uint16": 5123, "uint32": 5125}[array.dtype.name]
        flat = array.reshape(-1) if array is arrays.get("indices") else array
        width = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}[1 if flat.ndim == 1 else flat.shape[1]]
        views.append({"buffer": 0, "byteOffset": len(content), "byteLength": array.nbytes})
        accessor = {"bufferView": len(views) - 1, "componentType": kind, "count": len(flat), "type": width}
        normalized = {"normalized": True} if array.dtype.kind == "u" and array is not arrays.get("indices") else {}
        accessors.append(accessor | normalized)
        content += array.tobytes() + b"\0" * (-array.nbytes % 4)
    attributes = {key: index for index, key in enumerate(arrays) if key != "indices"}
    primitive = {"attributes": attributes} | ({"indices": list(arrays).index("indices")} if "indices" in arrays else {})
    primitive |= document.pop("primitive", {})
    whole = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0, "name": "node"}],
        "meshes": [{"name": "mesh", "primitives": [primitive]}],
        "buffers": [{"uri": "data:;base64," + base64.b64encode(content).decode(), "byteLength": len(content)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    path.write_text(json.dumps(whole | document))
    return path
