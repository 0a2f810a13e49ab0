"""What `galatea evaluate` judges: results of the prior as it is, its own 3D guess, and what must fail.

Each is a function from a prompt and a seed to a mesh, as `backend.evaluation.evaluate` asks for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from backend.errors import InputError
from backend.optimize.events import Finished
from backend.optimize.run import run_job
from backend.priors.prior import Conditioning
from backend.priors.toybox import ToyboxPrior
from backend.representations.convert import grid_to_mesh
from backend.representations.density_grid import DensityGrid
from backend.representations.mesh_data import MeshData
from backend.toybox.captions import VOCABULARY
from backend.toybox.model import ToyboxModel
from protocol.settings import GridStage, JobSettings

Generate = Callable[[str, int], MeshData]

_PLACEHOLDER = "nothing"
"""The settings tree takes no empty prompt; `EmptyPrompt` says what this one stands for."""


def distilled(settings: JobSettings, prior: ToyboxPrior) -> Generate:
    """Meshes as `galatea generate` makes them, with `settings` but for prompt and seed."""

    def generate(prompt: str, seed: int) -> MeshData:
        job = msgspec.structs.replace(settings, prompt=prompt or _PLACEHOLDER, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            for event in run_job(job, None, prior, Path(folder)):
                if isinstance(event, Finished):
                    return event.mesh
        raise RuntimeError("the job ended without a result")

    return generate


def own_guess(settings: JobSettings, prior: ToyboxPrior) -> Generate:
    """The prior's coarse 3D guess as a mesh, without any distillation.

    It goes through the same conversion as an optimized grid, so that the difference is what distillation adds.
    """
    stage = next((stage for stage in settings.stages if isinstance(stage, GridStage)), GridStage(steps=1))

    @torch.no_grad()
    def generate(prompt: str, seed: int) -> MeshData:
        tensors = prior.encode_prompt(prompt, "").tensors
        grid = DensityGrid(stage)
        size = grid.density_logits.shape
        density = torch.nn.functional.interpolate(tensors["density"][:1], size, mode="trilinear", align_corners=True)
        parts = torch.nn.functional.interpolate(tensors["parts"][:1], size, mode="trilinear", align_corners=True)
        colors = prior.model.template._sample_colors(parts[0].permute(1, 2, 3, 0), tensors["colors"][0])
        grid.density_logits.copy_(density[0, 0])
        grid.color_logits.copy_(torch.logit(colors.clamp(0.01, 0.99)))
        return grid_to_mesh(grid, stage.target_vertices)

    return generate


def untrained(seed: int) -> ToyboxPrior:
    """The same networks with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ToyboxModel.new(list(VOCABULARY))
    for network in model.networks():
        network.eval().requires_grad_(False)
    return ToyboxPrior(model, "untrained")


class EmptyPrompt(ToyboxPrior):
    """The trained prior asked for nothing: what it draws without any words."""

    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative: str) -> Conditioning:
        if prompt != _PLACEHOLDER:
            raise InputError(f"This control takes no prompt, and {prompt!r} was given.")
        text = self.model.encode(["", ""])
        density, parts, colors = self.model.template.volume(text.tokens, text.mask, text.pooled)
        tensors = {"tokens": text.tokens, "mask": text.mask, "pooled": text.pooled}
        return Conditioning("", "", tensors | {"density": density, "parts": parts, "colors": colors})
