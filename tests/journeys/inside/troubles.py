"""What can go wrong between Blender and a service, brought about on purpose; what is said then, and the scene after it."""

from __future__ import annotations

import time

import bpy

from tests.journeys.inside.artist import MODULE, Watch, part, press, pump_until, session
from tests.journeys.inside.reading import everything, objects


def use_folder(folder: str) -> None:
    bpy.context.preferences.addons[MODULE].preferences.service_folder = folder


def connection_message(folder: str, state: str) -> str:
    """What the panel says once the extension has looked for a service in `folder`."""
    use_folder(folder)
    part("preferences").open_link(bpy.context)
    pump_until(lambda: session().connection and session().connection.state == state, 30, f"the state is {state}")
    return session().connection.message


def scene_state() -> dict:
    return {object.name: everything(object) for object in bpy.data.objects if object.type == "MESH"}


def refusals(folder: str, prompt: str) -> dict:
    """What each object that cannot be refined is answered, and whether anything in the scene changed with that."""
    connection_message(folder, "connected")
    settings = {"prompt": prompt, "steps": 4, "seed": 0}

    def keyed(made: bpy.types.Object) -> None:
        made.shape_key_add(name="Basis")

    def not_finite(made: bpy.types.Object) -> None:
        made.data.vertices[3].co.x = float("nan")

    def flattened(made: bpy.types.Object) -> None:
        made.scale = (1.0, 0.0, 1.0)

    def emptied(made: bpy.types.Object) -> None:
        made.data.clear_geometry()

    def edited(_made: bpy.types.Object) -> None:
        bpy.ops.object.mode_set(mode="EDIT")

    told = {}
    for change in (keyed, not_finite, flattened, emptied, edited):
        bpy.ops.mesh.primitive_uv_sphere_add(segments=12, ring_count=8)
        made = bpy.context.object
        change(made)
        bpy.context.view_layer.update()
        before = everything(made) if change is not edited else made.mode
        message = press("galatea.refine", **settings)
        after = everything(made) if change is not edited else made.mode
        told[change.__name__] = {"message": message, "same": repr(before) == repr(after), "objects": len(objects())}
        if change is edited:
            bpy.ops.object.mode_set(mode="OBJECT")
        bpy.data.objects.remove(made)
    bpy.ops.mesh.primitive_cube_add()
    told["empty prompt"] = {"message": press("galatea.generate", **(settings | {"prompt": " "})), "same": True, "objects": 1}
    return told


def refused_by_the_service(folder: str, prompt: str) -> dict:
    """A prompt that only the service can judge: the job's box tells, and the scene is as before once that is discarded."""
    connection_message(folder, "connected")
    bpy.ops.mesh.primitive_cube_add()
    before = scene_state()
    message = press("galatea.generate", prompt=prompt, steps=4, seed=0)
    assert message == "", message
    live = part("session").jobs()[-1]
    pump_until(lambda: live.ended, 60, "the service refuses")
    phase, problem = live.phase, live.problem
    message = press("galatea.discard")
    return {"phase": phase, "problem": problem, "message": message, "same": scene_state() == before}


def deleted_preview(folder: str, prompt: str) -> dict:
    """The artist deletes the preview while the job runs; the extension goes on, and so does the job."""
    connection_message(folder, "connected")
    bpy.ops.mesh.primitive_cube_add(location=(4, 0, 0))
    before = scene_state()
    message = press("galatea.generate", prompt=prompt, steps=16, seed=0)
    assert message == "", message
    watch = Watch()
    watch.until(lambda: len(watch.updates) >= 2, 60, "the mesh changes")
    bpy.data.objects.remove(part("bridge.preview").find(watch.live.job))
    pump_until(lambda: watch.live.ended, 60, "the job ends")
    for _ in range(20):
        part("pump").pump(time.monotonic())
    live = watch.live
    told = [live.phase, live.problem, live.obstacle, live.has_preview, session().problem]
    return {"told": told, "same": scene_state() == before}
