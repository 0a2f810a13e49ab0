"""Checks within Blender: a generated object, from the empty preview to the result."""

from __future__ import annotations

import sys
from pathlib import Path

import bpy
import numpy as np

sys.path.append(str(Path(__file__).parents[2]))
from tests.blender.bridge_scene import JOB, counts, expect, icosphere, positions_of, refused, run_checks, snapshot, wire_mesh
from galatea.bridge import finish, preview
from galatea.bridge.errors import SceneError
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


def check_long_and_empty_names() -> None:
    for prompt in ("ein Häuschen mit Türchen " * 20, "", "   ", "\N{TEAPOT}" * 50):
        live = preview.begin(bpy.context, JOB, prompt, None, default_placement())
        expect(live.name and len(live.name.encode()) <= 63 and prompt.strip().startswith(live.name) or live.name == "Galatea")
        finish.discard(bpy.context, live)


def check_a_collection_that_cannot_be_seen_is_not_used() -> None:
    hidden = bpy.data.collections.new("Hidden")
    bpy.context.scene.collection.children.link(hidden)
    layer = bpy.context.view_layer.layer_collection.children["Hidden"]
    bpy.context.view_layer.active_layer_collection = layer
    live, _ = begin()
    expect(list(live.users_collection) == [hidden] and live.visible_get())
    finish.discard(bpy.context, live)
    for name in ("exclude", "hide_viewport"):
        setattr(layer, name, True)
        live, _ = begin()
        expect(live.visible_get(), name)
        finish.discard(bpy.context, live)
        setattr(layer, name, False)
    hidden.hide_viewport = True
    live, _ = begin()
    expect(live.visible_get())


def check_edits_of_the_artists_give_way_to_the_next_update() -> None:
    live, placement = begin()
    points, faces = icosphere(2)
    frame = prepare(placement, snapshot(points, faces, np.full_like(points, 0.5)))
    expect(preview.apply(live, frame))
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.mesh.subdivide()
    expect(not preview.apply(live, frame))
    refused(SceneError, "Edit Mode", finish.accept, bpy.context, live, wire_mesh(points, faces))
    bpy.ops.object.mode_set(mode="OBJECT")
    expect(len(live.data.vertices) > len(points))
    expect(preview.apply(live, frame) and len(live.data.vertices) == len(points) and len(live.data.edges) == 3 * len(points) - 6)


def check_updates_without_faces_wait_for_one_that_has_them() -> None:
    live, placement = begin()
    points, faces = icosphere(1)
    frame = prepare(placement, snapshot(points, None))
    expect(not preview.apply(live, frame) and "without its faces" in preview.why_not(live, frame))
    expect(preview.apply(live, prepare(placement, snapshot(points, faces))))
    expect(preview.apply(live, frame))


def check_faces_that_use_a_vertex_twice_are_left_out() -> None:
    live, placement = begin()
    points, faces = icosphere(1)
    faces = np.concatenate([faces, [(0, 0, 1), (2, 3, 2)]])
    expect(preview.apply(live, prepare(placement, snapshot(points, faces))))
    expect(len(live.data.polygons) == len(faces) - 2 and not live.data.validate(verbose=True))
    expect(preview.apply(live, prepare(placement, snapshot(points, faces))))


def check_updates_reach_what_is_drawn() -> None:
    """The bounding box and the evaluated mesh, with and without new faces."""
    live, placement = begin((0.0, 0.0, 0.0))
    points, faces = icosphere(2)
    for scale, level in ((1.0, 2), (0.5, 2), (0.25, 1), (0.75, 1)):
        points, faces = icosphere(level)
        expect(preview.apply(live, prepare(placement, snapshot(points * scale, faces, np.full_like(points, scale)))))
        bpy.context.view_layer.update()
        span = np.ptp(points * scale, axis=0)[[0, 2, 1]]
        expect(np.abs(np.array(live.dimensions) - span).max() < 1e-6, (scale, live.dimensions))
        drawn = live.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
        expect(len(drawn.vertices) == len(points) and abs(drawn.vertices[0].co.length - scale) < 1e-6)
        normal = np.array([face.normal @ face.center for face in drawn.polygons])
        expect((normal > 0).all())
        shown = np.array([item.color_srgb for item in drawn.color_attributes["Color"].data])[:, :3]
        expect(np.abs(shown - scale).max() < 2e-4)
