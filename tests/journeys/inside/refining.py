"""Refining an artist's mesh: a mug with all that may be on a mesh, before and after."""

from __future__ import annotations

import bpy
import numpy as np

from tests.journeys.inside.artist import Watch, press
from tests.journeys.inside.reading import describe, everything, objects, positions


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
        "there_before": there, "there_after": objects(), "notes": [*watch.live.notes, *watch.live.warnings],
        "moved": np.linalg.norm(moved @ world.T, axis=1).max(),
        "twin": describe("Twin"), "copy": next((describe(name) for name in objects() if name not in there), None),
    }  # fmt: skip
    if end == "accept":
        bpy.ops.ed.undo()
        told["undone"], told["there_undone"] = everything(bpy.data.objects["Mug"]), objects()
        bpy.ops.ed.redo()
        told["redone"] = everything(bpy.data.objects["Mug"])
    return told


def refine_region(request: dict, folder: str, seconds: float) -> dict:
    """Refines the mug's upper half only, toward a picture as well, and accepts; what moved, and what was told on the way."""
    made = mug(False)
    heights = positions(made.data)[:, 2]
    group = made.vertex_groups.new(name="upper")
    for index, height in enumerate(heights.tolist()):
        group.add([index], min(1.0, max(0.0, (height - 0.5) / 0.3)), "REPLACE")
    bpy.ops.galatea.add_region()
    made.galatea_regions[0].prompt = "a blue mug"
    image = bpy.data.images.new("Mug from the right", 32, 32, alpha=True)
    pixels = np.zeros((32, 32, 4), np.float32)
    pixels[6:26, 8:24] = (0.1, 0.2, 0.9, 1.0)
    image.pixels.foreach_set(pixels.ravel())
    bpy.ops.galatea.add_picture(image=image.name)
    bpy.context.window_manager.galatea.pictures[0].azimuth = 90.0
    before = positions(made.data)
    message = press("galatea.refine", **request)
    assert message == "", message
    watch = Watch(f"{folder}/status.json")
    watch.to_the_end(seconds)
    diagnosis = watch.live.diagnosis
    message = press("galatea.accept")
    assert message == "", message
    after, outside = positions(made.data), heights <= 0.5
    return {
        "outside": int(outside.sum()), "inside": int((heights >= 0.8).sum()),
        "moved_outside": int((after != before)[outside].any(axis=1).sum()),
        "moved_inside": int((after != before)[heights >= 0.8].any(axis=1).sum()),
        "group": made.galatea_regions[0].group, "diagnosed": diagnosis is not None and sum(diagnosis.azimuths) > 0,
    }  # fmt: skip
