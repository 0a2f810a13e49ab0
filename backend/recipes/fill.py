"""From what was asked for to the full settings tree: a recipe's stages, its length, and the request's own values."""

from __future__ import annotations

from msgspec.structs import replace

from backend.errors import InputError
from backend.recipes.load import Recipe, load_recipe, shortened
from protocol.messages import JobRequest
from protocol.settings import (
    Constant,
    FieldStage,
    GridStage,
    JobSettings,
    Linear,
    MeshStage,
    Stage,
    TetrahedraStage,
    value_at,
)

PAINT_RATE = 0.02
"""At which a texture begins to be painted on a mesh of the recipe's own; it falls to the rate that the vertex colors ended with."""

SHAPING = (GridStage, FieldStage, TetrahedraStage)
"""Stages that need no mesh to begin with and make a topology of their own."""


def keeping_topology(name: str, family: str) -> Recipe:
    """A recipe of a family of priors for a mesh of the artist's own.

    Raises InputError if the recipe is not there or makes a topology of its own.
    """
    recipe = load_recipe(name, family)
    for stage in recipe.stages:
        if isinstance(stage, SHAPING) or (isinstance(stage, MeshStage) and stage.remesh_every):
            raise InputError(f"The recipe {name} makes a topology of its own; refining keeps the mesh's topology.")
    return recipe


def painting(stages: tuple[Stage, ...], texels: int) -> tuple[Stage, ...]:
    """The stages with a texture of `texels` a side in place of vertex colors, from the last mesh stage on.

    A texture's coordinates are those of its triangles: after a last stage that renews the topology, a third of its steps
    more paint what it made, with vertices at the pace that it ended with.

    Raises InputError if there is no mesh stage to paint in.
    """
    *before, last = (replace(s, texture_size=texels) if getattr(s, "texture_size", 0) else s for s in stages)
    if not isinstance(last, MeshStage):
        raise InputError("The recipe ends without a mesh stage, so there is nothing to paint a texture on.")
    if not last.remesh_every:
        return (*before, replace(last, texture_size=texels))
    pace, colors = (Constant(value_at(rate, 1.0)) for rate in (last.position_rate, last.color_rate))
    painted = replace(last, steps=max(1, last.steps // 3), remesh_every=0, texture_size=texels, position_rate=pace)
    return (*before, last, replace(painted, texture_rate=Linear(PAINT_RATE, colors.value)))


def settings_for(request: JobRequest, family: str = "toybox") -> JobSettings:
    """What the job of a request will be with a prior of `family`, complete.

    Raises InputError for a recipe or a number of steps that does not fit.
    """
    name = request.recipe or request.command
    recipe = keeping_topology(name, family) if request.command == "refine" else load_recipe(name, family)
    stages = recipe.stages
    if request.command == "generate" and not isinstance(stages[0], SHAPING):
        raise InputError(f"The recipe {name} needs a mesh to begin with; choose another to generate from words alone.")
    if request.steps is not None:
        stages = shortened(stages, request.steps)
    prompt = request.prompt.strip()
    if not prompt and not request.references:
        raise InputError('The prompt is empty; say what to make in words, for example "a red mushroom", or give a reference picture.')
    if request.regions and request.command == "generate":
        raise InputError("Regions are parts of a mesh to refine; to generate, leave them out.")
    return JobSettings(
        prompt=prompt,
        stages=stages,
        negative_prompt=request.negative_prompt.strip() or recipe.negative_prompt,
        seed=request.seed,
        prior=request.prior,
        recipe=name,
        strength=request.strength,
        references=request.references,
        regions=request.regions,
        threads=request.threads,
    )
