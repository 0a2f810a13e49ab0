"""Regions with prompts of their own: one prompt a step by turns, or all of them in every step?

A gray ball, its upper half to become green and its lower half red, with a prior whose answer is known. What costs is asking
the prior, so the two are compared after as many of its answers: how far the colors of each half have come, and how much of
the other's pull is in them.

    python -m benchmarks.region_prompts
"""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import torch

from backend.optimize.inputs import Inputs, RegionMask
from backend.optimize.objectives import Job
from backend.optimize.region_prompts import Turn, conditionings_of
from backend.optimize.control import Aim
from backend.optimize.regions import regions_of
from backend.optimize.stages import RunningStage, begin_stage
from backend.optimize.step import distill_step
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.representations.primitives import icosphere
from protocol.settings import Constant, GuidanceSettings, JobSettings, MeshStage, RegionSettings

SIZE = 16
COLORS = {"green": (0.1, 0.9, 0.1), "red": (0.9, 0.1, 0.1)}
ANSWERS = (16, 32, 64)
SEEDS = 3


def make_prior() -> GaussianMixturePrior:
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.4).float()
    means = {name: (disk * torch.tensor(color)[:, None, None] + (1 - disk) * 0.5) * 2 - 1 for name, color in COLORS.items()}
    components = {name: Component(mean.expand(4, 3, SIZE, SIZE), 0.2) for name, mean in means.items()}
    return GaussianMixturePrior(components, linear_alphas_cumprod())


def run(every_prompt: bool, steps: int, seed: int, prior: GaussianMixturePrior) -> RunningStage:
    guidance = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
    stage = MeshStage(steps, guidance=guidance, color_rate=Constant(0.02), learns="material")
    start = icosphere(3)
    up = (start.positions[:, 1] > 0.0).astype(np.float32)
    settings = JobSettings("red", (stage,), seed=seed, strength=1.0, regions=(RegionSettings("green"), RegionSettings("red")))
    job = Job(settings, Inputs(start, (), (RegionMask(up), RegionMask(1.0 - up))), prior)
    running = begin_stage(stage, start, torch.device("cpu"), job=job, regions=regions_of(job))
    asked = conditionings_of(settings.regions, Aim("red", "", 1.0), prior)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        if every_prompt:
            _all_turns(running, step / steps, prior, asked, generator)
        else:
            distill_step(running, step / steps, 1.0, prior, asked[""], generator, asked)
    return running


def _all_turns(running: RunningStage, progress: float, prior: GaussianMixturePrior, asked: dict, generator: torch.Generator) -> None:
    """One step of the optimizers along the sum of all prompts' gradients, each held to its own."""
    turns = running.turns
    for number, turn in enumerate(turns):
        own = Turn(turn.prompt, turn.vertices / len(turns))
        keep = patch.object(running, "clear_gradients", lambda: None) if number else patch.object(running, "stage", running.stage)
        wait = patch.object(running, "move", dict) if number + 1 < len(turns) else patch.object(running, "stage", running.stage)
        with patch.object(running, "turn", lambda progress: own), keep, wait:
            distill_step(running, progress, 1.0, prior, asked[""], generator, asked)


def main() -> None:
    torch.set_num_threads(1)
    prior, y = make_prior(), icosphere(3).positions[:, 1]
    seen = np.abs(y) < 0.35
    wanted = np.where(y[:, None] > 0.0, COLORS["green"], COLORS["red"])
    print("| answers of the prior | one prompt a step: error of the colors | all in every step |\n|---|---|---|")
    for answers in ANSWERS:
        cells = []
        for every_prompt in (False, True):
            errors = []
            for seed in range(SEEDS):
                running = run(every_prompt, answers // 2 if every_prompt else answers, seed, prior)
                colors = running.to_mesh().colors
                errors.append(np.abs(colors - wanted)[seen].mean())
            cells.append(f"{np.mean(errors):.3f} ± {np.std(errors):.3f}")
        print(f"| {answers} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
