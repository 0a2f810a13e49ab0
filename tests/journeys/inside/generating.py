"""Generating from the panel, and what is left of it in a Blender that knows nothing of Galatea."""

from __future__ import annotations

import bpy
import numpy as np

from tests.journeys.inside.artist import Watch, part, press
from tests.journeys.inside.reading import describe, everything, layers, objects, positions, triangles


def generate(request: dict, folder: str, seconds: float) -> dict:
    """A job from the panel's settings to the accepted object, undone, redone and saved as `folder`/scene.blend."""
    bpy.ops.mesh.primitive_cube_add(location=(5, 0, 0))
    bpy.ops.ed.undo_push(message="A cube of the artist's")
    before = everything(bpy.data.objects["Cube"])
    message = press("galatea.generate", **request)
    assert message == "", message
    watch = Watch(f"{folder}/status.json")
    watch.to_the_end(seconds)
    preview = part("bridge.preview").find(watch.live.job)
    name = preview.name
    shown = layers(preview.data)
    message = press("galatea.accept")
    assert message == "", message
    accepted = describe(name)
    bpy.ops.ed.undo()
    undone = objects()
    bpy.ops.ed.redo()
    redone = describe(name)
    bpy.ops.wm.save_as_mainfile(filepath=f"{folder}/scene.blend")
    return {
        "job": watch.live.job, "updates": watch.updates, "states": watch.states, "steps": watch.steps, "name": name,
        "shown": shown, "notes": [*watch.live.notes, *watch.live.warnings],
        "accepted": accepted, "undone": undone, "redone": redone, "others": before == everything(bpy.data.objects["Cube"]),
        "jobs": len(part("session").jobs()),
    }  # fmt: skip


# ---- a Blender that is closed in mid-job


def leave(request: dict, folder: str) -> dict:
    """Begins a job, saves the file once its mesh has changed, and leaves."""
    message = press("galatea.generate", **request)
    assert message == "", message
    watch = Watch()
    watch.until(lambda: len(watch.updates) >= 2, 90, "the mesh changes")
    bpy.ops.wm.save_as_mainfile(filepath=f"{folder}/scene.blend")
    return {"job": watch.live.job, "step": watch.live.step, "updates": watch.updates}


def come_back(folder: str, seconds: float) -> dict:
    """Opens that file, only waits, and accepts."""
    bpy.ops.wm.open_mainfile(filepath=f"{folder}/scene.blend")
    watch = Watch()
    watch.to_the_end(seconds)
    name = part("bridge.preview").find(watch.live.job).name
    message = press("galatea.accept")
    assert message == "", message
    return {"job": watch.live.job, "updates": watch.updates, "accepted": describe(name), "there": objects()}


# ---- in a fresh Blender, without the extension


def reopen(blend: str, name: str, folder: str) -> dict:
    """Opens the file, renders the object with its vertex colors, and writes its mesh to `folder`/mesh.npz."""
    bpy.ops.wm.open_mainfile(filepath=blend)
    found = bpy.data.objects[name]
    mesh = found.data
    layer = mesh.color_attributes.active_color
    colors = np.empty((len(layer.data), 4), np.float32)
    layer.data.foreach_get("color", colors.ravel())
    np.savez(f"{folder}/mesh.npz", positions=positions(mesh), faces=triangles(mesh), linear_colors=colors)
    picture = render(found, f"{folder}/picture.png")
    corners = [list(found.matrix_world @ type(found.location)(corner)) for corner in found.bound_box]
    return {
        "engine": picture, "domain": layer.domain, "corners": corners, "location": list(found.location),
        "materials": [[node.bl_idname for node in material.node_tree.nodes] for material in mesh.materials],
        "properties": [key for block in (found, mesh) for key in block.keys() if key.startswith("galatea")],
    }  # fmt: skip


def render(found: bpy.types.Object, path: str) -> str:
    """From the front, a little from above, with the vertex colors as they are and nothing behind."""
    scene = bpy.context.scene
    for other in scene.objects:
        other.hide_render = other is not found
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    middle = found.matrix_world.translation
    camera.location = (middle.x, middle.y - 4.0, middle.z + 1.0)
    camera.rotation_euler = (np.radians(90) - np.arctan2(1.0, 4.0), 0, 0)
    scene.camera = camera
    scene.render.engine = "BLENDER_WORKBENCH"
    scene.display.shading.light, scene.display.shading.color_type = "FLAT", "VERTEX"
    scene.view_settings.view_transform = "Standard"
    scene.render.film_transparent = True
    scene.render.resolution_x = scene.render.resolution_y = 256
    scene.render.filepath = path
    bpy.ops.render.render(write_still=True)
    return scene.render.engine
