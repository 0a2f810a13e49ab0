"""Losses of a stage that look at its surface alone: how even its edges are, how it bends, how symmetric it is.

Smooth normals and the Laplacian are regularizers of the mesh (`MeshStage.normal_consistency`, `MeshStage.laplacian`).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor

from backend.errors import InputError
from backend.losses.edge_lengths import edge_length_deviation, relative_lengths
from backend.losses.normals import normal_spread, normal_variance
from backend.losses.symmetry import asymmetry, color_asymmetry, find_symmetry_plane, mirrored
from backend.optimize.objectives import Objective, Seen
from backend.optimize.surfaces import (
    SurfaceNow,
    SurfacePoints,
    artists_surface,
    draw_points,
    face_normals,
    has_surface,
    nearest_points,
    surface_now,
)
from backend.representations.representation import Representation
from backend.representations.tetrahedral_grid import TetrahedralGrid
from protocol.settings import LossSettings, MeshStage, Stage, largest, value_at

SHAPE_LOSSES = ("edge_lengths", "normal_variance", "symmetry", "color_symmetry")
MIRRORED_POINTS = 1024
"""Points of the surface whose mirror images a step looks at."""
PLANE_POINTS = 384
"""Points by which the plane of symmetry is found."""


class ShapeObjective(Objective):
    """Keeps what a topology fixes as long as it is the same, and the plane of symmetry as of the first step."""

    def __init__(self, losses: LossSettings, names: Collection[str]) -> None:
        """`names` are those of SHAPE_LOSSES that can move anything."""
        self._losses, self._names = losses, tuple(names)
        self._faces: Tensor | None = None
        self._allowed: Tensor | None = None
        self._wanted: Tensor | None = None
        self._plane: Tensor | None = None

    def terms(self, seen: Seen) -> dict[str, Tensor]:
        if self._plane is None and {"symmetry", "color_symmetry"} & set(self._names):
            self._plane = _plane(self._losses, surface_now(seen.representation))
        weights = {name: value_at(getattr(self._losses, name), seen.progress) for name in self._names}
        weights = {name: weight for name, weight in weights.items() if weight}
        if not weights:
            return {}
        surface = surface_now(seen.representation)
        self._learn_topology(surface, seen.representation)
        terms = {}
        if "edge_lengths" in weights:
            terms["edge_lengths"] = edge_length_deviation(surface.vertices, surface.edges, self._wanted)
        if "normal_variance" in weights:
            terms["normal_variance"] = normal_variance(surface.vertices, surface.faces, self._allowed)
        if "symmetry" in weights or "color_symmetry" in weights:
            points = draw_points(surface, MIRRORED_POINTS, seen.generator)
            places = points.of(surface.vertices, surface.faces)
            plane = self._plane.to(places)
            partners = nearest_points(surface, mirrored(places, plane))
            if "symmetry" in weights:
                terms["symmetry"] = asymmetry(places, partners.of(surface.vertices, surface.faces), plane)
            if "color_symmetry" in weights:
                colors = partial(_colors_at, seen.representation)
                terms["color_symmetry"] = color_asymmetry(colors(points), colors(partners))
        return {name: weights[name] * term for name, term in terms.items()}

    def state_dict(self) -> dict[str, Any]:
        return {} if self._plane is None else {"plane": self._plane.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._plane = state.get("plane")

    def _learn_topology(self, surface: SurfaceNow, representation: Representation) -> None:
        """What the start of an artist's mesh may cost; remeshed and new topologies have none."""
        if surface.faces is self._faces:
            return
        self._faces = surface.faces
        start = artists_surface(representation)
        if start is not None:
            self._wanted = relative_lengths(start.vertices, start.edges)
            self._allowed = normal_spread(start.vertices, start.faces)


def make_shape_objective(stage: Stage, representation: Representation) -> ShapeObjective | None:
    """None if no loss of the shape weighs anything in the stage, or nothing of it can move.

    Raises:
        InputError: one is asked for of a density grid or a radiance field.
    """
    asked = [name for name in SHAPE_LOSSES if largest(getattr(stage.losses, name))]
    if isinstance(stage, MeshStage):
        still = {"material": set(SHAPE_LOSSES) - {"color_symmetry"}, "geometry": {"color_symmetry"}}.get(stage.learns, set())
        asked = [name for name in asked if name not in still]
    if not asked:
        return None
    if not has_surface(representation):
        raise InputError(
            f"A {stage.__struct_config__.tag} stage has no surface for the loss {asked[0]!r} to look at; ask for it in a mesh or "
            "tetrahedra stage."
        )
    return ShapeObjective(stage.losses, asked)


def _plane(losses: LossSettings, surface: SurfaceNow) -> Tensor:
    """Unit normal [3]."""
    vertices = surface.vertices.detach()
    if losses.symmetry_plane != "found":
        return torch.eye(3).to(vertices)["xyz".index(losses.symmetry_plane)]
    return find_plane(SurfaceNow(vertices, surface.faces, surface.edges))


def find_plane(surface: SurfaceNow) -> Tensor:
    """Unit normal [3] of the plane through the origin that mirrors the surface best (see `find_symmetry_plane`)."""
    normals = face_normals(surface)

    def nearest(places: Tensor) -> tuple[Tensor, Tensor]:
        found = nearest_points(surface, places)
        return found.of(surface.vertices, surface.faces), normals[found.face]

    drawn = draw_points(surface, PLANE_POINTS, torch.Generator().manual_seed(0))
    return find_symmetry_plane(drawn.of(surface.vertices, surface.faces), nearest)


def _colors_at(representation: Representation, points: SurfacePoints) -> Tensor:
    if isinstance(representation, TetrahedralGrid):
        surface = representation.surface()
        return points.of(surface.colors, surface.faces)
    return representation.colors_at(points.face, points.barycentrics)
