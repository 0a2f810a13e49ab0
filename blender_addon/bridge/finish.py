"""The end of a preview: accepted, kept as a copy, or discarded.

Everything is checked before anything is written. What moves is vertices and colors: custom normals are stored relative to
the surface and turn with it, just as when vertices are moved by hand (free normals, which Blender 5 also has, stay as
they are, again as by hand); every other layer is not touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import bpy
import numpy as np
from bpy.types import Context, Object

from . import color_layers, marks, materials
from . import preview as live
from .errors import SceneError
from .geometry import read_positions, write_positions
from .prepare import prepare_mesh

if TYPE_CHECKING:
    from ..protocol.mesh_codec import Mesh


def accept(context: Context, preview: Object | None, mesh: Mesh | None) -> Object:
    """The result goes into the scene for good: into the refined object, or the preview itself becomes an object.

    `mesh` is the job's result in wire space; None takes what the preview shows now.

    Raises:
        SceneError: the preview is gone, or the object to write is gone, linked, changed or in Edit Mode. Nothing was changed.
    """
    _check_there(preview)
    if not marks.refines(preview):
        return _keep(preview, mesh)
    original = _original_to_write(preview)
    positions, colors = _result(preview, mesh)
    if len(positions) != len(original.data.vertices):
        raise SceneError(
            f"{original.name} has {len(original.data.vertices):,} vertices and the result {len(positions):,}: keep it as a copy."
        )
    if original.data.users - original.data.use_fake_user > 1:
        original.data = original.data.copy()  # the other objects keep the shared mesh as it is
    if colors is not None:
        color_layers.write_changed(original.data, colors)
        materials.add_if_none(original)
    write_positions(original.data, positions)
    _hand_over(context, preview, original)
    return original


def keep_as_copy(context: Context, preview: Object | None, mesh: Mesh | None) -> Object:
    """The preview becomes an object of its own, beside the original as it was. Arguments and errors as for `accept`."""
    _check_there(preview)
    original = preview.get(marks.ORIGINAL)
    kept = _keep(preview, mesh)
    if isinstance(original, Object):
        marks.show_again(original)
    return kept


def discard(context: Context, preview: Object | None) -> None:
    """Removes the preview with its data and shows the original as it was before. Does nothing if it is gone already."""
    if marks.job_of(preview) is None:
        return
    original = preview.get(marks.ORIGINAL)
    _hand_over(context, preview, original if isinstance(original, Object) else None)


def show_original(job: str) -> Object | None:
    """For a job whose preview was deleted by hand: shows the object again that was being refined, and returns it."""
    for object in bpy.data.objects:
        if (marks.read_shown_as(object) or {}).get("job") == job:
            marks.show_again(object)
            return object
    return None


def _check_there(preview: Object | None) -> None:
    if marks.job_of(preview) is None:
        raise SceneError("The job's preview is not in this file any more: reattach the job to get its result as a new object.")
    obstacle = live.obstacle(preview)
    if obstacle is not None:
        raise SceneError(obstacle)


def _original_to_write(preview: Object) -> Object:
    """Raises SceneError with the reason why the refined object cannot be written."""
    original = marks.original_of(preview)
    if original is None:
        raise SceneError("The object that was refined was deleted: keep the result as a copy.")
    if any(block.library is not None or block.override_library is not None for block in (original, original.data)):
        raise SceneError(f"{original.name} is linked from another file now: keep the result as a copy.")
    if original.mode != "OBJECT" or original.data.is_editmode:
        raise SceneError(f"{original.name} is not in Object Mode: leave its mode (Edit Mode with Tab), then accept.")
    if original.data.shape_keys is not None:
        raise SceneError(f"{original.name} has shape keys now, which would hide the result: keep it as a copy.")
    if not marks.is_unchanged(preview, original):
        raise SceneError(f"{original.name} was edited after the job began, and accepting would undo that: keep it as a copy.")
    return original


def _result(preview: Object, mesh: Mesh | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Local positions [V, 3] float32 and displayed colors [V, 3] or None."""
    if mesh is not None:
        return marks.placement_of_preview(preview).to_local(mesh.positions), mesh.colors
    layer = preview.data.get(marks.COLORS)
    return read_positions(preview.data), None if layer is None else color_layers.read_displayed(preview.data, layer)


def _keep(preview: Object, mesh: Mesh | None) -> Object:
    """The preview with the result, without anything that says it was one."""
    if mesh is not None:
        prepared = prepare_mesh(marks.placement_of_preview(preview), mesh)
        if not live.apply(preview, prepared):
            raise SceneError(live.why_not(preview, prepared))
    if not marks.refines(preview):
        preview.data.validate()
    _forget(preview[marks.JOB])
    return preview


def _hand_over(context: Context, preview: Object, original: Object | None) -> None:
    """Removes the preview and lets the original take its place in the view."""
    layer, job, mesh = context.view_layer, marks.job_of(preview), preview.data
    there = preview.name in layer.objects
    selected, active = there and preview.select_get(view_layer=layer), layer.objects.active == preview
    if preview.mode != "OBJECT" and active and bpy.ops.object.mode_set.poll():  # let Blender end the mode in its own way
        bpy.ops.object.mode_set(mode="OBJECT")
    worn = [slot.material for slot in preview.material_slots]
    bpy.data.objects.remove(preview)
    if mesh is not None and mesh.users == 0 and mesh.get(marks.JOB) == job:
        bpy.data.meshes.remove(mesh)
    _forget(job)
    materials.remove_unused(worn)
    if original is None:
        return
    marks.show_again(original)
    if original.name in layer.objects:
        original.select_set(selected, view_layer=layer)
        if active:
            layer.objects.active = original


def _forget(job: str) -> None:
    """Strips what was stored for the job from its preview and from copies that were made of it."""
    for _, object in [pair for pair in marks.previews() if pair[0] == job]:
        if object.data is not None:
            marks.strip(object.data)
        marks.strip(object)
