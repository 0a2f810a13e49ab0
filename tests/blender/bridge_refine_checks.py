"""Checks within Blender: an object is refined, and what came back is accepted, kept or discarded."""

from __future__ import annotations

import sys
from pathlib import Path

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from bridge_scene import (
    JOB, artists_object, counts, differences, expect, layers_of, positions_of, refused, run_checks, snapshot, wire_mesh, world_of,
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
    expect((positions_of(original)[~chosen] == still[~chosen]).all())
    # The way back, without the placement: the same step in wire space is everywhere the same step in the world.
    step = (world_of(original) - world)[chosen]
    expect(np.abs(step - step.mean(axis=0)).max() < 1e-5, step)
    direction = step.mean(axis=0) / np.linalg.norm(step.mean(axis=0))
    wanted = np.array([0.01, 0.02, 0.05]) / np.linalg.norm([0.01, 0.02, 0.05])
    expect(np.abs(direction - wanted).max() < 1e-4, direction)
    shown = np.array([item.color_srgb for item in original.data.color_attributes["Color"].data])[:, :3]
    expect(np.abs(shown - colors).max() < 2e-4)  # Blender takes a shortcut to that power


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
