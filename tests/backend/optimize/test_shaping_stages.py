"""Jobs that begin with a tetrahedral grid or a radiance field: repeatable, resumable, sound at their end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from backend.cameras import Cameras
from backend.optimize.events import CheckpointSaved, Event, Finished, Preview, StageStarted, StepDone
from backend.optimize.run import run_job
from backend.optimize.stages import begin_stage
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.rendering import render_mesh
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import cube
from backend.representations.soundness import soundness
from protocol.settings import Constant, FieldStage, GuidanceSettings, JobSettings, MeshStage, Stage, TetrahedraStage

SIZE = 16
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
TETRAHEDRA = TetrahedraStage(
    steps=6, resolution=10, guidance=GUIDANCE, sign_changes=0.01, laplacian=0.01, supersample=1, target_vertices=120
)
FIELD = FieldStage(steps=6, resolution=16, samples_per_ray=16, guidance=GUIDANCE, target_vertices=120)
MESH = MeshStage(steps=4, guidance=GUIDANCE, remesh_every=2, target_vertices=120)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    """A bright disk, smaller than the start, in every view."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.25).float()
    color = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    picture = (disk * color + (1 - disk) * 0.5) * 2 - 1
    return GaussianMixturePrior({"disk": Component(picture.expand(4, 3, SIZE, SIZE), 0.2)}, linear_alphas_cumprod())


def settings(first: Stage, **changes: object) -> JobSettings:
    job = JobSettings(
        prompt="disk", stages=(first, MESH), seed=4, prior="analytic", checkpoint_seconds=1e-6, preview_seconds=1e-6
    )
    return msgspec.structs.replace(job, **changes)


def finished(events: Iterator[Event]) -> MeshData:
    *_, last = events
    assert isinstance(last, Finished)
    return last.mesh


def same(a: MeshData, b: MeshData) -> bool:
    return all(np.array_equal(x, y) for x, y in ((a.positions, b.positions), (a.faces, b.faces), (a.colors, b.colors)))


@pytest.fixture(scope="module", params=[TETRAHEDRA, FIELD], ids=["tetrahedra", "field"])
def first(request: pytest.FixtureRequest) -> Stage:
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(prior: GaussianMixturePrior, first: Stage, tmp_path_factory: pytest.TempPathFactory) -> MeshData:
    quiet = settings(first, checkpoint_seconds=1e6, preview_seconds=1e6)
    return finished(run_job(quiet, None, prior, tmp_path_factory.mktemp("whole")))


def test_watching_changes_nothing_and_the_end_is_sound(
    prior: GaussianMixturePrior, first: Stage, uninterrupted: MeshData, tmp_path: Path
) -> None:
    seen = []
    for event in run_job(settings(first), None, prior, tmp_path):
        if isinstance(event, Preview):
            assert event.render([0.0, 90.0], 10.0, 24).shape == (2, 24, 24, 4)
            assert soundness(event.mesh()).watertight
        seen.append(event)
    kind, numbers = {
        TETRAHEDRA: ("tetrahedra", {"sign_changes", "laplacian", "gradient_distances", "gradient_offsets", "gradient_colors"}),
        FIELD: ("field", {"opacity_entropy", "orientation", "gradient_field"}),
    }[first]
    assert [event.kind for event in seen if isinstance(event, StageStarted)] == [kind, "mesh"]
    assert numbers <= set(next(event for event in seen if isinstance(event, StepDone)).numbers)
    assert same(seen[-1].mesh, uninterrupted)
    assert soundness(uninterrupted).sound


@pytest.mark.parametrize("killed_after", [1, 4, 6, 8])
def test_resumed_equals_uninterrupted(
    prior: GaussianMixturePrior, first: Stage, uninterrupted: MeshData, tmp_path: Path, killed_after: int
) -> None:
    saved = (event for event in run_job(settings(first), None, prior, tmp_path) if isinstance(event, CheckpointSaved))
    assert [event.step for event in islice(saved, killed_after)][-1] == killed_after
    torch.manual_seed(999)
    rest = list(run_job(settings(first), None, prior, tmp_path, resume=True))
    assert next(event for event in rest if isinstance(event, StepDone)).step == killed_after + 1
    assert same(rest[-1].mesh, uninterrupted)


def test_rates_go_where_they_belong_and_a_mesh_is_what_it_begins_with() -> None:
    start = cube(8, radius=0.8)
    stage = msgspec.structs.replace(TETRAHEDRA, resolution=16, target_vertices=500, distance_rate=Constant(0.03), color_rate=Constant(0.07))
    running = begin_stage(stage, start, torch.device("cpu"))
    running.set_schedules(0.5)
    rates = {group["name"]: group["lr"] for optimizer in running.optimizers for group in optimizer.param_groups}
    assert rates == {"distances": 0.03, "offsets": 0.03, "colors": 0.07}
    result = running.result()
    assert soundness(result).sound and len(result.positions) == pytest.approx(500, rel=0.2)
    half = 0.8 / 3.0**0.5
    assert soundness(result).volume == pytest.approx((2 * half) ** 3, rel=0.06)


def test_tetrahedra_take_the_colors_that_the_prior_wants(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    """Red in the middle of views of the test's own. The rim is no measure: there each view wants what others forbid."""
    stage = msgspec.structs.replace(TETRAHEDRA, steps=60, sign_changes=0.0, distance_rate=Constant(0.01), color_rate=Constant(0.1))
    quiet = settings(stage, stages=(stage,), checkpoint_seconds=1e6, preview_seconds=1e6)
    mesh = finished(run_job(quiet, None, prior, tmp_path))
    assert soundness(mesh).sound
    views = Cameras.orbit([15.0, 105.0, 195.0, 285.0], 20.0)
    positions, faces, colors = (torch.from_numpy(each) for each in (mesh.positions, mesh.faces, mesh.colors))
    middle = render_mesh(positions, faces, colors, views, SIZE).rgb[:, 6:10, 6:10].mean(dim=(0, 1, 2))
    assert (middle - torch.tensor([0.9, 0.2, 0.1])).abs().max() < 0.15
