"""Checks within Blender: undo, saving, loading, and all that an artist may do to a preview and its original meanwhile."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import bpy
import numpy as np

sys.path.append(str(Path(__file__).parents[2]))
from tests.blender.bridge_scene import (
    JOB, artists_object, counts, differences, expect, icosphere, layers_of, positions_of, refused, run_checks, snapshot,
    wire_mesh,
)  # fmt: skip
from galatea.bridge import finish, preview
from galatea.bridge.collect import collect
from galatea.bridge.errors import SceneError
from galatea.bridge.placement import default_placement
from galatea.bridge.prepare import prepare


def main() -> dict[str, str | None]:
    return run_checks(globals())


def begin_refining() -> tuple:
    """(original, collected, preview) of the artist's object."""
    original = artists_object()
    collected = collect(original)
    return original, collected, preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)


def ready(collected: object, step: float, with_colors: bool = True) -> object:
    moved = collected.mesh.positions + np.float32(step)
    return prepare(collected.placement, snapshot(moved, None, np.full_like(moved, step) if with_colors else None))


def push(message: str) -> None:
    expect(bpy.ops.ed.undo_push(message=message) == {"FINISHED"})


def check_accept_then_undo_gives_the_original_back() -> None:
    before = layers_of(artists_object())
    push("before")
    original = bpy.data.objects["Cloth"]
    collected = collect(original)
    preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    for step in (0.1, 0.2, 0.3):
        expect(preview.apply(preview.find(JOB), ready(collected, step)))
    moved = collected.mesh.positions + np.float32(0.4)
    finish.accept(bpy.context, preview.find(JOB), wire_mesh(moved, None, np.full_like(moved, 0.4)))
    expect("POINT FLOAT_VECTOR position" in differences(before, layers_of(bpy.data.objects["Cloth"])))
    push("accepted")
    bpy.ops.ed.undo()
    changed = differences(before, layers_of(bpy.data.objects["Cloth"]))
    expect(not changed, changed)
    expect(preview.find(JOB) is None)
    bpy.ops.ed.redo()
    expect("POINT FLOAT_COLOR Color" in differences(before, layers_of(bpy.data.objects["Cloth"])))
    bpy.ops.ed.undo()
    expect(not differences(before, layers_of(bpy.data.objects["Cloth"])))


def check_a_preview_survives_undo_and_takes_the_newest_frame_again() -> None:
    artists_object()
    before = layers_of(bpy.data.objects["Cloth"])
    original = bpy.data.objects["Cloth"]
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    hidden = layers_of(original)
    push("begun")
    first = positions_of(live)
    expect(preview.apply(live, ready(collected, 0.1)))
    bpy.ops.mesh.primitive_cube_add()  # the artist goes on working
    push("cube")
    expect(preview.apply(preview.find(JOB), ready(collected, 0.2)))
    newest = positions_of(preview.find(JOB))
    bpy.ops.ed.undo()
    live = preview.find(JOB)
    expect(live is not None and (positions_of(live) == first).all())
    expect(not differences(hidden, layers_of(bpy.data.objects["Cloth"])))
    expect(preview.apply(live, ready(collected, 0.2)) and (positions_of(live) == newest).all())
    expect((preview.placement_of_preview(live).original == collected.placement.original).all())
    finish.discard(bpy.context, live)
    expect(not differences(before, layers_of(bpy.data.objects["Cloth"])))


def check_frames_are_never_written_into_what_shares_memory_with_them() -> None:
    """Blender shares arrays between copies of a mesh, and with undo steps, until one is written."""
    original, collected, live = begin_refining()
    still = positions_of(original)
    copy = live.data.copy()
    push("shared")
    for step in (0.1, 0.2):
        expect(preview.apply(preview.find(JOB), ready(collected, step)))
        bpy.context.view_layer.update()
    expect((positions_of(bpy.data.objects["Cloth"]) == still).all())
    expect((np.array([vertex.co for vertex in copy.vertices], dtype=np.float32) == still).all())


def check_saved_and_opened_again() -> None:
    artists_object()
    before = layers_of(bpy.data.objects["Cloth"])
    original = bpy.data.objects["Cloth"]
    collected = collect(original)
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    expect(preview.apply(live, ready(collected, 0.1)))
    original.name = "Renamed"
    live.name = "Also renamed"
    path = str(Path(tempfile.mkdtemp()) / "saved.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    expect(preview.find(JOB) is None and not list(preview.previews()))
    bpy.ops.wm.open_mainfile(filepath=path)
    live = preview.find(JOB)
    expect(live is not None and live.name == "Also renamed" and [job for job, _ in preview.previews()] == [JOB])
    placement = preview.placement_of_preview(live)
    expect((placement.to_wire_matrix == collected.placement.to_wire_matrix).all())
    moved = collected.mesh.positions.copy()
    moved[1] += 0.1
    still = positions_of(bpy.data.objects["Renamed"])
    expect(preview.apply(live, prepare(placement, snapshot(moved, None))))
    accepted = finish.accept(bpy.context, live, wire_mesh(moved, None))
    expect(accepted.name == "Renamed" and (np.delete(positions_of(accepted), 1, 0) == np.delete(still, 1, 0)).all())
    changed = differences(before, layers_of(accepted))
    expect(changed == {"POINT FLOAT_VECTOR position"}, changed)


def check_previews_that_are_gone() -> None:
    original, collected, live = begin_refining()
    before_frame = ready(collected, 0.1)
    bpy.data.objects.remove(live)
    expect(not preview.apply(live, before_frame) and "deleted" in preview.why_not(live, before_frame))
    expect(preview.find(JOB) is None and not preview.apply(None, before_frame))
    refused(SceneError, "not in this file", finish.accept, bpy.context, None, None)
    refused(SceneError, "not in this file", finish.accept, bpy.context, live, None)
    refused(SceneError, "not in this file", finish.keep_as_copy, bpy.context, live, None)
    finish.discard(bpy.context, None)
    finish.discard(bpy.context, live)
    expect(original.hide_get() and finish.show_original(JOB) == original and not original.hide_get() and not original.hide_render)
    expect(finish.show_original(JOB) is None and list(original.keys()) == ["artist"])


def check_a_preview_deleted_by_the_artist() -> None:
    _, _, live = begin_refining()
    with bpy.context.temp_override(selected_objects=[live], object=live):
        bpy.ops.object.delete()
    expect(preview.find(JOB) is None)


def check_originals_that_are_gone() -> None:
    for how in ("removed", "unlinked"):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        original, collected, live = begin_refining()
        if how == "removed":
            bpy.data.objects.remove(original)
        else:
            bpy.context.scene.collection.objects.unlink(original)
        expect(preview.apply(live, ready(collected, 0.1)))
        result = wire_mesh(collected.mesh.positions, None)
        refused(SceneError, "keep the result as a copy", finish.accept, bpy.context, live, result)
        kept = finish.keep_as_copy(bpy.context, live, result)
        expect(list(kept.keys()) == ["artist"] and kept.visible_get())
    original, collected, live = begin_refining()
    bpy.data.objects.remove(original)
    finish.discard(bpy.context, live)
    expect(preview.find(JOB) is None)


def check_originals_that_were_changed_are_not_overwritten() -> None:
    def edit_a_vertex(original: object) -> None:
        original.data.vertices[0].co.x += 1.0

    def add_shape_keys(original: object) -> None:
        original.shape_key_add(name="Basis")

    def other_mesh(original: object) -> None:
        original.data = bpy.data.meshes.new("Other")

    for change, words in ((edit_a_vertex, "was edited"), (add_shape_keys, "shape keys"), (other_mesh, "was edited")):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        original, collected, live = begin_refining()
        change(original)
        before = layers_of(original)
        result = wire_mesh(collected.mesh.positions + np.float32(0.1), None, np.full_like(collected.mesh.positions, 0.5))
        refused(SceneError, words, finish.accept, bpy.context, live, result)
        expect(not differences(before, layers_of(original)))
        kept = finish.keep_as_copy(bpy.context, live, result)
        expect(kept != original and not original.hide_get())


def check_meshes_of_the_artists_are_never_taken_for_the_previews() -> None:
    original, collected, live = begin_refining()
    still = positions_of(original)
    live.data = original.data
    frame = ready(collected, 0.1)
    expect(not preview.apply(live, frame) and "another mesh" in preview.why_not(live, frame))
    finish.discard(bpy.context, live)
    expect((positions_of(original) == still).all() and original.data.name == "Cloth")


def check_changed_previews_are_left_alone() -> None:
    _, collected, live = begin_refining()
    frame = ready(collected, 0.1)
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.mesh.subdivide()
    expect("Edit Mode" in preview.why_not(live, frame))
    bpy.ops.object.mode_set(mode="SCULPT")
    expect("Object Mode" in preview.why_not(live, frame))
    bpy.ops.object.mode_set(mode="OBJECT")
    expect("vertices now" in preview.why_not(live, frame) and not preview.apply(live, frame))
    before = layers_of(live)
    refused(SceneError, "vertices now", finish.keep_as_copy, bpy.context, live, wire_mesh(collected.mesh.positions, None))
    expect(not differences(before, layers_of(live)))
    finish.discard(bpy.context, live)


def check_discard_from_edit_mode() -> None:
    original, _, live = begin_refining()
    blocks = counts()
    bpy.ops.object.mode_set(mode="EDIT")
    finish.discard(bpy.context, live)
    expect(bpy.context.mode == "OBJECT" and not original.hide_get() and bpy.context.view_layer.objects.active == original)
    expect(counts() == blocks | {"objects": blocks["objects"] - 1, "meshes": blocks["meshes"] - 1})


def check_another_scene() -> None:
    original, collected, live = begin_refining()
    other = bpy.data.scenes.new("Other")
    bpy.context.scene.collection.objects.unlink(live)
    other.collection.objects.link(live)
    expect(preview.find(JOB) == live and preview.apply(live, ready(collected, 0.1)))
    finish.discard(bpy.context, live)
    expect(not original.hide_get() and original.visible_get())
    live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
    bpy.context.scene.collection.objects.unlink(live)
    expect(preview.find(JOB) is None and "in no scene" in preview.why_not(live, ready(collected, 0.1)))


def check_a_copy_that_the_artist_makes_of_a_preview() -> None:
    original, collected, live = begin_refining()
    copy = live.copy()
    copy.data = live.data.copy()
    bpy.context.scene.collection.objects.link(copy)
    expect(preview.find(JOB) == live)
    finish.accept(bpy.context, live, wire_mesh(collected.mesh.positions, None))
    expect(preview.find(JOB) is None and list(copy.keys()) == ["artist"] and not list(copy.data.keys()))


def check_visibility_comes_back_as_it_was() -> None:
    for hidden, in_renders in ((False, True), (True, False)):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        original = artists_object()
        original.hide_set(hidden)
        original.hide_render = in_renders
        before = layers_of(original)
        collected = collect(original)
        live = preview.begin(bpy.context, JOB, "a cloth", original, collected.placement)
        expect(live.visible_get() and not live.hide_render)
        finish.discard(bpy.context, live)
        changed = differences(before, layers_of(original))
        expect(not changed, changed)


def check_visibility_comes_back_after_a_scene_was_renamed() -> None:
    original, _, live = begin_refining()
    bpy.context.scene.name, bpy.context.view_layer.name = "Take 2", "Final"
    finish.discard(bpy.context, live)
    expect(original.visible_get() and not original.hide_render)


def check_damaged_notes_on_a_preview() -> None:
    _, _, live = begin_refining()
    live["galatea_placement"] = "{"
    refused(SceneError, "damaged", preview.placement_of_preview, live)
    live["galatea_placement"] = 3
    refused(SceneError, "damaged", preview.placement_of_preview, live)
    finish.discard(bpy.context, live)


def check_generated_previews_and_undo() -> None:
    placement = default_placement()
    preview.begin(bpy.context, JOB, "a mug", None, placement)
    push("begun")
    points, faces = icosphere(2)
    for level in (1, 2):
        points, faces = icosphere(level)
        expect(preview.apply(preview.find(JOB), prepare(placement, snapshot(points, faces, np.full_like(points, 0.5)))))
    bpy.ops.mesh.primitive_cube_add()
    push("cube")
    bpy.ops.ed.undo()
    live = preview.find(JOB)
    expect(len(live.data.vertices) == 0)
    expect(preview.apply(live, prepare(placement, snapshot(points, faces, np.full_like(points, 0.5)))))
    expect(len(live.data.vertices) == len(points) and [slot.material.name for slot in live.material_slots] == ["Galatea"])
