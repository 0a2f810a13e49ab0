"""How `galatea evaluate` makes the meshes that are judged: distilled, the prior's own guess, or by crippled priors."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate, softplus

from backend.errors import InputError
from backend.evaluation.evaluate import (
    EMPTY_PROMPT,
    RANDOM_WEIGHTS,
    WRONG_PROMPT,
    Generate,
    Trial,
    baseline_trials,
    ceiling_trials,
    control_trials,
    result_trials,
    true_object,
)
from backend.optimize.events import Finished
from backend.optimize.run import run_job
from backend.priors import load_prior
from backend.priors.prior import Conditioning
from backend.priors.toybox import ToyboxPrior
from backend.recipes import load_recipe
from backend.representations.convert import grid_to_mesh
from backend.representations.density_grid import DENSITY_SCALE, DensityGrid
from backend.representations.mesh_data import MeshData
from backend.toybox.captions import VOCABULARY
from backend.toybox.model import ToyboxModel
from backend.toybox.template import DENSITY_SCALE as TEMPLATE_SCALE
from protocol.settings import GridStage, JobSettings

TARGET_VERTICES = 2500


def trials_of(part: str, prior_name: str, recipe: str, seeds: int, threads: int) -> tuple[list[Trial], Generate]:
    """The trials of one part and what makes their meshes.

    Args:
        part: "results", "baseline", "true-objects", "wrong-prompt", "empty-prompt" or "random-weights".
    Raises:
        InputError: the prior is no toybox, or there is no such prior or recipe.
    """
    if part == "true-objects":
        return ceiling_trials(), true_object
    prior = load_prior(prior_name, "cpu")
    if not isinstance(prior, ToyboxPrior):
        raise InputError(f"The judge only knows what toybox knows, and {prior_name} is another kind of prior.")
    if part == "results":
        return result_trials(tuple(range(seeds))), distilled(prior, recipe, threads)
    if part == "baseline":
        return baseline_trials(), own_guess(prior)
    if part == "wrong-prompt":
        return control_trials(WRONG_PROMPT), distilled(prior, recipe, threads)
    if part == "empty-prompt":
        return control_trials(EMPTY_PROMPT), distilled(WithoutPrompt(prior.model, prior.name), recipe, threads)
    return control_trials(RANDOM_WEIGHTS), distilled(untrained(0), recipe, threads)


def distilled(prior: ToyboxPrior, recipe: str, threads: int) -> Generate:
    """The whole job, as `galatea generate` runs it."""
    stages = load_recipe(recipe).stages

    def generate(prompt: str, seed: int) -> MeshData:
        # The settings tree takes no empty prompt; the control that is given one does not read it.
        settings = JobSettings(prompt or "nothing", stages, seed=seed, recipe=recipe, threads=threads)
        with tempfile.TemporaryDirectory() as folder:
            *_, last = run_job(settings, None, prior, Path(folder))
        assert isinstance(last, Finished)
        return last.mesh

    return generate


class WithoutPrompt(ToyboxPrior):
    """A control: the trained prior, told nothing about what to make."""

    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative: str) -> Conditioning:
        text = self.model.encode(["", ""])
        density, parts, colors = self.model.template.volume(text.tokens, text.mask, text.pooled)
        tensors = {"tokens": text.tokens, "mask": text.mask, "pooled": text.pooled}
        return Conditioning(prompt, negative, tensors | {"density": density, "parts": parts, "colors": colors})


def untrained(seed: int) -> ToyboxPrior:
    """A control: the same networks with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ToyboxModel.new(list(VOCABULARY))
    for network in model.networks():
        network.eval().requires_grad_(False)
    return ToyboxPrior(model, "untrained")


def own_guess(prior: ToyboxPrior) -> Generate:
    """The baseline: the prior's own 3D guess, meshed by the same converter without any distillation."""

    @torch.no_grad()
    def generate(prompt: str, seed: int) -> MeshData:
        tensors = prior.encode_prompt(prompt, "").tensors
        grid = DensityGrid(GridStage(steps=1))
        size = (grid.settings.resolution,) * 3
        density = interpolate(tensors["density"][:1], size, mode="trilinear", align_corners=True)[0, 0]
        parts = interpolate(tensors["parts"][:1], size, mode="trilinear", align_corners=True)[0]
        colors = prior.model.template.sample_colors(parts.permute(1, 2, 3, 0), tensors["colors"][0])
        grid.density_logits.copy_(_density_logits(density))
        grid.color_logits.copy_(torch.logit(colors.clamp(0.01, 0.99)))
        return grid_to_mesh(grid, TARGET_VERTICES)

    return generate


def _density_logits(template: Tensor) -> Tensor:
    """The grid's logits of the density that the template's logits stand for: both activate by a scaled softplus."""
    target = softplus(template) * (TEMPLATE_SCALE / DENSITY_SCALE)
    return torch.where(target > 15.0, target, torch.log(torch.expm1(target.clamp(1e-6, 15.0))))
