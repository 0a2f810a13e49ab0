"""What a step minimizes beside the distillation and the regularizers of what is optimized.

An objective is a group of losses of one kind. It is asked in each step for its weighted terms; what weighs nothing is not
computed. It may learn something of its own beside the object (the light of a photograph) and then keeps an optimizer for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from backend.optimize.feature_networks import FeatureNetworks
from backend.optimize.inputs import Inputs
from backend.optimize.look import Look
from backend.priors.prior import Prior
from backend.rendering import Rendered
from backend.representations.representation import Representation
from protocol.settings import JobSettings, Stage


@dataclass(frozen=True, eq=False)
class Job:
    """All that a stage may need to know of the job that it belongs to."""

    settings: JobSettings
    inputs: Inputs
    prior: Prior
    features: FeatureNetworks = FeatureNetworks()


@dataclass(frozen=True, eq=False)
class Seen:
    """What a step has at hand for objectives. `rendered` are the views that the prior is shown, differentiable.

    Draws come from `generator`, the job's, and only in objectives that weigh something: others must not change a result.
    """

    representation: Representation
    look: Look
    rendered: Rendered
    progress: float
    strength: float
    generator: torch.Generator
    prompt: str = ""
    """What the prior is asked for in this step."""


class Objective(Protocol):
    """Losses of one kind."""

    def terms(self, seen: Seen) -> dict[str, Tensor]:
        """Named scalars, weighted; those of weight 0 are left out."""
        ...

    def move(self) -> None:
        """Called after each step of the object's optimizers, with gradients in place: update what is learned beside it."""

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything that a resumed run needs and that does not follow from the job: here nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""


def make_objectives(stage: Stage, representation: Representation, job: Job) -> list[Objective]:
    """Those of the stage that weigh something at any time, as they are at its first step.

    Raises:
        InputError: a loss is asked for that the job has nothing to compute from; says what is missing.
    """
    # They import what is above.
    from backend.optimize.anchor_objective import make_anchor_objective
    from backend.optimize.clip_objective import make_clip_objective
    from backend.optimize.color_objective import make_color_objective
    from backend.optimize.reference_objective import make_reference_objective
    from backend.optimize.shape_objective import make_shape_objective
    from backend.optimize.views_objective import make_views_objective

    made = [
        make_shape_objective(stage, representation),
        make_color_objective(stage, representation),
        make_views_objective(stage),
        make_clip_objective(stage, job),
        make_reference_objective(stage, job),
        make_anchor_objective(stage, job),
    ]
    return [objective for objective in made if objective is not None]
