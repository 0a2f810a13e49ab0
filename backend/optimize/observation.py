"""What a sampled step is found to do: which loss pulls how hard, how far everything moves, and what the renders are like.

It looks on: nothing here draws a random number or changes what is optimized, so a step that is observed ends in the same bits
as one that is not. It costs a backward pass of each term that stands beside the distillation; the distillation's own, which
leads through the prior's encoder and the renderer, is what the others leave of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.distillation.numbers import together
from backend.optimize.look import Look
from backend.optimize.stages import RunningStage
from backend.optimize.surfaces import SurfaceNow, has_surface, surface_now
from backend.rendering import Rendered

LIMIT = 1.5 / 255
"""A channel nearer than this to 0 or 1 is at its limit."""

SOLID = 0.99
"""Coverage of pixels that count as the object's own: colors at its border are divided by little."""

DISTILLATION = "distillation"


@dataclass(frozen=True)
class Observation:
    """One sampled step.

    `gradients`: norms of the gradients of the distillation and of each term on all that is optimized, not finite where one is
    not. `updates`: RMS of the step's change of each parameter group; of "positions" in scene units, as the vertices moved.
    `update_edges`: that in median lengths of an edge; `edge`: this length in scene units (both None without a mesh).
    `saturation`: share of the object's pixels with a channel at its limit; None for pictures of normals, and where nothing is
    seen. `coverage`: mean coverage of the pixels by the object. `nearest`: distance of the nearest surface in units of
    that of the camera. `inside`: whether a camera stands inside the object.
    """

    gradients: dict[str, float]
    updates: dict[str, float]
    update_edges: float | None
    edge: float | None
    saturation: float | None
    coverage: float
    nearest: float
    inside: bool


class Observer:
    """Follows one step: `terms_alone` before its backward pass, `whole` after it, `moved` after the optimizers' step."""

    def __init__(self, running: RunningStage) -> None:
        self._groups = [group for optimizer in running.optimizers for group in optimizer.param_groups]
        self._parameters = [parameter for group in self._groups for parameter in group["params"]]
        self._representation = running.representation
        self._terms: dict[str, list[Tensor | None]] = {}
        self._norms: dict[str, Tensor] = {}
        self._before: list[Tensor] = []
        self._surface: SurfaceNow | None = None

    def terms_alone(self, terms: Mapping[str, Tensor]) -> None:
        """Take the gradient of each of `terms`, whose graphs stay as they are."""
        for name, term in terms.items():
            found = torch.autograd.grad(term, self._parameters, retain_graph=True, allow_unused=True) if term.requires_grad else ()
            self._terms[name] = list(found) or [None] * len(self._parameters)

    @torch.no_grad()
    def whole(self) -> None:
        """Take what the backward pass has left in the parameters, and the parameters as they are."""
        left = []
        for index, parameter in enumerate(self._parameters):
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            for gradients in self._terms.values():
                if gradients[index] is not None:
                    own -= gradients[index]
            left.append(own)
        self._norms = {DISTILLATION: _norm(left)} | {name: _norm(parts) for name, parts in self._terms.items()}
        self._terms = {}
        self._before = [parameter.detach().clone() for parameter in self._parameters]
        self._surface = surface_now(self._representation) if has_surface(self._representation) else None

    @torch.no_grad()
    def moved(self, look: Look, rendered: Rendered) -> Observation:
        """The observation, of the step's renders before it moved anything."""
        numbers = {f"gradient {name}": norm for name, norm in self._norms.items()}
        before = iter(self._before)
        for group in self._groups:
            squares = [(parameter - next(before)).square() for parameter in group["params"]]
            count = sum(square.numel() for square in squares)
            numbers[f"update {group['name']}"] = (sum(square.sum() for square in squares) / count).sqrt()
        places = look.cameras.position()
        if self._surface is None:
            inside = bool((places.norm(dim=-1) < 1.0).any())  # volumes fill the unit sphere
        else:
            before, after = self._surface, surface_now(self._representation)
            inside = camera_inside(places, before)
            if len(before.edges):
                first, second = before.vertices[before.edges.long()].unbind(1)
                numbers["edge"] = (first - second).norm(dim=-1).median()
            if len(after.vertices) == len(before.vertices):  # the surface of tetrahedra may have another topology now
                numbers["moved"] = (after.vertices - before.vertices).square().sum(1).mean().sqrt()
                if "update positions" in numbers:
                    numbers["update positions"] = numbers["moved"]
        numbers |= _of_renders(look, rendered)
        told = together(numbers)
        moved, edge = told.get("moved"), told.get("edge")
        return Observation(
            {name.removeprefix("gradient "): value for name, value in told.items() if name.startswith("gradient ")},
            {name.removeprefix("update "): value for name, value in told.items() if name.startswith("update ")},
            None if moved is None or not edge else moved / edge,
            edge,
            told["saturated"] / told["solid"] if look.shading != "normal" and told["solid"] else None,
            told["coverage"],
            told["nearest"],
            inside,
        )


def camera_inside(positions: Tensor, surface: SurfaceNow) -> bool:
    """Whether the surface winds around one of `positions` [N, 3] (the generalized winding number exceeds one half).

    Solid angles of triangles after van Oosterom and Strackee (1983), eq. 8.
    """
    inner = positions.norm(dim=-1) <= surface.vertices.norm(dim=-1).max()
    for position in positions[inner]:
        a, b, c = (surface.vertices[surface.faces.long()] - position).unbind(1)
        la, lb, lc = (corner.norm(dim=-1) for corner in (a, b, c))
        volume = (a * torch.linalg.cross(b, c)).sum(-1)
        spread = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
        if bool(torch.atan2(volume, spread).sum() / (2 * torch.pi) > 0.5):
            return True
    return False


def _of_renders(look: Look, rendered: Rendered) -> dict[str, Tensor]:
    solid = rendered.alpha[..., 0] > SOLID
    straight = rendered.rgb / rendered.alpha.clamp_min(SOLID)
    at_limit = ((straight < LIMIT) | (straight > 1.0 - LIMIT)).any(-1)
    return {
        "saturated": (at_limit & solid).float().mean(),
        "solid": solid.float().mean(),
        "coverage": rendered.alpha.mean(),
        "nearest": (rendered.depth.flatten(1).amin(1) / look.cameras.distance).amin(),
    }


def _norm(parts: list[Tensor | None]) -> Tensor:
    there = [part.norm() for part in parts if part is not None]
    return torch.stack(there).norm() if there else torch.zeros(())
