"""Checks within Blender: a generated object, from the empty preview to the result."""

from __future__ import annotations

import sys
from pathlib import Path

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from bridge_scene import JOB, counts, expect, icosphere, positions_of, run_checks, snapshot, wire_mesh
from galatea.bridge import finish, preview
from galatea.bridge.placement import default_placement
from galatea.bridge.prepare import prepare


def main() -> dict[str, str | None]:
    return run_checks(globals())


def begin(location: tuple[float, float, float] = (1.0, 2.0, 3.0)) -> tuple:
    placement = default_placement(location)
    return preview.begin(bpy.context, JOB, "a red mug", None, placement), placement


def check_a_result_stands_at_the_cursor() -> None:
    live, placement = begin()
    expect(live.name == "a red mug" and live.select_get() and bpy.context.view_layer.objects.active == live)
    points, faces = icosphere()
    points = points * (1.0, 0.5, 0.2) + (0.0, 0.1, 0.0)
    expect(preview.apply(live, prepare(placement, snapshot(points, faces, np.full_like(points, 0.5)))))
    bpy.context.view_layer.update()
    world = np.array([live.matrix_world @ vertex.co for vertex in live.data.vertices])
    expected = np.stack([points[:, 0] + 1, -points[:, 2] + 2, points[:, 1] + 3], axis=1)
    expect(np.abs(world - expected).max() < 1e-6)


def check_new_faces_are_what_blender_would_have_made_of_them() -> None:
    live, placement = begin()
    for subdivisions in (1, 3, 2, 2):
        points, faces = icosphere(subdivisions)
        live.data.calc_loop_triangles()
        expect(preview.apply(live, prepare(placement, snapshot(points, faces, np.full_like(points, 0.5)))))
        mesh = live.data
        reference = bpy.data.meshes.new("reference")
        reference.from_pydata(positions_of(live).tolist(), [], faces.tolist())
        edges = [{tuple(sorted(edge.vertices)) for edge in m.edges} for m in (mesh, reference)]
        expect(edges[0] == edges[1] and len(mesh.edges) == len(reference.edges))
        expect([list(face.vertices) for face in mesh.polygons] == faces.tolist())
        for loop in mesh.loops:
            following = mesh.loops[loop.index + 1 if loop.index % 3 < 2 else loop.index - 2]
            expect(set(mesh.edges[loop.edge_index].vertices) == {loop.vertex_index, following.vertex_index})
        normals = [np.array([n.vector for n in m.vertex_normals]) for m in (mesh, reference)]
        expect(np.abs(normals[0] - normals[1]).max() < 1e-5)
        mesh.calc_loop_triangles()
        expect(len(mesh.loop_triangles) == len(faces))
        bpy.data.meshes.remove(reference)
        expect(not mesh.validate(verbose=True), "validate found something to repair")


def check_discard_leaves_nothing() -> None:
    blocks = counts()
    live, placement = begin()
    points, faces = icosphere()
    expect(preview.apply(live, prepare(placement, snapshot(points, faces, np.full_like(points, 0.5)))))
    finish.discard(bpy.context, live)
    expect(counts() == blocks, counts())


def check_accept_takes_the_final_mesh() -> None:
    live, placement = begin()
    points, faces = icosphere(3)
    expect(preview.apply(live, prepare(placement, snapshot(points, faces, np.full_like(points, 0.5)))))
    points, faces = icosphere(2)
    accepted = finish.accept(bpy.context, live, wire_mesh(points, faces, np.full_like(points, 0.25)))
    expect(len(accepted.data.vertices) == len(points) and len(accepted.data.polygons) == len(faces))
    expect(not list(accepted.keys()) and not list(accepted.data.keys()), list(accepted.keys()))
    expect(accepted.data.attributes.active_color_name == accepted.data.attributes.default_color_name == "Color")
    expect(preview.find(JOB) is None)
