"""What is in the scene, as plain values that can be compared: every bit that a refinement has to leave alone."""

from __future__ import annotations

import hashlib

import bpy
import numpy as np

LAYER_VALUES = {
    "FLOAT": ("value", np.float32, 1), "INT": ("value", np.int32, 1), "INT8": ("value", np.int32, 1),
    "BOOLEAN": ("value", bool, 1), "FLOAT_VECTOR": ("vector", np.float32, 3), "FLOAT2": ("vector", np.float32, 2),
    "INT32_2D": ("value", np.int32, 2), "INT16_2D": ("value", np.int32, 2), "QUATERNION": ("value", np.float32, 4),
    "FLOAT_COLOR": ("color", np.float32, 4), "BYTE_COLOR": ("color", np.float32, 4),
}  # fmt: skip


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


def describe(name: str) -> dict | None:
    found = bpy.data.objects.get(name)
    return None if found is None else everything(found) | {"vertices": len(found.data.vertices)}
