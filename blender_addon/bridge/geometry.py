"""Blender's mesh arrays, read and written whole by their fast routes.

The `foreach` functions of generic attributes copy memory; those of `vertices`, `loops` and `polygons` go through every
element in turn and take a hundred times as long. Arrays must be contiguous and of exactly the attribute's type.
"""

from __future__ import annotations

import hashlib

import numpy as np
from bpy.types import Mesh

from .prepare import Topology


def read_positions(mesh: Mesh) -> np.ndarray:
    """[V, 3] float32, local."""
    positions = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
    if len(positions):
        mesh.attributes["position"].data.foreach_get("vector", positions)
    return positions.reshape(-1, 3)


def read_corner_verts(mesh: Mesh) -> np.ndarray:
    """[C] int32: the vertex of each face corner."""
    corners = np.empty(len(mesh.loops), dtype=np.int32)
    if len(corners):
        mesh.attributes[".corner_vert"].data.foreach_get("value", corners)
    return corners


def read_triangles(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Blender's triangulation: triangles [T, 3] int32 and the face that each belongs to [T] int32."""
    if len(mesh.loops) == 3 * len(mesh.polygons):
        return read_corner_verts(mesh).reshape(-1, 3), np.arange(len(mesh.polygons), dtype=np.int32)
    mesh.calc_loop_triangles()
    triangles = np.empty(len(mesh.loop_triangles) * 3, dtype=np.int32)
    owners = np.empty(len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("vertices", triangles)
    mesh.loop_triangles.foreach_get("polygon_index", owners)
    return triangles.reshape(-1, 3), owners


def digest(mesh: Mesh) -> str:
    """Names the mesh's positions and faces: another one after an edit."""
    seen = hashlib.sha256(read_positions(mesh))
    seen.update(read_corner_verts(mesh))
    return seen.hexdigest()


def write_positions(mesh: Mesh, positions: np.ndarray) -> None:
    """[V, 3] float32, contiguous, for the vertices that are there. All that depends on positions is up to date afterwards."""
    mesh.attributes["position"].data.foreach_set("vector", positions.reshape(-1))
    # Up to Blender 5.0 a write through the attribute leaves the bounding box as it was; one through a vertex does not.
    mesh.vertices[0].co = mesh.vertices[0].co
    mesh.update()


def rebuild(mesh: Mesh, positions: np.ndarray, topology: Topology) -> None:
    """Other vertices and triangles; every attribute is lost, materials stay.

    The edges come with the topology: finding them would take Blender most of the time of all this.
    """
    mesh.clear_geometry()
    mesh.vertices.add(len(positions))
    mesh.edges.add(len(topology.edge_verts))
    mesh.loops.add(len(topology.corner_verts))
    mesh.polygons.add(topology.faces)
    mesh.attributes[".edge_verts"].data.foreach_set("value", topology.edge_verts.reshape(-1))
    mesh.attributes[".corner_vert"].data.foreach_set("value", topology.corner_verts)
    mesh.attributes[".corner_edge"].data.foreach_set("value", topology.corner_edges)
    mesh.polygons.foreach_set("loop_start", topology.face_starts)
    write_positions(mesh, positions)
