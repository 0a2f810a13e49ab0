"""Several objects in one stage: candidates and particles, how the prior chooses, and that a kill changes nothing."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.errors import InputError
from backend.optimize import population as population_module
from backend.optimize.events import CheckpointSaved, Chosen, Event, Finished, StepDone
from backend.optimize.inputs import Inputs
from backend.optimize.liking import prior_error
from backend.optimize.objectives import Job
from backend.optimize.population import Population, begin_population, trial_steps, work_left
from backend.optimize.run import run_job
from backend.optimize.stages import begin_stage
from backend.optimize.starts import smooth_noise, vary
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from protocol.settings import (
    Constant,
    FieldStage,
    GridStage,
    GuidanceSettings,
    JobSettings,
    MeshStage,
    Selection,
    Stage,
    TetrahedraStage,
    Vsd,
)

SIZE = 12
CPU = torch.device("cpu")
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
PARTICLES = msgspec.structs.replace(GUIDANCE, method=Vsd(particles=3, warmup=2))
GRID = GridStage(steps=6, resolution=10, samples_per_ray=12, guidance=GUIDANCE, target_vertices=100)
MESH = MeshStage(steps=4, guidance=GUIDANCE, supersample=1, target_vertices=100, remesh_every=2)
SELECTED = msgspec.structs.replace(GRID, selection=Selection(3, 0.5))


class FakeTraining:
    """Stands for VSD's network: one number that learns from every step, and says whether it was taken out again."""

    made: list[FakeTraining] = []

    def __init__(self, warmup: int) -> None:
        self.warmup, self.weight, self.steps, self.closed = warmup, 0.5, 0, False
        self.adapter = self
        self.made.append(self)

    @property
    def warming_up(self) -> bool:
        return self.steps < self.warmup

    def predict(self, denoiser: object, noisy: Tensor, t: Tensor) -> Tensor:
        return self.weight * noisy

    def train(self, latents: Tensor, denoiser: object, generator: torch.Generator) -> dict[str, float]:
        self.weight += 0.01 * float(torch.rand((), generator=generator)) * float(latents.detach().mean())
        self.steps += 1
        return {"adapter_loss": self.weight}

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight, self.steps = state["weight"], state["steps"]

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def fake_training(monkeypatch: pytest.MonkeyPatch) -> list[FakeTraining]:
    def make(stage: Stage, prior: object, seed: int) -> FakeTraining | None:
        method = stage.guidance.method
        return FakeTraining(method.warmup) if isinstance(method, Vsd) else None

    monkeypatch.setattr(population_module, "make_auxiliary", make)
    monkeypatch.setattr(FakeTraining, "made", [])
    return FakeTraining.made


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.25).float()
    color = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    picture = (disk * color + (1 - disk) * 0.5) * 2 - 1
    return GaussianMixturePrior({"disk": Component(picture.expand(4, 3, SIZE, SIZE), 0.2)}, linear_alphas_cumprod())


def job(*stages: Stage, **changes: object) -> JobSettings:
    settings = JobSettings(prompt="disk", stages=stages, seed=4, prior="analytic", checkpoint_seconds=1e6, preview_seconds=1e6)
    return msgspec.structs.replace(settings, **changes)


def run(settings: JobSettings, prior: GaussianMixturePrior, folder: Path, **more: object) -> list[Event]:
    folder.mkdir(exist_ok=True)
    return list(run_job(settings, None, prior, folder, **more))


def result(events: list[Event]) -> MeshData:
    assert isinstance(events[-1], Finished)
    return events[-1].mesh


def same(a: MeshData, b: MeshData) -> bool:
    return all(np.array_equal(x, y) for x, y in ((a.positions, b.positions), (a.faces, b.faces), (a.colors, b.colors)))


def job_of(stage: Stage, prior: GaussianMixturePrior, seed: int) -> Job:
    return Job(JobSettings(prompt="a ball", stages=(stage,), seed=seed), Inputs(icosphere(2)), prior)


def begin(stage: Stage, prior: GaussianMixturePrior, seed: int = 4) -> Population:
    return begin_population(stage, 0, icosphere(2), job_of(stage, prior, seed))


def density(population: Population, number: int) -> Tensor:
    return population.members[number].running.representation.density_logits.detach()


# ---- what the prior likes


def ball(radius: float, color: tuple[float, float, float]) -> MeshData:
    mesh = icosphere(3)
    colors = np.broadcast_to(np.float32(color), mesh.positions.shape)
    directions = mesh.positions / np.linalg.norm(mesh.positions, axis=1, keepdims=True)
    return MeshData(np.float32(radius) * directions, mesh.faces, np.ascontiguousarray(colors))


def test_the_prior_likes_what_it_was_made_of(prior: GaussianMixturePrior) -> None:
    """The mode is a red disk of half the picture: the right size and color are liked best, and both matter."""
    conditioning = prior.encode_prompt("disk", "")
    # In the standard camera a ball of radius .5 fills about half of the picture; its middle is lit a little less than white.
    balls = {"right": ball(0.5, (1.0, 0.22, 0.11)), "gray": ball(0.5, (0.5, 0.5, 0.5)), "large": ball(0.9, (1.0, 0.22, 0.11))}
    errors = {
        name: prior_error(begin_stage(MESH, mesh, CPU).representation, MESH, 0.5, prior, conditioning)
        for name, mesh in balls.items()
    }
    assert errors["right"] < min(errors["gray"], errors["large"])


def test_asking_the_prior_draws_nothing_and_changes_nothing(prior: GaussianMixturePrior) -> None:
    representation, conditioning = begin_stage(GRID, None, CPU).representation, prior.encode_prompt("disk", "")
    before, seeds = representation.state_dict(), torch.get_rng_state()
    first = prior_error(representation, GRID, 0.5, prior, conditioning)
    assert first == prior_error(representation, GRID, 0.5, prior, conditioning)
    assert torch.equal(torch.get_rng_state(), seeds)
    after = representation.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert float(representation.regularization({"sparsity"})["sparsity"]) == 0.0  # not a render to learn from


# ---- beginnings


@pytest.mark.parametrize(
    "stage",
    [
        GRID,
        FieldStage(steps=2, resolution=16, samples_per_ray=12),
        TetrahedraStage(steps=2, resolution=8, supersample=1),
        MESH,
    ],
    ids=["grid", "field", "tetrahedra", "mesh"],
)
def test_varied_beginnings_differ_and_are_still_objects(stage: Stage) -> None:
    cameras, alphas = Cameras.orbit([0.0, 120.0, 240.0], 15.0), []
    for seed in (None, 1, 2, 1):
        representation = begin_stage(stage, ball(0.5, (0.5, 0.5, 0.5)), CPU).representation
        if seed is not None:
            vary(representation, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            alphas.append(representation.render(cameras, 24, None, "albedo").alpha)
    plain, first, second, again = alphas
    assert torch.equal(first, again)
    for one, other in ((plain, first), (plain, second), (first, second)):
        assert 0.005 < float((one - other).abs().mean()) < 0.15
    for alpha in (first, second):
        assert float(alpha.mean()) == pytest.approx(float(plain.mean()), rel=0.5) and float(alpha.max()) > 0.9


def test_a_locked_mesh_begins_with_its_bits() -> None:
    stage = msgspec.structs.replace(MESH, remesh_every=0)
    running = begin_stage(stage, icosphere(2), CPU)
    vary(running.representation, torch.Generator().manual_seed(1))
    assert np.array_equal(running.to_mesh().positions, icosphere(2).positions)


def test_smooth_noise_has_unit_variance_and_is_smooth() -> None:
    line = torch.linspace(-1, 1, 64)[:, None] * torch.tensor([[1.0, 0.0, 0.0]])
    values = torch.stack([smooth_noise(line, 2, torch.Generator().manual_seed(seed)) for seed in range(200)])
    assert float(values.square().mean()) == pytest.approx(1.0, abs=0.1)
    jumps = (values[:, 1:] - values[:, :-1]).square().mean().sqrt()
    assert float(jumps) == pytest.approx(3.0 * 2 / 63, rel=0.15)  # the deviation of the frequencies times the spacing


# ---- candidates


def test_candidates_run_side_by_side_until_the_best_goes_on(prior: GaussianMixturePrior) -> None:
    population, generator = begin(SELECTED, prior), torch.Generator().manual_seed(0)
    conditioning, seeds = prior.encode_prompt("disk", ""), generator.get_state()
    assert len(population.members) == 3 and trial_steps(SELECTED) == 3
    plain = begin_stage(GRID, None, CPU).representation.density_logits
    assert torch.equal(density(population, 0), plain)
    assert not torch.equal(density(population, 1), density(population, 2))
    for within in range(3):
        assert not population.is_to_choose(within)
        before = [density(population, number).clone() for number in range(3)]
        population.step(within, 0.5, prior, conditioning, generator)
        assert all(not torch.equal(before[number], density(population, number)) for number in range(3))
    assert torch.equal(generator.get_state(), seeds)  # candidates draw from generators of their own
    assert population.is_to_choose(3)
    objects = [member.running for member in population.members]
    best, errors = population.choose(3, prior, conditioning)
    expected = [prior_error(each.representation, SELECTED, 0.5, prior, conditioning) for each in objects]
    assert list(errors) == expected and best == int(np.argmin(expected)) and len(set(errors)) == 3
    assert [member.running for member in population.members] == [objects[best]]
    population.step(3, 0.5, prior, conditioning, generator)
    assert not population.is_to_choose(4)


@pytest.mark.parametrize(("until", "chosen_after"), [(0.0, 0), (0.5, 3), (1.0, 6)])
def test_a_job_tells_what_was_chosen_and_counts_its_steps_as_without(
    prior: GaussianMixturePrior, tmp_path: Path, until: float, chosen_after: int
) -> None:
    stage = msgspec.structs.replace(SELECTED, selection=Selection(3, until))
    events = run(job(stage, MESH), prior, tmp_path)
    (chosen,) = [event for event in events if isinstance(event, Chosen)]
    assert chosen.step == chosen_after and chosen.errors[chosen.chosen] == min(chosen.errors) and len(chosen.errors) == 3
    assert f"number {chosen.chosen + 1} goes on" in chosen.sentence()
    done = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in done] == list(range(1, 11)) and {event.total for event in done} == {10}
    assert work_left(stage, 0) == 6 + 2 * chosen_after and work_left(stage, 4) == 2 + 2 * max(0, chosen_after - 4)


def test_time_left_counts_how_many_move(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    """After the first step of 3 candidates until half of 6 steps: 3 of 12 moves made, 9 are left."""
    first = next(event for event in run_job(job(SELECTED), None, prior, tmp_path) if isinstance(event, StepDone))
    assert first.seconds_left == pytest.approx(3.0 * first.seconds)


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4, 6])
def test_selection_resumes_bit_for_bit(prior: GaussianMixturePrior, tmp_path: Path, killed_after: int) -> None:
    """In the trial, where it was just chosen, after it, and in the stage after it."""
    settings = job(msgspec.structs.replace(SELECTED, ema=0.5), MESH)
    resumes_to_the_same(settings, prior, tmp_path, killed_after)


def resumes_to_the_same(settings: JobSettings, prior: GaussianMixturePrior, folder: Path, killed_after: int) -> None:
    whole = run(settings, prior, folder / "whole")
    (folder / "killed").mkdir()
    eager = run_job(msgspec.structs.replace(settings, checkpoint_seconds=1e-6, preview_seconds=1e-6), None, prior, folder / "killed")
    assert killed_after in islice((event.step for event in eager if isinstance(event, CheckpointSaved)), killed_after)
    eager.close()
    torch.manual_seed(999)
    rest = run(settings, prior, folder / "killed", resume=True)
    assert same(result(rest), result(whole))
    numbers = [event.numbers for event in whole if isinstance(event, StepDone)]
    assert [event.numbers for event in rest if isinstance(event, StepDone)] == numbers[killed_after:]
    chosen = [event for event in whole if isinstance(event, Chosen)]
    assert [event for event in rest if isinstance(event, Chosen)] == [event for event in chosen if event.step > killed_after]


def test_seed_and_stage_give_candidates_their_starts(prior: GaussianMixturePrior) -> None:
    first, again, other = begin(SELECTED, prior), begin(SELECTED, prior), begin(SELECTED, prior, seed=5)
    assert torch.equal(density(first, 1), density(again, 1)) and not torch.equal(density(first, 1), density(other, 1))
    later = begin_population(SELECTED, 1, None, job_of(SELECTED, prior, 4))
    assert not torch.equal(density(first, 1), density(later, 1))


# ---- particles


def test_one_particle_moves_in_each_step_and_all_share_the_network(prior: GaussianMixturePrior) -> None:
    stage = msgspec.structs.replace(GRID, steps=30, guidance=PARTICLES)
    population, generator = begin(stage, prior), torch.Generator().manual_seed(0)
    conditioning, moves = prior.encode_prompt("disk", ""), [0, 0, 0]
    assert {id(member.running.auxiliary) for member in population.members} == {id(population.auxiliary)}
    for within in range(30):
        before = [density(population, number).clone() for number in range(3)]
        record, _ = population.step(within, 0.5, prior, conditioning, generator)
        moved = [not torch.equal(before[number], density(population, number)) for number in range(3)]
        assert sum(moved) == (0 if within < 2 else 1)  # the network warms up in the first two
        assert "adapter_loss" in record.numbers
        moves = [count + one for count, one in zip(moves, moved)]
    assert min(moves) >= 4 and population.auxiliary.steps == 30


def test_the_best_particle_is_the_result_and_the_network_is_taken_out(
    prior: GaussianMixturePrior, tmp_path: Path, fake_training: list[FakeTraining]
) -> None:
    stage = msgspec.structs.replace(GRID, steps=8, guidance=PARTICLES)
    events = run(job(stage, MESH), prior, tmp_path)
    (chosen,) = [event for event in events if isinstance(event, Chosen)]
    assert chosen.step == 8 and len(chosen.errors) == 3 and chosen.errors[chosen.chosen] == min(chosen.errors)
    assert [training.closed for training in fake_training] == [True] and work_left(stage, 0) == 8
    abandoned = run_job(job(stage), None, prior, tmp_path)
    assert any(isinstance(event, StepDone) for event in abandoned)
    abandoned.close()
    assert [training.closed for training in fake_training] == [True, True]


@pytest.mark.parametrize("killed_after", [1, 5, 8])
def test_particles_resume_bit_for_bit(prior: GaussianMixturePrior, tmp_path: Path, killed_after: int) -> None:
    stage = msgspec.structs.replace(GRID, steps=8, guidance=PARTICLES, patience=0.5)
    resumes_to_the_same(job(stage, MESH), prior, tmp_path, killed_after)


def test_waiting_for_the_network_is_no_plateau(prior: GaussianMixturePrior) -> None:
    slow = msgspec.structs.replace(GUIDANCE, method=Vsd(warmup=60))
    stage = msgspec.structs.replace(GRID, steps=100, guidance=slow, patience=0.1)
    population, generator = begin(stage, prior), torch.Generator().manual_seed(0)
    conditioning = prior.encode_prompt("disk", "")
    assert not any(population.step(within, 0.5, prior, conditioning, generator)[1] for within in range(60))


def test_candidates_and_particles_together_are_refused(prior: GaussianMixturePrior) -> None:
    with pytest.raises(InputError, match="3 candidates and VSD 3 particles"):
        begin(msgspec.structs.replace(SELECTED, guidance=PARTICLES), prior)
