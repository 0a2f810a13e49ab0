"""Losses between views of one object: views of a volume agree with each other, those of a mesh with its own earlier ones.

Both look at more than the prior is shown: volumes at second views next to the step's own, meshes at a few of the fixed
views in which they were remembered. Nothing is rendered, and nothing drawn, for what weighs nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.errors import InputError
from backend.losses.picture import color_difference, silhouette_difference
from backend.losses.reprojection import correspond
from backend.losses.view_agreement import depth_agreement, normal_agreement
from backend.losses.view_interpolation import view_interpolation
from backend.optimize.objectives import Objective, Seen
from backend.rendering import Rendered
from protocol.losses import LossSettings
from protocol.settings import FieldStage, GridStage, Stage, largest, value_at

AGREEMENTS = ("depth_agreement", "normal_agreement")
BETWEEN_VIEWS = (*AGREEMENTS, "view_interpolation")

NEAREST_TURN, FARTHEST_TURN = 10.0, 45.0
"""Degrees of azimuth between a view and the second view that it must agree with: nearer ones see the same fog, farther ones
see little of the same surface."""

FOG = 0.3
"""How thick fog may be, in scene units: a point that lies farther behind what the second view sees is hidden from it. Where that
was .05, as for surfaces, views came to agree by hiding from each other what they disagreed about."""

ANCHOR_AZIMUTHS = tuple(45.0 * number for number in range(8))
ANCHOR_ELEVATIONS = (0.0, 35.0) * 4
ANCHORS_A_STEP = 2


def make_views_objective(stage: Stage) -> Objective | None:
    """The losses between views that weigh something in `stage` at any time, or None.

    Raises:
        InputError: views of a mesh should agree with each other, or those of a fog with what it was at its begin.
    """
    weighing = [name for name in (*BETWEEN_VIEWS, "anchor_views") if largest(getattr(stage.losses, name))]
    volume = isinstance(stage, GridStage | FieldStage)
    for name in weighing:
        if volume == (name == "anchor_views"):
            raise InputError(_misplaced(name))
    if not weighing:
        return None
    return ViewsAgree(stage.losses) if volume else AnchorViews(stage.losses)


class ViewsAgree(Objective):
    """Views of a volume show one surface: depth, normals and colors agree from one view to another."""

    def __init__(self, losses: LossSettings) -> None:
        self._losses = losses

    def terms(self, seen: Seen) -> dict[str, Tensor]:
        weights = {name: value_at(getattr(self._losses, name), seen.progress) for name in BETWEEN_VIEWS}
        weights = {name: weight for name, weight in weights.items() if weight}
        terms = self._agreements(seen, weights) if weights.keys() & set(AGREEMENTS) else {}
        if "view_interpolation" in weights:
            terms["view_interpolation"] = self._interpolation(seen)
        return {name: weights[name] * term for name, term in terms.items()}

    def _agreements(self, seen: Seen, weights: dict[str, float]) -> dict[str, Tensor]:
        turn = _sign_and_share(seen)
        turned = _turned(seen.look.cameras, turn.sign() * (NEAREST_TURN + (FARTHEST_TURN - NEAREST_TURN) * turn.abs()))
        own = other = None
        if "normal_agreement" in weights:
            own, other = (_render(seen, cameras, "normal") for cameras in (seen.look.cameras, turned))
        other = other or _render(seen, turned, seen.look.shading)
        found = correspond(seen.rendered.depth, seen.look.cameras, other.depth, turned, FOG)
        terms = {}
        if "depth_agreement" in weights:
            terms["depth_agreement"] = depth_agreement(found)
        if "normal_agreement" in weights:
            terms["normal_agreement"] = normal_agreement(_normals(own), _normals(other), found)
        return terms

    def _interpolation(self, seen: Seen) -> Tensor:
        turned = _turned(seen.look.cameras, _sign_and_share(seen).sign() * self._losses.view_interpolation_angle)
        other = _render(seen, turned, seen.look.shading)
        found = correspond(seen.rendered.depth.detach(), seen.look.cameras, other.depth.detach(), turned)
        background = seen.look.background[:, None, None]
        return view_interpolation(seen.rendered.composite(background), other.composite(background), found)


class AnchorViews(Objective):
    """A mesh keeps the colors and silhouettes that it had in fixed views when the stage began."""

    def __init__(self, losses: LossSettings) -> None:
        self._losses = losses
        self._kept: dict[str, Tensor] | None = None

    def terms(self, seen: Seen) -> dict[str, Tensor]:
        if self._kept is None:
            with torch.no_grad():
                begin = seen.representation.render(_anchors(seen), seen.rendered.alpha.shape[1], shading="albedo")
            self._kept = {"rgb": begin.rgb, "alpha": begin.alpha}
        weight = value_at(self._losses.anchor_views, seen.progress)
        if not weight:
            return {}
        order = torch.randperm(len(ANCHOR_AZIMUTHS), generator=seen.generator, device=seen.generator.device)
        chosen = order[:ANCHORS_A_STEP].to(seen.rendered.alpha.device)
        rgb, alpha = self._kept["rgb"][chosen], self._kept["alpha"][chosen]
        now = seen.representation.render(_anchors(seen)[chosen], alpha.shape[1], shading="albedo")
        colors = color_difference(now.rgb, now.alpha, rgb, alpha, seen.look.background[0])
        return {"anchor_views": weight * (colors + silhouette_difference(now.alpha, alpha))}

    def state_dict(self) -> dict[str, Any]:
        return {} if self._kept is None else dict(self._kept)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kept = dict(state) or None


def _sign_and_share(seen: Seen) -> Tensor:
    """A number in [-1, 1]: to which side, and how far, the second views are turned."""
    drawn = torch.rand((), generator=seen.generator, device=seen.generator.device)
    return (2.0 * drawn - 1.0).to(seen.look.background.device)


def _turned(cameras: Cameras, degrees: Tensor) -> Cameras:
    return replace(cameras, azimuth=cameras.azimuth + degrees)


def _render(seen: Seen, cameras: Cameras, shading: str) -> Rendered:
    return seen.representation.render(cameras, seen.rendered.alpha.shape[1], seen.look.light, shading)


def _normals(rendered: Rendered) -> Tensor:
    """World-space normals of a render with the shading "normal", times its alpha."""
    return 2.0 * rendered.rgb - rendered.alpha


def _anchors(seen: Seen) -> Cameras:
    return Cameras.orbit(list(ANCHOR_AZIMUTHS), list(ANCHOR_ELEVATIONS)).to(seen.look.background.device)


def _misplaced(name: str) -> str:
    if name == "anchor_views":
        return (
            "losses.anchor_views holds the object to its views when the stage began, but grid and field stages begin as a soft "
            "ball; give it to a mesh or tetrahedra stage."
        )
    return (
        f"losses.{name} compares views of one surface with each other, which always agree on a mesh; give it to a grid or field "
        "stage."
    )
