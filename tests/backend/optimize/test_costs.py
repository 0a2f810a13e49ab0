"""Costs are measured without touching the job, three step times give back what made them, and the cache forgets in time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from backend.optimize import costs as costs_module
from backend.optimize.costs import coefficients, measure_costs, recall, remember
from backend.optimize.events import Finished
from backend.optimize.inputs import Inputs
from backend.optimize.run import run_job
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.recipes.planner import Costs, StageCost
from backend.representations.primitives import icosphere
from protocol.settings import CameraSettings, GridStage, JobSettings, MeshStage, Selection, StepList

GRID = GridStage(steps=4, resolution=12, samples_per_ray=12, target_vertices=120, selection=Selection(2, 0.5))
MESH = MeshStage(steps=4, remesh_every=2, target_vertices=120, render_size=StepList((0.0, 0.5), (8.0, 16.0)))


@pytest.fixture
def prior() -> GaussianMixturePrior:
    return GaussianMixturePrior({"it": Component(torch.zeros(4, 3, 16, 16), 0.3)}, linear_alphas_cumprod())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(costs_module, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.mark.parametrize(("other_side", "other_views"), [(16, 8), (64, 2), (8, 16)])
def test_three_steps_give_the_three_coefficients(other_side: int, other_views: int) -> None:
    fixed, per_view, per_pixel = 0.03, 0.02, 4e-6

    def seconds(views: int, side: int) -> float:
        return fixed + views * (per_view + side**2 * per_pixel)

    found = coefficients(
        (4, 32, seconds(4, 32)), (4, other_side, seconds(4, other_side)), (other_views, 32, seconds(other_views, 32))
    )
    assert found == pytest.approx((fixed, per_view, per_pixel))


@pytest.mark.parametrize("by_side", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("by_views", [0.05, 0.1, 0.5])
def test_noise_makes_no_negative_costs_and_leaves_the_recipes_own_step(by_side: float, by_views: float) -> None:
    """A step of more pixels or views that happened to be faster."""
    fixed, per_view, per_pixel = coefficients((4, 32, 0.1), (4, 16, by_side), (8, 32, by_views))
    assert min(fixed, per_view, per_pixel) >= -1e-12
    assert fixed + 4 * (per_view + 1024 * per_pixel) == pytest.approx(0.1)


def test_measuring_leaves_the_job_as_it_is(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    settings = JobSettings("it", (GRID, MESH), prior="analytic", seed=3)
    measured = measure_costs(settings, Inputs(), prior, after=1.5)
    assert [stage.views for stage in measured.stages] == [4, 4]
    assert [stage.side for stage in measured.stages] == [16, 13]  # of 8 and 16 px, by area
    assert all(stage.step(4, stage.side) > 0 and stage.end > 0 for stage in measured.stages)
    assert measured.stages[0].remesh == 0 < measured.stages[1].remesh
    assert measured.after == 1.5 and 0 < measured.aside <= 0.1
    meshes = []
    for number in range(2):
        *_, last = run_job(settings, None, prior, tmp_path)
        assert isinstance(last, Finished)
        meshes.append(last.mesh)
        measure_costs(settings, Inputs(), prior, 0.0)
    assert (meshes[0].positions == meshes[1].positions).all() and (meshes[0].colors == meshes[1].colors).all()


def test_views_of_a_single_view_prior_are_counted_as_the_recipe_has_them() -> None:
    alone = GaussianMixturePrior({"it": Component(torch.zeros(1, 3, 16, 16), 0.3)}, linear_alphas_cumprod())
    stage = MeshStage(steps=2, cameras=CameraSettings(layout="scattered", views=3), target_vertices=120)
    measured = measure_costs(JobSettings("it", (stage,), prior="analytic"), Inputs(icosphere(1)), alone, 0.0)
    assert (measured.stages[0].views, measured.stages[0].together) == (3, 1)


def test_costs_are_remembered_for_this_recipe_mesh_and_thread_count(prior: GaussianMixturePrior) -> None:
    settings = JobSettings("it", (GRID, MESH), prior="analytic")
    cost = StageCost(1.0, 0.1, 0.2, 1e-5, 0.0, 2.0, 4, 32, 4, 32)
    kept = Costs((cost, cost), 6.0, 0.05)
    assert recall(settings, Inputs(), prior) is None
    remember(settings, Inputs(), prior, kept)
    assert recall(settings, Inputs(), prior) == kept
    assert recall(replace(settings, prompt="another", seed=9), Inputs(), prior) == kept
    assert recall(replace(settings, threads=2), Inputs(), prior) is None
    assert recall(replace(settings, stages=(MESH,)), Inputs(), prior) is None
    assert recall(settings, Inputs(icosphere(1)), prior) is None


def test_old_and_damaged_costs_are_measured_anew(
    prior: GaussianMixturePrior, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = JobSettings("it", (MESH,), prior="analytic")
    remember(settings, Inputs(), prior, Costs((), 6.0, 0.05))
    (file,) = (own_cache / "costs").iterdir()
    now = time.time()
    monkeypatch.setattr(costs_module.time, "time", lambda: now + 31 * 86400)
    assert recall(settings, Inputs(), prior) is None
    monkeypatch.setattr(costs_module.time, "time", lambda: now - 86400)
    assert recall(settings, Inputs(), prior) is None, "from the future: the clock was set"
    monkeypatch.setattr(costs_module.time, "time", lambda: now + 86400)
    assert recall(settings, Inputs(), prior) is not None
    file.write_bytes(file.read_bytes()[:20])
    assert recall(settings, Inputs(), prior) is None


def test_a_cache_that_cannot_be_written_is_gone_without(
    prior: GaussianMixturePrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(costs_module, "cache_folder", lambda: tmp_path / "file")
    settings = JobSettings("it", (MESH,), prior="analytic")
    remember(settings, Inputs(), prior, Costs((), 6.0, 0.05))
    assert recall(settings, Inputs(), prior) is None
