"""A mesh object as it goes over the wire.

The object's own mesh is sent, without modifiers: those stay the artist's, and go on working on what comes back.
"""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np
from bpy.types import Object

from ..protocol.mesh_codec import Mesh
from ..protocol.messages import MAX_FACES, MAX_VERTICES
from . import color_layers, marks
from .errors import SceneError
from .geometry import read_positions, read_triangles
from .placement import Placement, placement_of


@dataclass(frozen=True, eq=False)
class Collected:
    """`mesh` in wire space; the way back; sentences on what is unusual, for the artist."""

    mesh: Mesh
    placement: Placement
    notes: tuple[str, ...]


def collect(object: Object | None) -> Collected:
    """The object's mesh, placed in the unit sphere as it stands in the world, with its active colors.

    Raises:
        SceneError: it cannot be refined as it is; the sentence says what to do. Nothing was changed.
    """
    bpy.context.view_layer.update()  # what a script has just linked or moved may not be known to it yet
    _check_object(object)
    _check_data(object)
    placement = placement_of(object, read_positions(object.data))
    positions = placement.to_wire(placement.original)
    triangles, owners = read_triangles(object.data)
    flat = _is_flat(positions, triangles)
    _check_areas(object, flat, owners)
    if placement.mirrors:
        triangles = triangles[:, ::-1]  # else the faces of a mirrored object would look inward
    colors = color_layers.read_displayed(object.data)
    # A face with area may have triangles without any (a vertex in the middle of an edge): they show nothing, and are left out.
    mesh = Mesh(positions, np.ascontiguousarray(triangles[~flat]), colors)
    return Collected(mesh, placement, tuple(_notes(object, placement, triangles)))


def _check_object(object: Object | None) -> None:
    if object is None:
        raise SceneError("Nothing is selected: click a mesh object first.")
    if object.type != "MESH":
        kind = object.type.replace("_", " ").lower()
        raise SceneError(f"{object.name} is not a mesh ({kind}): select a mesh, or convert it with Object > Convert > Mesh.")
    marks.refused_if_taken(object)
    if object.library is not None or object.data.library is not None:
        raise SceneError(f"{object.name} is linked from another file: make it local with Object > Relations > Make Local.")
    if object.override_library is not None or object.data.override_library is not None:
        raise SceneError(f"{object.name} is a library override: make it local with Object > Relations > Make Local.")
    if object.name not in bpy.context.view_layer.objects:
        raise SceneError(f"{object.name} is not in this view layer: open its scene, or enable its collection in the Outliner.")
    if object.mode == "EDIT" or object.data.is_editmode:
        raise SceneError(f"{object.name} is in Edit Mode: leave it with Tab first.")
    if object.mode != "OBJECT":
        raise SceneError(f"{object.name} is in {object.mode.replace('_', ' ').title()} Mode: switch to Object Mode first.")


def _check_data(object: Object) -> None:
    mesh = object.data
    if mesh.shape_keys is not None:
        raise SceneError(f"{object.name} has shape keys, which would hide the result: remove them or refine a copy without.")
    if not len(mesh.polygons):
        raise SceneError(f"{object.name} has no faces: there is no surface to refine, so give it one in Edit Mode (F).")
    triangles = len(mesh.loops) - 2 * len(mesh.polygons)
    if len(mesh.vertices) > MAX_VERTICES or triangles > MAX_FACES:
        raise SceneError(
            f"{object.name} has {len(mesh.vertices):,} vertices and {triangles:,} triangles; at most {MAX_VERTICES:,} and "
            f"{MAX_FACES:,} can be refined: reduce a copy with the Decimate modifier and apply it."
        )


def _check_areas(object: Object, flat: np.ndarray, owners: np.ndarray) -> None:
    """Raises SceneError for faces of which every triangle is flat."""
    with_area = np.zeros(len(object.data.polygons), dtype=bool)
    with_area[owners[~flat]] = True
    count = int((~with_area).sum())
    if count:
        which = f"the first is face {int(with_area.argmin())}"
        raise SceneError(
            f"{object.name} has {count:,} {'face' if count == 1 else 'faces'} without area ({which}): "
            "remove them in Edit Mode with Mesh > Clean Up > Degenerate Dissolve."
        )


def _is_flat(positions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """[T] bool: no area to the precision of the coordinates, by the service's measure."""
    corners = positions.astype(np.float64)[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    longest = np.square(corners - np.roll(corners, 1, axis=1)).sum(-1).max(axis=1)
    return np.linalg.norm(normals, axis=1) <= 1e-9 * longest


def _notes(object: Object, placement: Placement, triangles: np.ndarray) -> list[str]:
    notes, mesh = [], object.data
    if object.modifiers:
        names = ", ".join(modifier.name for modifier in object.modifiers)
        notes.append(f"Its modifiers ({names}) are not seen by the prior; they go on working on the result.")
    shared = sum(other.data == mesh for other in bpy.data.objects)
    if shared > 1:
        notes.append(f"Its mesh is shared by {shared} objects: accepting gives {object.name} a mesh of its own.")
    layer = color_layers.active_layer(mesh)
    if layer is not None and not color_layers.is_lossless(layer):
        notes.append(f"Its colors ({layer.name}) stay as they are; the new ones come in a layer of their own, one a vertex.")
    normal = mesh.attributes.get("custom_normal")
    if normal is not None and normal.data_type == "FLOAT_VECTOR":
        notes.append("Its custom normals are free ones, which do not turn with the surface; shading may need to be set anew.")
    used = np.zeros(len(mesh.vertices), dtype=bool)
    used[triangles.ravel()] = True
    if not used.all():
        notes.append(_about_loose_vertices(placement.to_wire(placement.original), used))
    return notes


def _about_loose_vertices(positions: np.ndarray, used: np.ndarray) -> str:
    count = int((~used).sum())
    note = f"{count:,} {'vertex' if count == 1 else 'vertices'} that no face uses will stay in place."
    size = np.ptp(positions[used], axis=0).max() / np.ptp(positions, axis=0).max()
    if size < 0.7:
        note += f" They lie so far out that the surface takes only {size:.0%} of the view: better remove them first."
    return note
