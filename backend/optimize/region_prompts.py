"""Regions with prompts of their own: one prompt is asked in each step, and its pull reaches only what is its own.

What reaches a vertex or texel is, over a round, the blend of the prompts by their regions' masks. A round asks each prompt
once: asking all of them in every step would cost as many times more and moves the object less for the same cost, see
docs/regions.md. The pull is weighted where positions, colors and texels leave their parameters, so neither the smoothing
of displacements nor an optimizer's momentum takes it elsewhere first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.optimize.control import Aim
from backend.optimize.regions import Regions, distinct_prompts
from backend.priors.prior import Conditioning, Prior
from backend.representations.representation import Representation
from backend.representations.textured_mesh import TexturedMesh
from protocol.losses import RegionSettings


@dataclass(frozen=True, eq=False)
class Turn:
    """One prompt (empty: the job's) and how much of its pull each vertex [V] and texel [H, W] takes; None: all of it."""

    prompt: str
    vertices: Tensor | None = None
    texels: Tensor | None = None


def make_turns(regions: Regions, representation: Representation) -> list[Turn]:
    """One turn for each distinct prompt, which in step k of a stage is that of number k modulo their count.

    The weights of all turns are, at each vertex and texel of a region, their count in sum: a turn comes as rarely as there
    are many, so that the mean over a round is the blend of the prompts' pulls.
    """
    prompts = distinct_prompts(regions.prompts)
    if len(prompts) == 1:
        return [Turn(prompts[0])]
    device = representation.vertices().device
    vertices = _shares(regions.prompts, regions.vertices).to(device)
    if not isinstance(representation, TexturedMesh):
        return [Turn(prompt, share) for prompt, share in zip(prompts, vertices)]
    texels = _shares(regions.prompts, torch.stack(regions.texels)).to(device)
    return [Turn(*each) for each in zip(prompts, vertices, texels)]


def _shares(prompts: tuple[str, ...], masks: Tensor) -> Tensor:
    """Masks [R, ...] of regions as weights [G, ...] of their distinct prompts; 0 outside all regions."""
    distinct = distinct_prompts(prompts)
    total = masks.sum(0).clamp_min(1e-12)
    own = [torch.tensor([prompt == each for each in prompts]) for prompt in distinct]
    return torch.stack([len(distinct) * masks[chosen].sum(0) / total for chosen in own])


def let_through(turn: Turn | None, representation: Representation) -> None:
    """From now on backward passes bring a turn's share of their gradient; None: all of it."""
    weights = (None, None) if turn is None else (turn.vertices, turn.texels)
    if isinstance(representation, TexturedMesh):
        representation.weigh_gradients(*weights)
    else:
        representation.weigh_gradients(weights[0])


def conditionings_of(regions: Sequence[RegionSettings], aim: Aim, prior: Prior) -> Mapping[str, Conditioning]:
    """What the prior understands by the job's prompt, under "", and by each prompt of a region that has one of its own.

    Raises:
        InputError: the prior does not know a word.
    """
    own = distinct_prompts([region.prompt.strip() for region in regions])
    return {prompt: prior.encode_prompt(prompt or aim.prompt, aim.negative_prompt) for prompt in ("", *own)}
