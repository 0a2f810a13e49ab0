"""What a job tells about itself: the right numbers, the same ones after a resume, and not a bit of the result changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from scipy import stats

from backend.optimize import diagnostics
from backend.optimize.diagnostics import Diagnostics
from backend.optimize.events import CheckpointSaved, Diagnosed, Event, Finished, StepDone
from backend.optimize.observation import camera_inside
from backend.optimize.run import run_job
from backend.optimize.stages import RunningStage, begin_stage
from backend.optimize.step import distill_step
from backend.optimize.surfaces import SurfaceNow
from backend.optimize.uniformity import ViewCounts, chi_squared_survival
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.representations.primitives import icosphere
from protocol.settings import Constant, GridStage, GuidanceSettings, JobSettings, MeshStage

SIZE = 16
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
GRID = GridStage(steps=7, resolution=12, samples_per_ray=16, guidance=GUIDANCE, target_vertices=120)
MESH = MeshStage(steps=8, guidance=GUIDANCE, remesh_every=5, target_vertices=120, laplacian=1.0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    """Four views of a colored disk."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.25).float()
    bright = (disk * torch.tensor([0.9, 0.2, 0.1])[:, None, None] + (1 - disk) * 0.5) * 2 - 1
    return GaussianMixturePrior({"disk": Component(bright.expand(4, 3, SIZE, SIZE), 0.2)}, linear_alphas_cumprod())


def settings(**changes: object) -> JobSettings:
    quiet = JobSettings(prompt="disk", stages=(GRID, MESH), seed=4, prior="analytic", checkpoint_seconds=1e6, preview_seconds=1e6)
    return msgspec.structs.replace(quiet, **changes)


def observed_step(running: RunningStage, prior: GaussianMixturePrior):
    return distill_step(running, 0.0, 0.5, prior, prior.encode_prompt("disk", ""), torch.Generator().manual_seed(3), observed=True)


def whole_gradient(numbers: dict[str, float]) -> float:
    return float(np.linalg.norm([value for name, value in numbers.items() if name.startswith("gradient_") and name != "gradient_rms"]))


def test_gradients_of_terms_are_those_of_finite_differences(prior: GaussianMixturePrior) -> None:
    """Along its own gradient a term rises by the gradient's norm."""
    running = begin_stage(GRID, None, CPU)
    norms = observed_step(begin_stage(GRID, None, CPU), prior).observation.gradients
    logits = running.representation.density_logits
    (gradient,) = torch.autograd.grad(running.regularizers(0.0)["total_variation"], logits)
    along, size = gradient / gradient.norm(), 1e-2

    def at(offset: float) -> float:
        with torch.no_grad():
            logits.add_(offset * along)
            value = float(running.regularizers(0.0)["total_variation"])
            logits.sub_(offset * along)
        return value

    assert norms["total_variation"] == pytest.approx((at(size) - at(-size)) / (2 * size), rel=0.01)


@pytest.mark.parametrize("stage", [GRID, MESH], ids=["grid", "mesh"])
def test_the_distillation_has_the_gradient_of_a_step_without_anything_else(prior: GaussianMixturePrior, stage) -> None:
    weightless = {name: 0.0 for name in ("opacity_entropy", "total_variation", "laplacian") if hasattr(stage, name)}
    alone = begin_stage(msgspec.structs.replace(stage, **weightless), icosphere(2), CPU)
    record = observed_step(begin_stage(stage, icosphere(2), CPU), prior)
    norms = record.observation.gradients
    assert set(norms) == {"distillation", *(name for name, weight in weightless.items() if getattr(stage, name))} == set(record.losses)
    assert norms["distillation"] == pytest.approx(whole_gradient(observed_step(alone, prior).numbers), rel=1e-3)
    assert all(norm > 0 for norm in norms.values())


def test_updates_are_what_has_changed(prior: GaussianMixturePrior) -> None:
    running = begin_stage(MESH, icosphere(2), CPU)
    vertices, colors = running.representation.vertices().detach().clone(), running.representation.colors.detach().clone()
    seen = observed_step(running, prior).observation
    moved = (running.representation.vertices().detach() - vertices).norm(dim=1).square().mean().sqrt()
    assert seen.updates["positions"] == pytest.approx(float(moved), rel=1e-5) and moved > 0
    changed = (running.representation.colors.detach() - colors).square().mean().sqrt()
    assert seen.updates["colors"] == pytest.approx(float(changed), rel=1e-5)
    a, b = vertices[icosphere(2).faces[:, 0]], vertices[icosphere(2).faces[:, 1]]
    assert seen.edge == pytest.approx(float((a - b).norm(dim=1).median()), rel=0.1)
    assert seen.update_edges == pytest.approx(float(moved) / seen.edge, rel=1e-5)


def told(events: Iterator[Event]) -> tuple[list[Diagnosed], list[StepDone], Finished]:
    seen = list(events)
    diagnoses = [event for event in seen if isinstance(event, Diagnosed)]
    return diagnoses, [event for event in seen if isinstance(event, StepDone)], seen[-1]


def test_histograms_are_those_of_the_steps(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    diagnoses, steps, _ = told(run_job(settings(), None, prior, tmp_path))
    for diagnosed in diagnoses:
        done = [step for step in steps if step.step <= diagnosed.step]
        azimuths = [azimuth for step in done for azimuth in step.azimuths]
        assert diagnosed.azimuths == tuple(np.histogram(azimuths, bins=12, range=(0, 360))[0])
        assert diagnosed.timesteps == tuple(np.histogram([step.timestep for step in done], bins=10, range=(0, 1))[0])
        assert sum(diagnosed.loss_shares.values()) == pytest.approx(1) and sum(diagnosed.gradient_shares.values()) == pytest.approx(1)
    assert [diagnosed.step for diagnosed in diagnoses] == [1, 7, 8, 15]  # at each stage's first step and at its end
    last = [abs(step.numbers["laplacian"]) for step in steps[8:]]
    whole = sum(last) + sum(abs(step.numbers["distillation"]) for step in steps[8:])
    assert diagnoses[-1].loss_shares["laplacian"] == pytest.approx(sum(last) / whole)


def test_observing_and_asking_change_nothing(
    prior: GaussianMixturePrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never, and at every step, with the prior asked as often as it can be."""
    meshes = []
    for name, every, apart in (("never", 1000, 1000), ("always", 1, 1)):
        monkeypatch.setattr(Diagnostics, "is_due", staticmethod(lambda within, every=every: within % every == every - 1))
        monkeypatch.setattr(diagnostics, "steps_between_readings", lambda stage, prior, apart=apart: apart)
        (tmp_path / name).mkdir()
        diagnoses, _, last = told(run_job(settings(), None, prior, tmp_path / name))
        meshes.append(last.mesh)
        assert len(diagnoses) == (2 if name == "never" else 17)
    never, always = meshes
    assert np.array_equal(never.positions, always.positions) and np.array_equal(never.faces, always.faces)
    assert np.array_equal(never.colors, always.colors)


@pytest.mark.parametrize("killed_after", [4, 7, 11])
def test_a_resumed_job_tells_what_an_undisturbed_one_does(
    prior: GaussianMixturePrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    monkeypatch.setattr(diagnostics, "EVERY", 4)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    job = settings(checkpoint_seconds=1e-6)
    whole, _, end = told(run_job(job, None, prior, tmp_path / "whole"))
    events = run_job(job, None, prior, tmp_path / "killed")
    saved = (event.step for event in events if isinstance(event, CheckpointSaved))
    assert killed_after in islice(saved, killed_after)
    del events
    rest, _, resumed_end = told(run_job(job, None, prior, tmp_path / "killed", resume=True))
    assert rest == [each for each in whole if each.step > killed_after or (each.step == killed_after == 7)]
    assert np.array_equal(end.mesh.positions, resumed_end.mesh.positions)


def test_survival_is_scipys() -> None:
    for degrees in (1, 2, 8, 11, 3.7):
        for statistic in (0.1, 2.0, 11.0, 40.0):
            assert chi_squared_survival(statistic, degrees) == pytest.approx(stats.chi2.sf(statistic, degrees), rel=1e-9)


def ring(generator: np.random.Generator) -> np.ndarray:
    return (generator.random() * 360 + 90 * np.arange(4)) % 360


def stratified(generator: np.random.Generator) -> np.ndarray:
    return (np.arange(4) + generator.random(4)) * 90


def independent(generator: np.random.Generator) -> np.ndarray:
    return generator.random(4) * 360


@pytest.mark.parametrize("draw", [ring, stratified, independent])
def test_p_values_of_uniform_views_are_uniform(draw) -> None:
    """However the views of a step hang together; the plain test would be wrong for rings and for stratified views."""
    generator = np.random.default_rng(1)
    values = []
    for _ in range(300):
        counts = ViewCounts()
        for _ in range(60):
            counts.add(draw(generator))
        values.append(counts.uniformity())
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.035)


def test_views_from_one_side_are_not_uniform() -> None:
    generator = np.random.default_rng(2)
    counts = ViewCounts()
    assert counts.uniformity() == 1.0
    for _ in range(30):
        counts.add(stratified(generator) / 2)
    assert counts.uniformity() < 1e-6
    again = ViewCounts()
    again.load_state_dict(counts.state_dict())
    assert again.uniformity() == counts.uniformity()


def test_inside_is_inside() -> None:
    ball = icosphere(2)
    surface = SurfaceNow(torch.from_numpy(ball.positions), torch.from_numpy(ball.faces), torch.zeros(0, 2))
    assert camera_inside(torch.tensor([[0.0, 0.0, 5.0], [0.2, -0.3, 0.2]]), surface)
    assert not camera_inside(torch.tensor([[0.0, 0.0, 5.0], [0.0, 1.2, 0.0]]), surface)
    pole = SurfaceNow(surface.vertices * torch.tensor([8.0, 0.1, 0.1]), surface.faces, surface.edges)
    assert not camera_inside(torch.tensor([[0.0, 0.0, 3.0]]), pole)  # nearer than its tip, but beside it
