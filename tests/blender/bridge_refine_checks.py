"""Checks within Blender: an object is refined, and what came back is accepted, kept or discarded."""

from __future__ import annotations

import sys
from pathlib import Path

import bpy
import numpy as np

sys.path.append(str(Path(__file__).parents[2]))
from tests.blender.bridge_scene import (
    JOB, artists_object, counts, differences, expect, layers_of, positions_of, refused, run_checks, snapshot, turned,
    wire_mesh, world_of,
)  # fmt: skip
from galatea.bridge import finish, preview
from galatea.bridge.collect import collect
from galatea.bridge.errors import SceneError
from galatea.bridge.prepare import prepare


def main() -> dict[str, str | None]:
    return run_checks(globals())


def check_discard_leaves_all_as_it_was() -> None:
    original = artists_object()
    before, blocks = layers_of(original), counts()
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    moved = collected.mesh.positions + 0.1
    expect(preview.apply(live, prepare(collected.placement, snapshot(moved, None, np.full_like(moved, 0.5)))))
    expect(original.hide_get() and original.hide_render and live.visible_get())
    finish.discard(bpy.context, live)
    expect(not differences(before, layers_of(original)), differences(before, layers_of(original)))
    expect(counts() == blocks, counts())
    expect(bpy.context.view_layer.objects.active == original)


def check_accept_moves_vertices_and_colors_only() -> None:
    original = artists_object()
    before, blocks, world = layers_of(original), counts(), world_of(original)
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    still = positions_of(original)
    wire = collected.mesh.positions.copy()
    chosen = np.arange(len(wire)) % 3 == 0
    wire[chosen] += (0.01, 0.05, -0.02)
    colors = np.random.default_rng(0).random(wire.shape).astype(np.float32)
    expect(preview.apply(live, prepare(collected.placement, snapshot(wire, None, colors))))
    accepted = finish.accept(bpy.context, live, wire_mesh(wire, None, colors))
    expect(accepted == original)
    changed = differences(before, layers_of(original))
    expect(changed == {"POINT FLOAT_VECTOR position", "POINT FLOAT_COLOR Color", "colors"}, changed)
    expect(counts() == blocks, counts())
    attributes = original.data.attributes
    expect(attributes.active_color_name == attributes.default_color_name == "Color")
    expect((positions_of(original)[~chosen] == still[~chosen]).all())
    # The way back, without the placement: the same step in wire space is everywhere the same step in the world.
    step = (world_of(original) - world)[chosen]
    expect(np.abs(step - step.mean(axis=0)).max() < 1e-5, step)
    direction = step.mean(axis=0) / np.linalg.norm(step.mean(axis=0))
    wanted = np.array([0.01, 0.02, 0.05]) / np.linalg.norm([0.01, 0.02, 0.05])
    expect(np.abs(direction - wanted).max() < 1e-4, direction)
    shown = np.array([item.color_srgb for item in original.data.color_attributes["Color"].data])[:, :3]
    expect(np.abs(shown - colors).max() < 2e-4)  # Blender takes a shortcut to that power


def check_keeping_a_copy_leaves_the_original_as_it_was() -> None:
    original = artists_object()
    before, blocks = layers_of(original), counts()
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    moved = collected.mesh.positions + np.float32(0.1)
    kept = finish.keep_as_copy(bpy.context, live, wire_mesh(moved, None, np.full_like(moved, 0.5)))
    changed = differences(before, layers_of(original))
    expect(changed == {"visible"} and original.visible_get() and not original.hide_render and not original.select_get(), changed)
    expect(kept == live and kept.name == "Cloth refined" and kept.select_get() and preview.find(JOB) is None)
    changed = differences(before, layers_of(kept))
    expect(changed == {"POINT FLOAT_VECTOR position", "POINT FLOAT_COLOR Color", "colors"}, changed)
    expect(counts() == blocks | {"objects": blocks["objects"] + 1, "meshes": blocks["meshes"] + 1})


def check_what_is_shown_can_be_taken_before_the_job_is_done() -> None:
    original = artists_object()
    collected = collect(original)
    moved = collected.mesh.positions + np.float32(0.1)
    for end in (finish.accept, finish.keep_as_copy):
        live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
        expect(preview.apply(live, prepare(collected.placement, snapshot(moved, None, np.full_like(moved, 0.5)))))
        shown = positions_of(live)
        expect((positions_of(end(bpy.context, live, None)) == shown).all())
    colors = np.array([item.color for item in original.data.color_attributes["Color"].data])
    expect(np.abs(colors[:, :3] - 0.21404114).max() < 1e-6 and original.data.color_attributes.active_color.name == "Color")


def check_a_shared_mesh_is_made_single_only_by_accept() -> None:
    original = artists_object()
    other = bpy.data.objects.new("Other", original.data)
    bpy.context.collection.objects.link(other)
    before, blocks, still = layers_of(other), counts(), positions_of(other)
    collected = collect(original)
    moved = collected.mesh.positions + np.float32(0.1)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    finish.discard(bpy.context, live)
    expect(original.data == other.data and counts() == blocks)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    finish.accept(bpy.context, live, wire_mesh(moved, None, np.full_like(moved, 0.5)))
    expect(original.data != other.data and not differences(before, layers_of(other)))
    expect((positions_of(other) == still).all() and (positions_of(original) != still).any())
    expect(counts() == blocks | {"meshes": blocks["meshes"] + 1})


def check_custom_normals_turn_with_the_surface() -> None:
    original = artists_object()
    before = corner_normals(original)
    expect(original.data.has_custom_normals)
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    original_space = turned(positions_of(original), (20, -35, 60))
    wire = collected.placement.to_wire(original_space.astype(np.float32))
    expect(preview.apply(live, prepare(collected.placement, snapshot(wire, None))))
    expect(np.abs(corner_normals(live) - turned(before, (20, -35, 60))).max() < 1e-3)
    finish.accept(bpy.context, live, wire_mesh(wire, None))
    expect(np.abs(corner_normals(original) - turned(before, (20, -35, 60))).max() < 1e-3)


def check_free_normals_stay() -> None:
    if bpy.app.version < (5, 0):
        return  # Blender 4 knows none
    original = artists_object()
    mesh = original.data
    mesh.attributes.remove(mesh.attributes["custom_normal"])
    wanted = np.random.default_rng(5).normal(size=(len(mesh.loops), 3)).astype(np.float32)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    mesh.attributes.new("custom_normal", "FLOAT_VECTOR", "CORNER").data.foreach_set("vector", wanted.ravel())
    collected = collect(original)
    expect(any("free ones" in note for note in collected.notes))
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    finish.accept(bpy.context, live, wire_mesh(collected.mesh.positions * np.float32(0.9), None))
    expect(np.abs(corner_normals(original) - wanted).max() < 1e-5)


def corner_normals(object: bpy.types.Object) -> np.ndarray:
    return np.array([normal.vector for normal in object.data.corner_normals])


def check_float_colors_on_points_are_changed_in_place() -> None:
    """And only where they changed: other values keep their bits, brightness beyond white and all; so does alpha."""
    original = artists_object()
    layer = original.data.color_attributes.new("Tint", "FLOAT_COLOR", "POINT")
    values = np.random.default_rng(2).random((len(original.data.vertices), 4)).astype(np.float32) * 1.5
    layer.data.foreach_set("color", values.ravel())
    original.data.color_attributes.active_color = layer
    before = layers_of(original)
    collected = collect(original)
    colors = collected.mesh.colors.copy()
    colors[3] = (1.0, 0.5, 0.0)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    expect(preview.apply(live, prepare(collected.placement, snapshot(collected.mesh.positions, None, colors))))
    finish.accept(bpy.context, live, wire_mesh(collected.mesh.positions, None, colors))
    expect(differences(before, layers_of(original)) <= {"POINT FLOAT_COLOR Tint", "colors"})
    after = np.array([item.color for item in original.data.color_attributes["Tint"].data], dtype=np.float32)
    expect((np.delete(after, 3, 0) == np.delete(values, 3, 0)).all() and after[3, 3] == values[3, 3])
    expect(np.abs(after[3, :3] - (1.0, 0.21404114, 0.0)).max() < 1e-6)


def check_colors_that_did_not_change_make_no_layer() -> None:
    original = artists_object()
    before = layers_of(original)
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    finish.accept(bpy.context, live, wire_mesh(collected.mesh.positions, None, collected.mesh.colors))
    expect(not differences(before, layers_of(original)), differences(before, layers_of(original)))


def check_a_layer_of_the_artists_named_color_is_not_taken() -> None:
    bpy.ops.mesh.primitive_cube_add()
    original = bpy.context.object
    original.data.color_attributes.new("Color", "BYTE_COLOR", "CORNER")
    before = layers_of(original)
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cube", original, collected.placement)
    for shade in (0.2, 0.4):
        expect(preview.apply(live, prepare(collected.placement, snapshot(*two(collected.mesh.positions, shade)))))
    expect(sorted(live.data.color_attributes.keys()) == ["Color", "Color.001"])
    finish.accept(bpy.context, live, wire_mesh(*two(collected.mesh.positions, 0.6)))
    changed = differences(before, layers_of(original))
    expect(changed == {"POINT FLOAT_COLOR Color.001", "colors", "slots"}, changed)


def two(positions: np.ndarray, shade: float) -> tuple:
    return positions, None, np.full_like(positions, shade)


def check_results_of_another_size_are_refused() -> None:
    original = artists_object()
    before = layers_of(original)
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    hidden = layers_of(original)
    wrong = collected.mesh.positions[:-1]
    frame = prepare(collected.placement, snapshot(wrong, None))
    expect(not preview.apply(live, frame) and "vertices now" in preview.why_not(live, frame))
    refused(SceneError, "keep it as a copy", finish.accept, bpy.context, live, wire_mesh(wrong, None))
    expect(not differences(hidden, layers_of(original)))
    finish.discard(bpy.context, live)
    expect(not differences(before, layers_of(original)))


def check_animation_and_collections_are_shared_and_not_doubled() -> None:
    original = artists_object()
    second = bpy.data.collections.new("Second")
    bpy.context.scene.collection.children.link(second)
    second.objects.link(original)
    original.keyframe_insert("location", frame=1)
    before, blocks = layers_of(original), counts()
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    expect(set(live.users_collection) == set(original.users_collection) and live.parent == original.parent)
    expect(live.animation_data.action == original.animation_data.action)
    bpy.context.view_layer.update()
    expect(np.abs(np.array(live.matrix_world) - np.array(original.matrix_world)).max() == 0.0)
    finish.discard(bpy.context, live)
    expect(counts() == blocks and not differences(before, layers_of(original)))


def check_a_lone_material_is_given_only_where_there_is_none() -> None:
    bpy.ops.mesh.primitive_cube_add()
    original = bpy.context.object
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cube", original, collected.placement)
    finish.accept(bpy.context, live, wire_mesh(collected.mesh.positions * 0.9, None, np.full_like(collected.mesh.positions, 0.3)))
    expect([slot.material.name for slot in original.material_slots] == ["Galatea"])


def check_edit_mode_is_refused() -> None:
    original = artists_object()
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    bpy.ops.object.mode_set(mode="EDIT")
    ready = prepare(collected.placement, snapshot(collected.mesh.positions + 0.1, None))
    expect(not preview.apply(live, ready) and "Edit Mode" in preview.why_not(live, ready))
    refused(SceneError, "Edit Mode", finish.accept, bpy.context, live, None)
    bpy.ops.object.mode_set(mode="OBJECT")
    expect(preview.apply(live, ready))
