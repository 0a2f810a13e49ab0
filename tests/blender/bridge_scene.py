"""For the checks of the bridge, within Blender: objects with everything that must survive, and digests to see that it did.

Nothing here uses the bridge: what it computes, it computes another way.
"""

from __future__ import annotations

import hashlib
import math
import traceback
from collections.abc import Callable
from types import SimpleNamespace

import bpy
import numpy as np
from mathutils import Euler, Matrix

JOB = "0123456789abcdef0123456789abcdef"


def run_checks(module: dict[str, object]) -> dict[str, str | None]:
    """Every check_ function of a script in an empty file of its own: name -> None, or how it failed."""
    outcomes = {}
    for name, check in list(module.items()):
        if name.startswith("check_") and isinstance(check, Callable):
            bpy.ops.wm.read_factory_settings(use_empty=True)
            try:
                check()
                outcomes[name] = None
            except BaseException:
                outcomes[name] = traceback.format_exc()
    return outcomes


def expect(holds: object, what: object = "") -> None:
    if not holds:
        raise AssertionError(what)


def refused(error: type[Exception], words: str, function: Callable, *arguments: object) -> str:
    """The sentence with which the function refuses; it must hold the words, and be one."""
    try:
        function(*arguments)
    except error as refusal:
        sentence = str(refusal)
        expect(words in sentence, f"{words!r} is not in {sentence!r}")
        expect(sentence.endswith((".", ")")) and "\n" not in sentence, sentence)
        return sentence
    raise AssertionError(f"it was not refused, though {words!r}")


def wire_mesh(positions: np.ndarray, faces: np.ndarray | None, colors: np.ndarray | None = None) -> SimpleNamespace:
    """What comes from the wire: read-only arrays."""
    arrays = [
        None if array is None else np.ascontiguousarray(array, dtype)
        for array, dtype in ((positions, np.float32), (faces, np.int32), (colors, np.float32))
    ]
    for array in arrays:
        if array is not None:
            array.flags.writeable = False
    return SimpleNamespace(positions=arrays[0], faces=arrays[1], colors=arrays[2])


def snapshot(*arrays: np.ndarray | None) -> SimpleNamespace:
    return SimpleNamespace(mesh=wire_mesh(*arrays))


def icosphere(subdivisions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A closed mesh with corners on the unit sphere: positions [V, 3], faces [F, 3]."""
    golden = (1 + math.sqrt(5)) / 2
    points = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0)]
    points += [(z, x, y) for x, y, z in points] + [(y, z, x) for x, y, z in points]
    points = np.array(points, float)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = np.isclose(distance, 2.0)
    faces = [(a, b, c) for a in range(12) for b in range(a) for c in range(b) if near[a, b] and near[b, c] and near[a, c]]
    faces = np.array(faces)
    inward = np.einsum("fi,fi->f", np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]]),
                       points[faces[:, 0]]) < 0  # fmt: skip
    faces[inward] = faces[inward][:, ::-1]
    for _ in range(subdivisions):
        pairs = np.sort(np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2), axis=1)
        unique, index = np.unique(pairs, axis=0, return_inverse=True)
        middle = index.reshape(-1, 3) + len(points)
        points = np.concatenate([points, points[unique].mean(axis=1)])
        faces = np.concatenate([middle] + [np.stack([faces[:, i], middle[:, i], middle[:, i - 1]], -1) for i in range(3)])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, faces


def artists_object() -> bpy.types.Object:
    """A quad mesh under a turned parent, unevenly scaled, with all that an artist may have put on it."""
    parent = bpy.data.objects.new("Parent", None)
    parent.location, parent.rotation_euler, parent.scale = (1, -2, 0.5), (0.3, -0.8, 1.1), (1.5, 0.7, 2.0)
    bpy.context.collection.objects.link(parent)
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=9, y_subdivisions=7)
    object = bpy.context.object
    object.name = object.data.name = "Cloth"
    mesh = object.data
    rng = np.random.default_rng(3)
    co = positions_of(object)
    co[:, 2] = 0.3 * np.sin(3 * co[:, 0]) * np.cos(2 * co[:, 1])
    mesh.vertices.foreach_set("co", co.ravel())
    object.parent = parent
    object.matrix_parent_inverse = Matrix.Translation((0.2, 0.1, -0.4))
    object.location, object.rotation_euler, object.scale = (0.4, 3.0, -1.0), (1.0, 0.2, -0.5), (2.0, 0.3, 0.9)
    _layers(object, rng)
    mirror = object.modifiers.new("Mirror", "MIRROR")
    mirror.use_axis = (False, True, False)
    object.modifiers.new("Subdivision", "SUBSURF").levels = 1
    object["artist"] = 7
    bpy.context.view_layer.update()
    return object


def _layers(object: bpy.types.Object, rng: np.random.Generator) -> None:
    mesh = object.data
    for name in ("Skin", "Trim"):
        mesh.materials.append(bpy.data.materials.new(name))
    mesh.polygons.foreach_set("material_index", rng.integers(0, 2, len(mesh.polygons)).astype(np.int32))
    mesh.polygons.foreach_set("use_smooth", rng.integers(0, 2, len(mesh.polygons)).astype(bool))
    second = mesh.uv_layers.new(name="Second")
    second.uv.foreach_set("vector", rng.random(len(mesh.loops) * 2).astype(np.float32))
    group = object.vertex_groups.new(name="Group")
    for index in range(0, len(mesh.vertices), 2):
        group.add([index], float(rng.random()), "REPLACE")
    for name, domain, size in (("crease_edge", "EDGE", len(mesh.edges)), ("heat", "POINT", len(mesh.vertices))):
        layer = mesh.attributes.new(name, "FLOAT", domain)
        layer.data.foreach_set("value", rng.random(size).astype(np.float32))
    mesh.edges.foreach_set("use_seam", rng.integers(0, 2, len(mesh.edges)).astype(bool))
    paint = mesh.color_attributes.new("Paint", "BYTE_COLOR", "CORNER")
    paint.data.foreach_set("color_srgb", rng.random(len(mesh.loops) * 4).astype(np.float32))
    normals = rng.normal(size=(len(mesh.loops), 3)) + (0, 0, 4)
    mesh.normals_split_custom_set((normals / np.linalg.norm(normals, axis=1, keepdims=True)).tolist())


def positions_of(object: bpy.types.Object) -> np.ndarray:
    """[V, 3] by the slow and certain way."""
    return np.array([vertex.co for vertex in object.data.vertices], dtype=np.float32)


def world_of(object: bpy.types.Object) -> np.ndarray:
    """[V, 3] in world coordinates, by Blender's own multiplication."""
    return np.array([object.matrix_world @ vertex.co for vertex in object.data.vertices])


_VALUES = {"FLOAT_COLOR": "color", "BYTE_COLOR": "color_srgb", "FLOAT_VECTOR": "vector", "FLOAT2": "vector"}


def layers_of(object: bpy.types.Object) -> dict[str, str]:
    """Every attribute layer of the mesh and all else that is the object's, each as a digest or text."""
    mesh, found = object.data, {}
    for layer in mesh.attributes:
        name = _VALUES.get(layer.data_type, "value")
        values = [getattr(item, name) for item in layer.data]
        found[f"{layer.domain} {layer.data_type} {layer.name}"] = hashlib.sha256(np.array(values).tobytes()).hexdigest()
    groups = [[(g.group, g.weight) for g in vertex.groups] for vertex in mesh.vertices]
    faces = [(tuple(face.vertices), face.material_index, face.use_smooth) for face in mesh.polygons]
    found |= {"faces": repr(faces), "edges": repr([tuple(edge.vertices) for edge in mesh.edges]), "groups": repr(groups)}
    found["uv layers"] = repr([(layer.name, layer.active, layer.active_render) for layer in mesh.uv_layers])
    found["colors"] = repr((mesh.attributes.active_color_name, mesh.attributes.default_color_name))
    found["group names"] = repr(object.vertex_groups.keys())
    found["slots"] = repr([(slot.material and slot.material.name, slot.link) for slot in object.material_slots])
    found["properties"] = repr((sorted(object.keys()), sorted(mesh.keys())))
    found["transform"] = repr([list(row) for row in object.matrix_world] + [list(row) for row in object.matrix_parent_inverse])
    found["parent"] = repr(object.parent and object.parent.name)
    found["visible"] = repr((object.hide_get(), object.hide_render, object.hide_viewport, object.select_get()))
    found["collections"] = repr(sorted(collection.name for collection in object.users_collection))
    for modifier in object.modifiers:
        settings = {p.identifier: _plain(getattr(modifier, p.identifier)) for p in modifier.bl_rna.properties
                    if not p.is_readonly and p.identifier not in ("execution_time",)}  # fmt: skip
        found[f"modifier {modifier.name}"] = repr(sorted(settings.items()))
    return found


def _plain(value: object) -> object:
    return tuple(value) if hasattr(value, "__len__") and not isinstance(value, str) else str(value)


def differences(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def counts() -> dict[str, int]:
    """How many data blocks there are, by kind."""
    kinds = ("objects", "meshes", "materials", "node_groups", "images", "actions", "collections", "textures")
    return {kind: len(getattr(bpy.data, kind)) for kind in kinds}


def turned(positions: np.ndarray, degrees: tuple[float, float, float]) -> np.ndarray:
    return positions @ np.array(Euler([math.radians(angle) for angle in degrees]).to_matrix()).T
