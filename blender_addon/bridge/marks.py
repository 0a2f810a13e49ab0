"""What is stored on objects, so that a preview is found again after undo, saving and loading: custom properties.

A preview carries its job, its placement and a pointer to the object that it stands for, which survives renaming; its mesh
carries the job too, so that a mesh of the artist's put in its place is never written. An object that is being refined
carries what it needs to be shown again as it was. All are removed when the job's preview ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import bpy
from bpy.types import Object

from .errors import SceneError
from .geometry import digest, read_positions
from .placement import Placement

PREFIX = "galatea_"
JOB = "galatea_job"
PLACEMENT = "galatea_placement"
ORIGINAL = "galatea_original"
DIGEST = "galatea_digest"
TOPOLOGY = "galatea_topology"
COLORS = "galatea_colors"
SHOWN_AS = "galatea_shown_as"
"""On an object that is being refined: JSON of the job and of how visible the object was."""


def mark_preview(preview: Object, job: str, placement: Placement, original: Object | None) -> None:
    preview[JOB] = job
    preview[PLACEMENT] = json.dumps(placement.to_dict())
    preview.data[JOB] = job
    if original is not None:
        preview[ORIGINAL] = original
        preview[DIGEST] = digest(original.data)


def strip(block: bpy.types.ID) -> None:
    """Removes every property of ours from an object or mesh."""
    for name in [name for name in block.keys() if name.startswith(PREFIX)]:
        del block[name]


def previews() -> Iterator[tuple[str, Object]]:
    """(job, object) of every preview in the file, in whatever scene."""
    for object in bpy.data.objects:
        if object.library is None and (job := job_of(object)) is not None:
            yield job, object


def job_of(object: Object | None) -> str | None:
    """The job whose preview this object is; None if it is none, or was removed from the file."""
    try:
        job = None if object is None else object.get(JOB)
    except ReferenceError:
        return None
    return job if isinstance(job, str) else None


def refines(preview: Object) -> bool:
    """Whether the preview stands for an object of the artist's, there or not."""
    return ORIGINAL in preview


def original_of(preview: Object) -> Object | None:
    """The object that the preview stands for; None if it has none, or if it was deleted or left every scene."""
    original = preview.get(ORIGINAL)
    return original if isinstance(original, Object) and original.users_scene else None


def placement_of_preview(preview: Object) -> Placement:
    """What `begin` was given, with the original's positions as long as its mesh is what it was.

    Raises SceneError if it is damaged.
    """
    try:
        stored = json.loads(preview.get(PLACEMENT, ""))
    except (TypeError, ValueError):
        stored = None
    placement = Placement.from_dict(stored)
    original = original_of(preview)
    if original is None or not is_unchanged(preview, original):
        return placement
    return placement.with_original(read_positions(original.data))


def is_unchanged(preview: Object, original: Object) -> bool:
    """Whether the original still has the mesh that was submitted."""
    return original.type == "MESH" and original.mode == "OBJECT" and digest(original.data) == preview.get(DIGEST)


def hide(original: Object, job: str, context: bpy.types.Context) -> None:
    """Hides the object in the view layer and in renders, and stores on it how to undo that."""
    layer = context.view_layer
    original[SHOWN_AS] = json.dumps(
        {
            "job": job,
            "scene": context.scene.name,
            "view_layer": layer.name,
            "hidden": original.hide_get(view_layer=layer),
            "hide_render": original.hide_render,
        }
    )
    original.hide_set(True, view_layer=layer)
    original.hide_render = True


def show_again(original: Object) -> None:
    """As visible as before `hide`; does nothing without `hide`."""
    before = read_shown_as(original)
    if SHOWN_AS in original:
        del original[SHOWN_AS]
    if before is None:
        return
    original.hide_render = bool(before.get("hide_render"))
    layers = [(scene.name, layer) for scene in original.users_scene for layer in scene.view_layers]
    layers = [(scene, layer) for scene, layer in layers if original.name in layer.objects]
    same = [layer for scene, layer in layers if (scene, layer.name) == (before.get("scene"), before.get("view_layer"))]
    for layer in same or [layer for _, layer in layers]:  # all, if that one was renamed or removed
        original.hide_set(bool(before.get("hidden")), view_layer=layer)


def read_shown_as(object: Object) -> dict | None:
    try:
        before = json.loads(object.get(SHOWN_AS, ""))
    except (TypeError, ValueError):
        return None
    return before if isinstance(before, dict) else None


def refused_if_taken(object: Object) -> None:
    """Raises SceneError for an object that is a preview, or is being refined already."""
    if job_of(object) is not None:
        raise SceneError(f"{object.name} is the preview of a job: accept it or keep it as a copy first.")
    before = read_shown_as(object)
    if before is not None and any(job == before.get("job") for job, _ in previews()):
        raise SceneError(f"{object.name} is being refined already: accept or discard that first.")
