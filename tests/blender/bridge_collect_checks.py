"""Checks within Blender: what is collected of an object, and what is refused."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import bpy
import numpy as np

sys.path.append(str(Path(__file__).parents[2]))
from tests.blender.bridge_scene import (
    JOB, artists_object, differences, expect, layers_of, positions_of, refused, run_checks, world_of,
)  # fmt: skip
from galatea.bridge import marks, preview
from galatea.bridge.collect import collect
from galatea.bridge.errors import SceneError
from galatea.bridge.placement import Placement, default_placement


def main() -> dict[str, str | None]:
    return run_checks(globals())


def cube() -> bpy.types.Object:
    bpy.ops.mesh.primitive_cube_add()
    return bpy.context.object


def check_an_object_fills_the_unit_sphere_as_it_stands_in_the_world() -> None:
    object = artists_object()
    before = layers_of(object)
    collected = collect(object)
    world = world_of(object)
    upright = np.stack([world[:, 0], world[:, 2], -world[:, 1]], axis=1)
    upright -= (upright.min(axis=0) + upright.max(axis=0)) / 2
    expected = upright * (0.95 / np.linalg.norm(upright, axis=1).max())
    expect(np.abs(collected.mesh.positions - expected).max() < 3e-7, np.abs(collected.mesh.positions - expected).max())
    expect(collected.mesh.positions.dtype == np.float32 and collected.mesh.faces.dtype == np.int32)
    expect(len(collected.mesh.faces) == 2 * len(object.data.polygons))
    object.data.calc_loop_triangles()
    expect([list(triangle.vertices) for triangle in object.data.loop_triangles] == collected.mesh.faces.tolist())
    expect(not differences(before, layers_of(object)))


def check_the_way_there_and_back() -> None:
    object = artists_object()
    placement = collect(object).placement
    local = positions_of(object)
    wire = placement.to_wire(local)
    bare = placement.with_original(None)
    expect((placement.to_local(wire) == local).all(), "what did not move must come back bit for bit")
    expect(np.abs(bare.to_local(wire) - local).max() < 5e-6, np.abs(bare.to_local(wire) - local).max())
    wire[::2] += 0.125
    expect((placement.to_local(wire)[1::2] == local[1::2]).all())
    expect((placement.to_local(wire)[::2] != local[::2]).any(axis=1).all())
    import json

    again = Placement.from_dict(json.loads(json.dumps(placement.to_dict())))
    expect((again.to_wire_matrix == placement.to_wire_matrix).all() and (again.to_wire(local) == placement.to_wire(local)).all())
    for numbers in ([1.0] * 16, ["x"] * 16, [float("nan")] * 16, [1.0] * 15, None):
        refused(SceneError, "damaged", Placement.from_dict, {"to_wire": numbers, "location": [0, 0, 0]})
    for damaged in (None, {}, {"to_wire": again.to_wire_matrix.tolist()}):
        refused(SceneError, "damaged", Placement.from_dict, damaged)


def check_far_and_small_objects() -> None:
    object = cube()
    object.location, object.scale = (5000.0, -3000.0, 200.0), (0.01, 0.02, 0.01)
    wire = collect(object).mesh.positions
    expect(np.abs(np.linalg.norm(wire, axis=1) - 0.95).max() < 1e-6)


def check_faces_look_outward_however_an_object_is_scaled() -> None:
    for scale in ((1, 1, 1), (-1, 2, 1), (-1, -1, -1), (-1, -1, 1)):
        object = cube()
        object.scale = scale
        mesh = collect(object).mesh
        a, b, c = np.moveaxis(mesh.positions[mesh.faces], 1, 0)
        expect((np.einsum("fi,fi->f", np.cross(b - a, c - a), a) > 0).all(), scale)


def check_generated_objects_stand_upright_and_face_the_front_view() -> None:
    local = default_placement().to_local(np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32))
    expect(local.tolist() == [[0, 0, 1], [0, -1, 0], [1, 0, 0]], local)


def check_colors_are_sent_as_displayed() -> None:
    rng = np.random.default_rng(1)
    for kind, tolerance in (("FLOAT_COLOR", 2e-4), ("BYTE_COLOR", 1e-6)):
        for domain in ("POINT", "CORNER"):
            object = cube()
            mesh = object.data
            shown = np.round(rng.random((len(mesh.vertices), 3)) * 255) / 255
            layer = mesh.color_attributes.new("Paint", kind, domain)
            owners = range(len(mesh.vertices)) if domain == "POINT" else [loop.vertex_index for loop in mesh.loops]
            for item, owner in zip(layer.data, owners, strict=True):
                item.color_srgb = (*shown[owner], 1.0)
            mesh.color_attributes.active_color = mesh.color_attributes["Paint"]
            sent = collect(object).mesh.colors
            off = np.abs(sent - shown).max()
            expect(sent.dtype == np.float32 and off < tolerance, (kind, domain, off))
    expect(collect(cube()).mesh.colors is None)


def check_colors_of_corners_are_averaged() -> None:
    object = cube()
    mesh = object.data
    layer = mesh.color_attributes.new("Paint", "FLOAT_COLOR", "CORNER")
    for index, item in enumerate(layer.data):
        item.color = (index / 24, 0.5, 2.0, 1.0)
    sent = collect(object).mesh.colors
    for vertex in range(8):
        linear = np.mean([loop.index / 24 for loop in mesh.loops if loop.vertex_index == vertex])
        expect(abs(sent[vertex, 0] - (1.055 * linear ** (1 / 2.4) - 0.055)) < 1e-5)
    expect(np.abs(sent[:, 1] - 0.7353570).max() < 1e-5 and np.abs(sent[:, 2] - 1.0).max() < 1e-6, sent)


def check_loose_vertices_are_kept() -> None:
    object = cube()
    object.data.vertices.add(2)
    object.data.vertices[-1].co = (0.0, 0.0, 9.0)
    layer = object.data.color_attributes.new("Paint", "BYTE_COLOR", "CORNER")
    layer.data[0].color_srgb = (1, 0, 0, 1)
    collected = collect(object)
    expect(len(collected.mesh.positions) == 10 and len(collected.mesh.colors) == 10)
    expect(any("2 vertices that no face uses" in note and "far out" in note for note in collected.notes), collected.notes)


def check_notes_on_what_is_unusual() -> None:
    object = artists_object()
    other = bpy.data.objects.new("Other", object.data)
    bpy.context.collection.objects.link(other)
    notes = " ".join(collect(object).notes)
    expect("Mirror, Subdivision" in notes and "shared by 2 objects" in notes and "Paint" in notes, notes)
    expect(collect(cube()).notes == ())


def check_triangles_without_area_are_left_out_where_their_face_has_some() -> None:
    object = cube()
    object.data.vertices[0].co = object.data.vertices[1].co  # two squares become triangles
    mesh = collect(object).mesh
    a, b, c = np.moveaxis(mesh.positions[mesh.faces].astype(float), 1, 0)
    expect(len(mesh.faces) == 10 and (np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0.01).all())
    flat = bpy.data.meshes.new("Flat")
    flat.from_pydata([(0, 0, 0), (2, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 3), (0, 1, 2)])
    object = bpy.data.objects.new("Flat", flat)
    bpy.context.collection.objects.link(object)
    expect("1 face without area (the first is face 1)" in refused(SceneError, "Degenerate Dissolve", collect, object))


def check_what_cannot_be_refined_is_refused_with_the_way_out() -> None:
    refused(SceneError, "Nothing is selected", collect, None)
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    empty = bpy.data.objects.new("Empty", None)
    for object in (camera, empty):
        bpy.context.collection.objects.link(object)
        refused(SceneError, "is not a mesh", collect, object)

    object = cube()
    bpy.ops.object.mode_set(mode="EDIT")
    refused(SceneError, "leave it with Tab", collect, object)
    for mode in ("SCULPT", "VERTEX_PAINT"):
        bpy.ops.object.mode_set(mode=mode)
        refused(SceneError, "Object Mode", collect, object)
    bpy.ops.object.mode_set(mode="OBJECT")

    object.shape_key_add(name="Basis")
    refused(SceneError, "shape keys", collect, object)

    object = cube()
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.mesh.delete(type="ONLY_FACE")
    bpy.ops.object.mode_set(mode="OBJECT")
    refused(SceneError, "no faces", collect, object)

    object = cube()
    for bad in (float("nan"), float("inf")):
        positions = positions_of(object)
        positions[3, 0] = bad  # the properties of a vertex would not take it
        object.data.attributes["position"].data.foreach_set("vector", positions.ravel())
        expect("vertex 3" in refused(SceneError, "not numbers", collect, object))

    object = cube()
    for vertex in object.data.vertices:
        vertex.co = (1, 1, 1)
    refused(SceneError, "at one place", collect, object)

    object = cube()
    for index in object.data.polygons[2].vertices:
        object.data.vertices[index].co = (1.0, 1.0, 1.0)
    refused(SceneError, "Degenerate Dissolve", collect, object)

    object = cube()
    hidden = bpy.data.collections.new("Hidden")
    bpy.context.scene.collection.children.link(hidden)
    hidden.objects.link(object)
    bpy.context.scene.collection.objects.unlink(object)
    bpy.context.view_layer.layer_collection.children["Hidden"].exclude = True
    refused(SceneError, "not in this view layer", collect, object)


def check_flattened_objects_are_refused() -> None:
    object, parent = cube(), bpy.data.objects.new("Parent", None)
    bpy.context.collection.objects.link(parent)
    object.scale = (1.0, 0.0, 1.0)
    refused(SceneError, "scaled to nothing", collect, object)
    object.scale = (1.0, 1.0, 1.0)
    object.parent = parent
    parent.scale = (0.0, 0.0, 0.0)
    refused(SceneError, "scaled to nothing", collect, object)
    parent.scale = (1e-3, -1e-3, 1e-3)  # small and mirrored is fine
    wire = collect(object).mesh.positions
    expect(np.abs(np.linalg.norm(wire, axis=1) - 0.95).max() < 1e-6)


def check_linked_objects_are_refused() -> None:
    path = str(Path(tempfile.mkdtemp()) / "library.blend")
    bpy.data.libraries.write(path, {cube()})
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with bpy.data.libraries.load(path, link=True) as (there, here):
        here.objects = there.objects
    linked = here.objects[0]
    bpy.context.collection.objects.link(linked)
    refused(SceneError, "linked from another file", collect, linked)
    override = linked.override_create(remap_local_usages=True)
    refused(SceneError, "linked from another file", collect, override)  # its mesh is
    local = cube()
    local.data = linked.data
    refused(SceneError, "Make Local", collect, local)


def check_previews_and_objects_that_have_one_are_refused() -> None:
    object = cube()
    collected = collect(object)
    live = preview.begin(bpy.context, JOB, "a cube", object, collected.placement)
    refused(SceneError, "is the preview of a job", collect, live)
    object.hide_set(False)
    refused(SceneError, "being refined already", collect, object)
    refused(SceneError, "being refined already", preview.begin, bpy.context, "f" * 32, "a cube", object, collected.placement)
    bpy.data.objects.remove(live)
    expect(marks.SHOWN_AS in object)
    collect(object)  # the mark is stale
