"""A job's object in the scene, from the first update to the last.

A new object, or a copy of the one that is refined with that one hidden: the artist's own mesh is not written before
`finish.accept`. Every function may be called at any time: what is not there any more is answered, never guessed.
"""

from __future__ import annotations

import bpy
from bpy.types import Collection, Context, Object

from . import color_layers, marks, materials
from .errors import SceneError
from .geometry import rebuild, write_positions
from .marks import placement_of_preview, previews
from .placement import Placement
from .prepare import Prepared

__all__ = ["apply", "begin", "find", "obstacle", "placement_of_preview", "previews", "why_not"]

LONGEST_NAME = 60
"""In bytes: names in Blender 4 have at most 63, and a number may be added."""

_names: dict[str, str] = {}
"""Where a job's preview was found last, to look there first. Only a hint: the properties decide."""


def begin(context: Context, job: str, name: str, original: Object | None, placement: Placement) -> Object:
    """The preview of a job, active and selected: empty and named `name`, or a copy of `original`, which is then hidden.

    Raises:
        SceneError: the object is gone, is being refined already, or nothing can be put into the scene.
    """
    if context.scene.library is not None:
        raise SceneError(f"The scene {context.scene.name} is linked from another file: open a scene of this file.")
    preview = _begin_new(context, name, placement) if original is None else _begin_copy(context, original)
    marks.mark_preview(preview, job, placement, original)
    _make_active(context, preview)
    if original is not None:
        marks.hide(original, job, context)
    _names[job] = preview.name
    return preview


def find(job: str) -> Object | None:
    """The job's preview, wherever it has been moved or renamed to; None if it was deleted, or is in no scene."""
    preview = bpy.data.objects.get(_names.get(job, ""))
    if preview is None or marks.job_of(preview) != job:
        preview = next((object for its_job, object in previews() if its_job == job), None)
        if preview is None:
            _names.pop(job, None)
            return None
        _names[job] = preview.name
    return preview if preview.users_scene else None


def why_not(preview: Object | None, prepared: Prepared) -> str | None:
    """Why `apply` would write nothing, in a sentence for the panel; None if it would write."""
    return obstacle(preview) or _mismatch(preview, prepared)


def obstacle(preview: Object | None) -> str | None:
    """Why the preview's mesh cannot be written now."""
    if marks.job_of(preview) is None:
        return "The preview object was deleted."
    if not preview.users_scene:
        return f"{preview.name} is in no scene any more: updates wait until it is linked again."
    if preview.type != "MESH" or preview.data.get(marks.JOB) != marks.job_of(preview):
        return f"{preview.name} has another mesh now, which updates leave alone."
    if preview.data.is_editmode or preview.mode == "EDIT":
        return f"{preview.name} is in Edit Mode: updates wait until you leave it with Tab."
    if preview.mode != "OBJECT":
        return f"{preview.name} is not in Object Mode: updates wait until it is."
    if preview.data.shape_keys is not None:
        return f"{preview.name} has shape keys now: updates wait until they are removed."
    if bpy.app.is_job_running("RENDER"):
        return "Blender is rendering: updates wait until it is done."
    return None


def apply(preview: Object | None, prepared: Prepared) -> bool:
    """Shows a snapshot. False if nothing was written: `why_not` tells why."""
    if why_not(preview, prepared) is not None:
        return False
    mesh = preview.data
    topology = prepared.topology
    if not marks.refines(preview) and topology is not None and not _is_shown(preview, prepared):
        rebuild(mesh, prepared.positions, topology)
        mesh[marks.TOPOLOGY] = topology.key
    else:
        write_positions(mesh, prepared.positions)
    if prepared.rgba is not None and not color_layers.write_linear(mesh, mesh.get(marks.COLORS, ""), prepared.rgba):
        mesh[marks.COLORS] = color_layers.result_layer(mesh)
        materials.add_if_none(preview)
        color_layers.write_linear(mesh, mesh[marks.COLORS], prepared.rgba)
    return True


def _begin_new(context: Context, name: str, placement: Placement) -> Object:
    name = name.strip().encode()[:LONGEST_NAME].decode(errors="ignore") or "Galatea"
    preview = bpy.data.objects.new(name, bpy.data.meshes.new(name))
    preview.location = placement.location
    _active_collection(context).objects.link(preview)
    return preview


def _begin_copy(context: Context, original: Object) -> Object:
    context.view_layer.update()  # it may not know yet what a script has just linked
    if original.name not in context.view_layer.objects:
        raise SceneError(f"{original.name} is not in this view layer: select an object that is.")
    marks.refused_if_taken(original)
    preview = original.copy()
    preview.data = original.data.copy()
    for block in (preview, preview.data):
        block.use_fake_user = False
        marks.strip(block)
    preview.hide_render = preview.hide_viewport = False
    preview.name = f"{original.name} refined"
    preview.data.name = preview.name
    collections = [collection for collection in original.users_collection if collection.library is None]
    for collection in collections or [context.scene.collection]:
        collection.objects.link(preview)
    view = context.space_data
    if view is not None and view.type == "VIEW_3D" and view.local_view and original.local_view_get(view):
        preview.local_view_set(view, True)
    return preview


def _active_collection(context: Context) -> Collection:
    """Where new objects go; the scene's own collection if one could not be seen there, or not be put there."""
    layer = context.view_layer.active_layer_collection
    usable = layer is not None and layer.is_visible and not layer.exclude and layer.collection.library is None
    return layer.collection if usable else context.scene.collection


def _make_active(context: Context, preview: Object) -> None:
    layer = context.view_layer
    layer.update()  # so that it knows the new object
    if preview.name not in layer.objects:
        return
    for object in layer.objects:
        if object.select_get(view_layer=layer):
            object.select_set(False, view_layer=layer)
    preview.select_set(True, view_layer=layer)
    layer.objects.active = preview


def _mismatch(preview: Object, prepared: Prepared) -> str | None:
    """Why this snapshot does not fit the preview's mesh."""
    count = len(preview.data.vertices)
    if count == len(prepared.positions) and (marks.refines(preview) or prepared.topology is None):
        return None
    if marks.refines(preview):
        return f"{preview.name} has {count:,} vertices now and the update {len(prepared.positions):,}: discard it and begin anew."
    return None if prepared.topology is not None else "The update came without its faces; the next one will be complete."


def _is_shown(preview: Object, prepared: Prepared) -> bool:
    """Whether the mesh has the snapshot's faces already (and the artist has not changed them)."""
    mesh, topology = preview.data, prepared.topology
    return (
        mesh.get(marks.TOPOLOGY) == topology.key
        and len(mesh.vertices) == len(prepared.positions)
        and len(mesh.polygons) == topology.faces
        and len(mesh.edges) == len(topology.edge_verts)
    )
