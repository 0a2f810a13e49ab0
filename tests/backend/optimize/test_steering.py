"""Changing a job's aim under way: what it does, what it leaves alone, and that a kill does not undo it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from backend.errors import InputError
from backend.optimize.control import Control
from backend.optimize.events import CheckpointSaved, Event, Finished, Preview, Steered, StepDone, Warned
from backend.optimize.run import run_job
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from protocol.settings import Constant, GuidanceSettings, JobSettings, MeshStage

SIZE = 16
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
STAGE = MeshStage(steps=40, guidance=GUIDANCE, position_rate=Constant(0.02), color_rate=Constant(0.05))


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    """Four views of a red disk or of a green one on gray."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.25).float()

    def picture(color: tuple[float, float, float]) -> torch.Tensor:
        image = (disk * torch.tensor(color)[:, None, None] + (1 - disk) * 0.5) * 2 - 1
        return image.expand(4, 3, SIZE, SIZE)

    components = {"red": Component(picture((0.9, 0.1, 0.1)), 0.2), "green": Component(picture((0.1, 0.9, 0.1)), 0.2)}
    return GaussianMixturePrior(components, linear_alphas_cumprod())


def settings(**changes: object) -> JobSettings:
    job = JobSettings(prompt="red", stages=(STAGE,), prior="analytic", checkpoint_seconds=1e6, preview_seconds=1e6)
    return msgspec.structs.replace(job, **changes)


def result(events: list[Event]) -> MeshData:
    assert isinstance(events[-1], Finished)
    return events[-1].mesh


def steered_run(prior: GaussianMixturePrior, folder: Path, after: int, job: JobSettings, **change: object) -> list[Event]:
    control, seen = Control(), []
    for event in run_job(job, icosphere(2), prior, folder, control):
        seen.append(event)
        if isinstance(event, StepDone) and event.step == after:
            control.steer(**change)
    return seen


def greenness(mesh: MeshData) -> float:
    return float((mesh.colors[:, 1] - mesh.colors[:, 0]).mean())


def test_another_prompt_another_color(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    red = list(run_job(settings(), icosphere(2), prior, tmp_path))
    seen = steered_run(prior, tmp_path, 5, settings(), prompt="green")
    assert [event for event in seen if isinstance(event, Steered)] == [Steered(5, "green", "", 0.5)]
    assert greenness(result(red)) < -0.1 < 0.1 < greenness(result(seen))


def test_unknown_prompt_is_warned_of_and_changes_nothing(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    plain = list(run_job(settings(), icosphere(2), prior, tmp_path))
    seen = steered_run(prior, tmp_path, 5, settings(), prompt="a dragon")
    assert any(isinstance(event, Warned) and "goes on" in event.message for event in seen)
    assert np.array_equal(result(seen).positions, result(plain).positions)
    assert np.array_equal(result(seen).colors, result(plain).colors)


def test_unknown_prompt_from_the_start_is_an_error(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        next(run_job(settings(prompt="a dragon"), icosphere(2), prior, tmp_path))


def test_up_to_a_strength_of_a_fifth_only_colors_change(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start, changes = icosphere(2), []
    for strength in (0.01, 0.2):
        still = result(list(run_job(settings(strength=strength), start, prior, tmp_path)))
        assert still.positions.tobytes() == start.positions.tobytes()
        changes.append(np.abs(still.colors - 0.5).mean())
    assert 0.01 < changes[0] < 0.6 * changes[1]


def test_more_strength_moves_farther(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = icosphere(2)
    short = settings(stages=(msgspec.structs.replace(STAGE, steps=5),))
    moved = [
        float(np.abs(result(list(run_job(msgspec.structs.replace(short, strength=s), start, prior, tmp_path))).positions - start.positions).max())
        for s in (0.25, 0.5, 1.0)
    ]
    assert moved[0] < moved[1] < moved[2]


def test_strength_can_be_steered(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    seen = steered_run(prior, tmp_path, 1, settings(), strength=0.0)
    first = list(run_job(settings(stages=(msgspec.structs.replace(STAGE, steps=1),)), icosphere(2), prior, tmp_path))
    # Momentum has no say at a rate of 0: what the first step did is all that has changed.
    assert np.array_equal(result(seen).positions, result(first).positions)
    assert np.array_equal(result(seen).colors, result(first).colors)
    colored = result(steered_run(prior, tmp_path, 1, settings(), strength=0.2))
    assert np.array_equal(colored.positions, result(first).positions)
    assert np.abs(colored.colors - result(first).colors).max() > 0.1


def test_aim_survives_a_kill(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    whole = steered_run(prior, tmp_path / "x", 5, settings(), prompt="green", strength=0.8)
    control = Control()
    for event in run_job(settings(checkpoint_seconds=1e-6), icosphere(2), prior, tmp_path, control):
        if isinstance(event, StepDone) and event.step == 5:
            control.steer(prompt="green", strength=0.8)
        if isinstance(event, CheckpointSaved) and event.step == 9:
            break  # abandoning the generator is what a kill does
    rest = list(run_job(settings(), icosphere(2), prior, tmp_path, resume=True))
    assert np.array_equal(result(rest).positions, result(whole).positions)
    assert np.array_equal(result(rest).colors, result(whole).colors)


def test_preview_when_asked(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    control, seen = Control(), []
    for event in run_job(settings(), icosphere(2), prior, tmp_path, control):
        if isinstance(event, Preview):
            seen.append(event.step)
        if isinstance(event, StepDone) and event.step in (7, 20):
            control.ask_preview()
    # A request made while step 7 is being looked at is answered with that very step.
    assert seen == [1, 7, 20]
