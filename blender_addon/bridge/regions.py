"""Regions of a mesh: vertex groups as masks for the wire, and the selection as a vertex group."""

from __future__ import annotations

from collections.abc import Sequence

import bmesh
import bpy
import numpy as np
from bpy.types import Object

from .errors import SceneError

GROUP = "Region"
"""The name of a new group."""


def read_masks(object: Object, groups: Sequence[str]) -> tuple[np.ndarray, ...]:
    """A mask [V] float32 for each of these vertex groups: the weights, 0 where a vertex is not in it.

    Raises:
        SceneError: a group is not there, or holds no vertex.
    """
    for name in groups:
        if not name:
            raise SceneError("A region has no vertex group: choose one, or remove the region.")
        if name not in object.vertex_groups:
            raise SceneError(f"{object.name} has no vertex group {name}: choose one of its own, or remove the region.")
    masks = _weights(object, [object.vertex_groups[name].index for name in groups]) if groups else ()
    for name, mask in zip(groups, masks, strict=True):
        if not mask.any():
            raise SceneError(f"No vertex has a weight in the vertex group {name}: nothing would change, so assign some first.")
    return tuple(masks)


def group_from_selection(object: Object) -> str:
    """A new vertex group of the selected vertices (those of the selected faces), and its name.

    Raises:
        SceneError: nothing is selected, or the object cannot be given one.
    """
    if object.library is not None or object.data.library is not None:
        raise SceneError(f"{object.name} is linked from another file: make it local with Object > Relations > Make Local.")
    editing = object.mode == "EDIT"
    if editing:
        bpy.ops.object.mode_set(mode="OBJECT")  # groups of vertices cannot be written from within Edit Mode
    try:
        selected = np.empty(len(object.data.vertices), dtype=bool)
        object.data.vertices.foreach_get("select", selected)
        if not selected.any():
            raise SceneError(f"Nothing is selected in {object.name}: select the faces that may change in Edit Mode first.")
        group = object.vertex_groups.new(name=GROUP)
        group.add(np.flatnonzero(selected).tolist(), 1.0, "REPLACE")
        return group.name
    finally:
        if editing:
            bpy.ops.object.mode_set(mode="EDIT")


def _weights(object: Object, indices: Sequence[int]) -> list[np.ndarray]:
    """Blender has no fast way to the weights; BMesh's is the least slow."""
    copy = bmesh.new()
    try:
        copy.from_mesh(object.data)
        layer = copy.verts.layers.deform.verify()
        count = len(copy.verts)
        return [np.fromiter((vertex[layer].get(index, 0.0) for vertex in copy.verts), np.float32, count) for index in indices]
    finally:
        copy.free()
