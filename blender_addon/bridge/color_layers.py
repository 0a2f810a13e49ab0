"""Color attributes of a mesh, and the layer that a job's colors go into.

What is sent is the active layer in any form it may have. What comes back is one color a vertex: it goes into the active
layer if that has this form without loss (float colors on points), and else into a new layer beside the artist's own.
"""

from __future__ import annotations

import numpy as np
from bpy.types import Attribute, Mesh

from .colors import GRAY, to_displayed, to_linear
from .geometry import read_corner_verts

NEW_LAYER = "Color"


def active_layer(mesh: Mesh) -> Attribute | None:
    return mesh.color_attributes.active_color


def read_displayed(mesh: Mesh, name: str | None = None) -> np.ndarray | None:
    """The active layer, or that of a name, as displayed colors [V, 3] float32; None without that layer.

    Corners are averaged at their vertex.
    """
    layer = active_layer(mesh) if name is None else mesh.color_attributes.get(name)
    if layer is None or len(layer.data) == 0:
        return None
    if layer.domain == "POINT" and layer.data_type == "BYTE_COLOR":
        return np.ascontiguousarray(_read(layer, "color_srgb")[:, :3]).clip(0.0, 1.0)
    linear = _read(layer, "color")[:, :3]
    if layer.domain == "CORNER":
        linear = _mean_at_vertices(linear, read_corner_verts(mesh), len(mesh.vertices))
    return to_displayed(linear)


def is_lossless(layer: Attribute | None) -> bool:
    """Whether the layer holds one float color a vertex, as the wire carries them."""
    return layer is not None and layer.domain == "POINT" and layer.data_type == "FLOAT_COLOR"


def result_layer(mesh: Mesh) -> str:
    """The name of the layer for a job's colors, made if the active one has another form, and active from now on."""
    layer = active_layer(mesh)
    if not is_lossless(layer):
        layer = mesh.color_attributes.new(NEW_LAYER, "FLOAT_COLOR", "POINT")
    name = layer.name
    mesh.attributes.active_color_name = name
    mesh.attributes.default_color_name = name
    return name


def write_linear(mesh: Mesh, name: str, rgba: np.ndarray) -> bool:
    """rgba [V, 4] float32 into the layer; False if there is no such layer of that form (any more)."""
    layer = mesh.color_attributes.get(name)
    if not is_lossless(layer):
        return False
    layer.data.foreach_set("color", rgba.reshape(-1))
    return True


def write_changed(mesh: Mesh, displayed: np.ndarray) -> None:
    """The result's colors [V, 3] as displayed; what equals what `read_displayed` gave keeps its bits, and its alpha."""
    before = read_displayed(mesh)
    changed = np.ones(len(displayed), dtype=bool) if before is None else (displayed != before).any(axis=1)
    if not changed.any():
        return
    kept = _read(active_layer(mesh), "color") if is_lossless(active_layer(mesh)) else np.ones((len(displayed), 4), np.float32)
    fresh = changed if is_lossless(active_layer(mesh)) else slice(None)
    kept[fresh, :3] = to_linear(displayed[fresh])
    write_linear(mesh, result_layer(mesh), kept)


def _read(layer: Attribute, name: str) -> np.ndarray:
    values = np.empty(len(layer.data) * 4, dtype=np.float32)
    layer.data.foreach_get(name, values)
    return values.reshape(-1, 4)


def _mean_at_vertices(values: np.ndarray, corner_verts: np.ndarray, count: int) -> np.ndarray:
    """Values of corners [C, 3] -> of vertices [count, 3]; gray where a vertex has no corner."""
    corners = np.bincount(corner_verts, minlength=count)
    mean = np.empty((count, 3), dtype=np.float32)
    for channel in range(3):
        total = np.bincount(corner_verts, weights=values[:, channel], minlength=count)
        mean[:, channel] = total / np.maximum(corners, 1)
    mean[corners == 0] = to_linear(np.float32(GRAY))
    return mean
