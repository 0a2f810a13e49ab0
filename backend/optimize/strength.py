"""What the strength slider means: how fast a start mesh may change, and how hard it is held to itself."""

from __future__ import annotations

from dataclasses import dataclass

from backend.errors import InputError
from backend.optimize.objectives import Job
from protocol.settings import FieldStage, GridStage, MeshStage

COLORS_ALONE = 0.2
"""Up to here the shape keeps its bits."""

FASTEST = 4.0
"""The pace of vertices at strength 1, in units of the recipe's; at the default of 0.5 it is about the recipe's."""


@dataclass(frozen=True)
class Freedom:
    """Factors of the recipe's pace for vertices and for colors or texels, and of the weights that hold a mesh to its start."""

    shape: float
    colors: float
    hold: float


AS_RECIPE = Freedom(1.0, 1.0, 0.0)
"""Of an object that did not begin with the user's mesh."""


def freedom(strength: float) -> Freedom:
    """At 0 nothing moves; colors reach the recipe's pace at COLORS_ALONE, from where the shape moves more and more freely."""
    leeway = max(0.0, (strength - COLORS_ALONE) / (1.0 - COLORS_ALONE))
    return Freedom(FASTEST * leeway**1.5, min(1.0, strength / COLORS_ALONE), 1.0 - leeway)


def has_start_mesh(job: Job) -> bool:
    """Whether what is optimized began with the user's mesh: volumes begin with a ball of fog whatever was sent along."""
    return job.inputs.mesh is not None and not any(isinstance(stage, GridStage | FieldStage) for stage in job.settings.stages)


def check_strength(job: Job) -> None:
    """Raises InputError if the job's shape shall keep its bits, and a stage makes a shape of its own."""
    if not has_start_mesh(job) or not 0.0 < job.settings.strength <= COLORS_ALONE:
        return
    if not all(isinstance(stage, MeshStage) for stage in job.settings.stages):
        raise InputError(
            f"At strength {job.settings.strength:g} only colors change, but the recipe has a stage that makes a shape of its own; "
            f"choose a strength above {COLORS_ALONE:g}, or a recipe with mesh stages alone, as refine and texture are."
        )
