"""Losses of a stage that look at the colors of its object alone: how often they change over the surface, how colorful they are.

Of meshes they look at the colors of vertices or texels, of tetrahedra at those of the surface's vertices. A density grid and a
radiance field have colors everywhere, most of which nobody sees: there saturation is that of the step's renders.
"""

from __future__ import annotations

from torch import Tensor

from backend.errors import InputError
from backend.losses.albedo import albedo_changes
from backend.losses.saturation import color_saturation
from backend.optimize.objectives import Objective, Seen
from backend.optimize.surfaces import has_surface
from backend.rendering import Rendered
from backend.representations.representation import Representation
from backend.representations.tetrahedral_grid import TetrahedralGrid
from backend.representations.textured_mesh import TexturedMesh
from protocol.settings import LossSettings, MeshStage, Stage, largest, value_at

COLOR_LOSSES = ("albedo_sparsity", "color_saturation")


class ColorObjective(Objective):
    """Has no state."""

    def __init__(self, losses: LossSettings) -> None:
        self._losses = losses

    def terms(self, seen: Seen) -> dict[str, Tensor]:
        weights = {name: value_at(getattr(self._losses, name), seen.progress) for name in COLOR_LOSSES}
        weights = {name: weight for name, weight in weights.items() if weight}
        if not weights:
            return {}
        if not has_surface(seen.representation):
            return {"color_saturation": weights["color_saturation"] * _rendered_saturation(seen.rendered)}
        colors, neighbors = _colors(seen.representation)
        terms = {}
        if "albedo_sparsity" in weights:
            terms["albedo_sparsity"] = albedo_changes(colors, neighbors)
        if "color_saturation" in weights:
            terms["color_saturation"] = color_saturation(colors)
        return {name: weights[name] * term for name, term in terms.items()}


def make_color_objective(stage: Stage, representation: Representation) -> ColorObjective | None:
    """None if no loss of the colors weighs anything in the stage, or no color can change.

    Raises:
        InputError: albedo sparsity is asked for of a density grid or a radiance field, or saturation of one that shows normals.
    """
    losses = stage.losses
    sparsity, saturation = (largest(getattr(losses, name)) for name in COLOR_LOSSES)
    if not (sparsity or saturation) or (isinstance(stage, MeshStage) and stage.learns == "geometry"):
        return None
    if not has_surface(representation):
        kind = stage.__struct_config__.tag
        if sparsity:
            raise InputError(
                f"A {kind} stage has no surface with colors for the loss 'albedo_sparsity'; ask for it in a mesh or tetrahedra stage."
            )
        if stage.shading == "normals":
            raise InputError(
                f"A {kind} stage that shows normals shows no colors for the loss 'color_saturation'; set its shading to \"colors\"."
            )
    return ColorObjective(losses)


def _colors(representation: Representation) -> tuple[Tensor, Tensor]:
    """Colors [P, 3] and pairs [E, 2] of neighbors among them."""
    if isinstance(representation, TexturedMesh):
        return representation.texel_colors()
    if isinstance(representation, TetrahedralGrid):
        surface = representation.surface()
        return surface.colors, surface.topology.edges
    return representation.vertex_colors(), representation.surface.topology.edges


def _rendered_saturation(rendered: Rendered) -> Tensor:
    """Of what the pixels show of the object, weighted with how much of it they show; the shape takes no gradient from the weight."""
    alpha = rendered.alpha.clamp_min(1e-3)
    return color_saturation(rendered.rgb / alpha, rendered.alpha[..., 0].detach())
