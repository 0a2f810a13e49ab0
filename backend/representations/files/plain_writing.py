"""PLY and STL files, binary: what is left of a mesh where there is no room for a material."""

from __future__ import annotations

import numpy as np

from backend.representations.files.images import to_bytes
from backend.representations.files.surface import facet_vectors, vertex_colors
from backend.representations.mesh_data import MeshData
from backend.representations.polygons import Polygons


def ply_bytes(mesh: MeshData, polygons: Polygons | None) -> bytes:
    """Positions, 8-bit vertex colors (those of the texture where the mesh has no others), and faces or polygons."""
    colors = vertex_colors(mesh)
    columns = [(axis, "<f4") for axis in "xyz"] + ([] if colors is None else [(c, "u1") for c in ("red", "green", "blue")])
    vertices = np.zeros(len(mesh.positions), columns)
    for axis, values in zip("xyz", np.asarray(mesh.positions).T, strict=True):
        vertices[axis] = values
    if colors is not None:
        for channel, values in zip(("red", "green", "blue"), to_bytes(colors).T, strict=True):
            vertices[channel] = values
    header = ["ply", "format binary_little_endian 1.0", "comment Galatea", f"element vertex {len(vertices)}"]
    header += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in columns]
    sizes = np.full(len(mesh.faces), 3) if polygons is None else polygons.sizes
    corners = mesh.faces.reshape(-1) if polygons is None else polygons.corners
    length = "uchar" if sizes.max() < 256 else "int"
    header += [f"element face {len(sizes)}", f"property list {length} int vertex_indices", "end_header"]
    faces = _lists(sizes, corners, np.dtype("u1" if length == "uchar" else "<i4"))
    return ("\n".join(header) + "\n").encode() + vertices.tobytes() + faces


def _lists(sizes: np.ndarray, corners: np.ndarray, length: np.dtype) -> bytes:
    """Each list's length and then its members."""
    ends = np.cumsum(sizes)
    out = np.zeros(len(sizes) * length.itemsize + len(corners) * 4, np.uint8)
    starts = (ends - sizes) * 4 + np.arange(len(sizes)) * length.itemsize
    for byte in range(length.itemsize):
        out[starts + byte] = sizes.astype(length).view(np.uint8).reshape(-1, length.itemsize)[:, byte]
    places = np.arange(len(corners)) * 4 + np.repeat((np.arange(len(sizes)) + 1) * length.itemsize, sizes)
    members = corners.astype("<i4").view(np.uint8).reshape(-1, 4)
    for byte in range(4):
        out[places + byte] = members[:, byte]
    return out.tobytes()


_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def stl_bytes(mesh: MeshData) -> bytes:
    """Bare triangles with their normals."""
    facing = facet_vectors(mesh.positions, mesh.faces)
    facets = np.zeros(len(mesh.faces), _FACET)
    facets["corners"] = mesh.positions[mesh.faces]
    facets["normal"] = facing / np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-300)
    return b"Galatea".ljust(80) + len(facets).to_bytes(4, "little") + facets.tobytes()
