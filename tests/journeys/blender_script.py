"""What an artist does in Blender, for the journeys: functions that run inside (tests/blender/inside.py calls them).

The extension is the installed one. Timers do not fire in the bpy module, so the pump is called here, as its timer would.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import bpy
import numpy as np

MODULE = "bl_ext.user_default.galatea"
LAYER_VALUES = {
    "FLOAT": ("value", np.float32, 1), "INT": ("value", np.int32, 1), "INT8": ("value", np.int32, 1),
    "BOOLEAN": ("value", bool, 1), "FLOAT_VECTOR": ("vector", np.float32, 3), "FLOAT2": ("vector", np.float32, 2),
    "INT32_2D": ("value", np.int32, 2), "INT16_2D": ("value", np.int32, 2), "QUATERNION": ("value", np.float32, 4),
    "FLOAT_COLOR": ("color", np.float32, 4), "BYTE_COLOR": ("color", np.float32, 4),
}  # fmt: skip


def part(name: str):
    """A module of the installed extension."""
    return importlib.import_module(f"{MODULE}.{name}")


def session():
    return part("session").current()


# ---- acting and waiting


def pump_until(condition: Callable[[], object], seconds: float, what: str, after: Callable[[], None] = lambda: None) -> None:
    """Lets the extension live until the condition holds. Raises AssertionError with the state if that takes too long."""
    pump = part("pump").pump
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}; {session().connection}; {part('session').jobs()}")
        due = pump(time.monotonic())
        after()
        time.sleep(min(due, 0.03))


def press(operator: str, **settings: object) -> str:
    """Runs an operator as a click does, undo step included; returns the error that Blender would show, or ""."""
    for name, value in settings.items():
        setattr(bpy.context.window_manager.galatea, name, value)
    function = bpy.ops
    for name in operator.split("."):
        function = getattr(function, name)
    try:
        function("INVOKE_DEFAULT", True)
    except RuntimeError as error:
        return str(error).removeprefix("Error: ").rpartition(".poll() ")[2].strip()
    return ""


class Watch:
    """Follows one job: `updates` has a row for each change of its preview's mesh, `status` is a file for the test to read."""

    def __init__(self, status: str | None = None) -> None:
        self.live = part("session").jobs()[-1]
        self.updates: list[dict] = []
        self.states: list[str] = []
        self.steps: list[int] = []
        """Every step that the panel showed, in order; it falls where a job goes on from a checkpoint."""
        self._status = Path(status) if status else None
        self._seen = ""
        self._told = None

    def look(self) -> None:
        connection = session().connection
        if connection and (not self.states or self.states[-1] != connection.state):
            self.states.append(connection.state)
        if not self.steps or self.steps[-1] != self.live.step:
            self.steps.append(self.live.step)
        preview = part("bridge.preview").find(self.live.job)
        if preview is not None and len(preview.data.vertices):
            seen = digest(positions(preview.data))
            if seen != self._seen:
                self._seen = seen
                step = self.live.shown.step if self.live.shown else 0
                self.updates.append({"step": step, "vertices": len(preview.data.vertices), "positions": seen})
        self._tell()

    def _tell(self) -> None:
        told = {"step": self.live.step, "phase": self.live.phase, "updates": len(self.updates), "states": self.states,
                "job": self.live.job}  # fmt: skip
        if self._status and told != self._told:
            self._told = json.loads(json.dumps(told))
            draft = self._status.with_suffix(".draft")
            draft.write_text(json.dumps(told), encoding="utf-8")
            os.replace(draft, self._status)

    def until(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        pump_until(condition, seconds, what, self.look)

    def to_the_end(self, seconds: float) -> None:
        """Until the result is there and shown. Raises AssertionError if the job ends otherwise."""
        self.until(lambda: self.live.ended, seconds, "the job ends")
        assert self.live.phase == "finished", (self.live.phase, self.live.problem)
        self.until(lambda: self.live.result is not None and self.live.frame is None, 20, "the result arrives")
        self.look()


# ---- reading the scene


def positions(mesh: bpy.types.Mesh) -> np.ndarray:
    values = np.empty((len(mesh.vertices), 3), np.float32)
    mesh.vertices.foreach_get("co", values.ravel())
    return values


def triangles(mesh: bpy.types.Mesh) -> np.ndarray:
    mesh.calc_loop_triangles()
    values = np.empty((len(mesh.loop_triangles), 3), np.int32)
    mesh.loop_triangles.foreach_get("vertices", values.ravel())
    return values


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def layers(mesh: bpy.types.Mesh) -> dict[str, str]:
    """Every attribute layer of a mesh: where and what it is, and a digest of its bits."""
    found = {}
    for attribute in mesh.attributes:
        name, kind, width = LAYER_VALUES[attribute.data_type]
        values = np.empty(len(attribute.data) * width, kind)
        attribute.data.foreach_get(name, values)
        found[attribute.name] = f"{attribute.domain} {attribute.data_type} {digest(values)}"
    return found


def everything(object: bpy.types.Object) -> dict:
    """All of an object that a refinement must leave as it is (positions and colors are in "layers")."""
    mesh = object.data
    weights = [[(group.group, group.weight) for group in vertex.groups] for vertex in mesh.vertices]
    return {
        "layers": layers(mesh),
        "groups": [group.name for group in object.vertex_groups],
        "weights": hashlib.sha256(repr(weights).encode()).hexdigest()[:16],
        "materials": [slot.name for slot in object.material_slots],
        "modifiers": [(modifier.name, modifier.type, modifier.show_viewport) for modifier in object.modifiers],
        "parent": object.parent.name if object.parent else None,
        "matrices": [[list(row) for row in matrix] for matrix in (object.matrix_basis, object.matrix_parent_inverse)],
        "uv": [(layer.name, layer.active, layer.active_render) for layer in mesh.uv_layers],
        "shown": [object.hide_get(), object.hide_viewport, object.hide_render, object.visible_get()],
        "collections": [collection.name for collection in object.users_collection],
        "properties": {key: repr(object[key]) for key in object.keys()} | {key: repr(mesh[key]) for key in mesh.keys()},
        "name": [object.name, mesh.name, mesh.users],
    }


def objects() -> list[str]:
    return sorted(object.name for object in bpy.data.objects)


# ---- journeys


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
        "shown": shown, "notes": list(watch.live.notes),
        "accepted": accepted, "undone": undone, "redone": redone, "others": before == everything(bpy.data.objects["Cube"]),
        "jobs": len(part("session").jobs()),
    }  # fmt: skip


def describe(name: str) -> dict | None:
    found = bpy.data.objects.get(name)
    return None if found is None else everything(found) | {"vertices": len(found.data.vertices)}


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


# ---- refining


def mug(shared: bool) -> bpy.types.Object:
    """A turned mug of quads with all that an artist may have put on it, under a parent that turns and stretches it."""
    profile = [(0.0, 0.0), (0.5, 0.0), (0.52, 0.35), (0.5, 0.7), (0.5, 1.1), (0.42, 1.1), (0.42, 0.6), (0.4, 0.12), (0.0, 0.12)]
    around = 24
    points, rows = [], []
    for radius, height in profile:
        count = 1 if radius == 0 else around
        rows.append(range(len(points), len(points) + count))
        angles = [2 * np.pi * index / around for index in range(count)]
        points += [(radius * np.cos(angle), radius * np.sin(angle), height) for angle in angles]
    faces = []
    for low, high in zip(rows, rows[1:], strict=False):
        for index in range(around):
            after = (index + 1) % around
            corners = [low[index % len(low)], low[after % len(low)], high[after % len(high)], high[index % len(high)]]
            faces.append(list(dict.fromkeys(corners)))
    mesh = bpy.data.meshes.new("Mug")
    mesh.from_pydata(points, [], faces)
    mesh.validate()
    generator = np.random.default_rng(1)
    uv = mesh.uv_layers.new(name="Unwrapped")
    uv.data.foreach_set("uv", generator.random(2 * len(mesh.loops), dtype=np.float32))
    crease = mesh.attributes.new("crease_edge", "FLOAT", "EDGE")
    crease.data.foreach_set("value", generator.random(len(mesh.edges), dtype=np.float32))
    mesh.attributes.new("my ids", "INT", "FACE").data.foreach_set("value", np.arange(len(mesh.polygons), dtype=np.int32))
    mesh.polygons.foreach_set("use_smooth", generator.random(len(mesh.polygons)) < 0.5)
    normals = generator.normal(size=(len(mesh.loops), 3))
    mesh.normals_split_custom_set((normals / np.linalg.norm(normals, axis=1, keepdims=True)).tolist())
    mesh.materials.append(bpy.data.materials.new("Porcelain"))
    mesh.materials.append(bpy.data.materials.new("Glaze"))
    mesh.polygons.foreach_set("material_index", np.arange(len(mesh.polygons), dtype=np.int32) % 2)

    made = bpy.data.objects.new("Mug", mesh)
    bpy.context.collection.objects.link(made)
    for name in ("rim", "body"):
        group = made.vertex_groups.new(name=name)
        for index in range(0, len(mesh.vertices), 3):
            group.add([index], float(generator.random()), "REPLACE")
    made.modifiers.new("Subdivision", "SUBSURF").levels = 1
    made["mine"] = "kept"
    parent = bpy.data.objects.new("Turned", None)
    bpy.context.collection.objects.link(parent)
    parent.rotation_euler, parent.scale, parent.location = (0.3, 0.2, 1.0), (1.5, 0.7, 2.0), (3.0, -2.0, 1.0)
    made.parent = parent
    made.location, made.rotation_euler, made.scale = (0.2, 0.1, 0.0), (0.0, 0.0, 0.4), (1.0, 1.3, 0.8)
    if shared:
        other = made.copy()
        other.name = "Twin"
        bpy.context.collection.objects.link(other)
    bpy.context.view_layer.update()
    for other in bpy.context.view_layer.objects:
        other.select_set(False)
    made.select_set(True)
    bpy.context.view_layer.objects.active = made
    return made


def refine(request: dict, folder: str, end: str, shared: bool, seconds: float) -> dict:
    """Refines the mug and ends with "accept", "keep_copy" or "discard"; what was there before and after."""
    mug(shared)
    bpy.ops.ed.undo_push(message="A mug")
    before, there = everything(bpy.data.objects["Mug"]), objects()
    points = positions(bpy.data.objects["Mug"].data)
    message = press("galatea.refine", **request)
    assert message == "", message
    hidden = bpy.data.objects["Mug"].hide_get()
    watch = Watch(f"{folder}/status.json")
    watch.to_the_end(seconds)
    message = press(f"galatea.{end}")
    assert message == "", message
    after = everything(bpy.data.objects["Mug"])
    moved = positions(bpy.data.objects["Mug"].data) - points
    world = np.array(bpy.data.objects["Mug"].matrix_world)[:3, :3]
    told = {
        "job": watch.live.job, "updates": watch.updates, "before": before, "after": after, "hidden": hidden,
        "there_before": there, "there_after": objects(), "notes": list(watch.live.notes),
        "moved": np.linalg.norm(moved @ world.T, axis=1).max(),
        "twin": describe("Twin"), "copy": next((describe(name) for name in objects() if name not in there), None),
    }  # fmt: skip
    if end == "accept":
        bpy.ops.ed.undo()
        told["undone"], told["there_undone"] = everything(bpy.data.objects["Mug"]), objects()
        bpy.ops.ed.redo()
        told["redone"] = everything(bpy.data.objects["Mug"])
    return told


# ---- what can go wrong


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
