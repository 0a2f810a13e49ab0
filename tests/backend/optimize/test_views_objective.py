"""Losses between views in the loop: what they change, what they leave alone, and that a killed job goes on as if nothing was."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.errors import InputError
from backend.losses.reprojection import correspond
from backend.losses.view_agreement import depth_agreement, normal_agreement
from backend.losses.view_interpolation import view_interpolation
from backend.optimize.events import CheckpointSaved, Finished
from backend.optimize.look import Look
from backend.optimize.objectives import Objective, Seen
from backend.optimize.run import run_job
from backend.optimize.views_objective import make_views_objective
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.rendering import Light, render_mesh
from backend.representations.density_grid import DensityGrid
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from backend.representations.radiance_field import RadianceField
from backend.representations.representation import Representation
from backend.representations.triangle_mesh import TriangleMesh
from protocol.losses import LossSettings
from protocol.settings import (
    Constant,
    FieldStage,
    GridStage,
    GuidanceSettings,
    JobSettings,
    MeshStage,
    Stage,
    StepList,
    TetrahedraStage,
)

SIZE = 12
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
GRID = GridStage(steps=4, resolution=12, samples_per_ray=16, guidance=GUIDANCE, target_vertices=100)
FIELD = FieldStage(steps=4, resolution=16, samples_per_ray=12, view_dependent=True, guidance=GUIDANCE, target_vertices=100)
MESH = MeshStage(steps=6, guidance=GUIDANCE, supersample=1, target_vertices=100, position_rate=Constant(0.02))
LATE = StepList((0.0, 0.5), (0.0, 1.0))


def with_losses(stage: Stage, **losses: object) -> Stage:
    return msgspec.structs.replace(stage, losses=LossSettings(**losses))


def look(azimuths: list[float]) -> Look:
    count = len(azimuths)
    light = Light(torch.nn.functional.normalize(torch.ones(count, 3), dim=1), torch.full((count,), 0.5))
    return Look(Cameras.orbit(azimuths, 15.0), light, "lit", torch.tensor([0.2, 0.4, 0.6]).expand(count, 3))


def seen_of(representation: Representation, progress: float = 0.0, seed: int = 0, size: int = SIZE) -> Seen:
    here = look([37.0 * seed + turn for turn in (0.0, 90.0, 180.0, 270.0)])
    rendered = representation.render(here.cameras, size, here.light, here.shading)
    return Seen(representation, here, rendered, progress, 0.5, torch.Generator().manual_seed(seed))


def soft_grid() -> DensityGrid:
    """A ball of fog, colored, with a cloud in front of it."""
    grid = DensityGrid(GridStage(steps=1, resolution=16, samples_per_ray=32))
    axis = torch.linspace(-1.0, 1.0, 16)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius, cloud = (x * x + y * y + z * z).sqrt(), (x * x + (y - 0.2) ** 2 + (z - 0.8) ** 2) / 0.06
    with torch.no_grad():
        grid.density_logits.copy_(torch.maximum(4.0 * (0.6 - radius), 0.5 - cloud))
        grid.color_logits.copy_(2.0 * torch.sin(6.0 * torch.stack([x, y, z], dim=-1)))
    return grid


def descend(objective: Objective, representation: Representation, steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam(representation.parameter_groups(), lr=rate)
    for step in range(steps):
        optimizer.zero_grad()
        sum(objective.terms(seen_of(representation, seed=step)).values()).backward()
        optimizer.step()


@torch.no_grad()
def disagreement(representation: Representation, measure: Callable[..., Tensor], turn: float, shading: str) -> float:
    """`measure(image, other image, correspondence)` between views that no step looked at."""
    here, there = look([40.0, 130.0, 310.0]), look([40.0 + turn, 130.0 + turn, 310.0 + turn])
    one, other = (representation.render(each.cameras, 24, here.light, shading) for each in (here, there))
    found = correspond(one.depth, here.cameras, other.depth, there.cameras, tolerance=0.3)
    assert found.seen.sum() > 50
    return float(measure(one, other, found))


# ---- which stages may have which


def test_nothing_is_made_for_what_weighs_nothing_at_any_time() -> None:
    for stage in (GRID, FIELD, MESH, TetrahedraStage(steps=2)):
        assert make_views_objective(stage) is None
    assert make_views_objective(with_losses(GRID, depth_agreement=LATE)) is not None


@pytest.mark.parametrize("name", ["depth_agreement", "normal_agreement", "view_interpolation"])
def test_views_of_a_mesh_are_not_compared_with_each_other(name: str) -> None:
    for stage in (MESH, TetrahedraStage(steps=2)):
        with pytest.raises(InputError, match=f"losses.{name} .*grid or field"):
            make_views_objective(with_losses(stage, **{name: 1.0}))


def test_what_begins_as_a_soft_ball_is_not_held_to_it() -> None:
    for stage in (GRID, FIELD):
        with pytest.raises(InputError, match="losses.anchor_views .*mesh or tetrahedra"):
            make_views_objective(with_losses(stage, anchor_views=1.0))


# ---- volumes


def test_weights_follow_their_schedules_and_no_number_is_drawn_before() -> None:
    grid = soft_grid()
    objective = make_views_objective(with_losses(GRID, depth_agreement=LATE, view_interpolation=2.0))
    early, late = (objective.terms(seen_of(grid, progress)) for progress in (0.2, 0.8))
    assert set(early) == {"view_interpolation"} and set(late) == {"depth_agreement", "view_interpolation"}
    waiting = seen_of(grid, 0.2)
    before = waiting.generator.get_state()
    assert make_views_objective(with_losses(GRID, depth_agreement=LATE)).terms(waiting) == {}
    assert torch.equal(before, waiting.generator.get_state())
    twice = make_views_objective(with_losses(GRID, view_interpolation=4.0)).terms(seen_of(grid, 0.2))
    torch.testing.assert_close(twice["view_interpolation"], 2.0 * early["view_interpolation"])


def test_second_views_lie_to_either_side_as_far_as_they_should() -> None:
    class Watched:
        """Remembers where it was looked at from."""

        def render(self, cameras: Cameras, *arguments: object) -> object:
            azimuths.append(cameras.azimuth)
            return grid.render(cameras, *arguments)

    grid, turns = soft_grid(), {"depth_agreement": set(), "view_interpolation": set()}
    for name, found in turns.items():
        objective = make_views_objective(with_losses(GRID, **{name: 1.0}))
        for seed in range(8):
            azimuths: list[Tensor] = []
            here = seen_of(Watched(), seed=seed, size=4)
            objective.terms(here)
            found |= set((azimuths[-1] - here.look.cameras.azimuth).round(decimals=2).tolist())
    far, near = turns["depth_agreement"], turns["view_interpolation"]
    assert near == {-3.0, 3.0}
    assert len(far) == 8 and min(far) < 0.0 < max(far) and all(10.0 <= abs(turn) <= 45.0 for turn in far)


def test_asking_for_equal_depths_makes_views_of_fog_agree() -> None:
    def measure(one, other, found):
        return depth_agreement(found)

    grid = soft_grid()
    before = disagreement(grid, measure, 25.0, "albedo")
    descend(make_views_objective(with_losses(GRID, depth_agreement=1.0)), grid, 25, 0.1)
    assert disagreement(grid, measure, 25.0, "albedo") < 0.85 * before


def test_asking_for_equal_normals_makes_views_of_fog_agree() -> None:
    def measure(one, other, found):
        return normal_agreement(2.0 * one.rgb - one.alpha, 2.0 * other.rgb - other.alpha, found)

    grid = soft_grid()
    before = disagreement(grid, measure, 25.0, "normal")
    descend(make_views_objective(with_losses(GRID, normal_agreement=1.0)), grid, 25, 0.1)
    assert disagreement(grid, measure, 25.0, "normal") < 0.7 * before


def test_colors_that_flicker_with_the_view_are_calmed() -> None:
    def measure(one, other, found):
        return view_interpolation(one.rgb, other.rgb, found)

    field = RadianceField(FIELD)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        turning = field.field.layers[-1].bias[4:]  # colors of all points alike
        turning.add_(1.5 * torch.randn(turning.shape, generator=generator))
    before = disagreement(field, measure, 10.0, "albedo")
    descend(make_views_objective(with_losses(FIELD, view_interpolation=1.0, view_interpolation_angle=10.0)), field, 15, 0.1)
    assert disagreement(field, measure, 10.0, "albedo") < 0.5 * before


# ---- meshes


def colored_ball() -> MeshData:
    ball = icosphere(2, 0.6)
    return MeshData(ball.positions, ball.faces, (0.5 + 0.4 * np.sin(5.0 * ball.positions)).astype(np.float32))


def test_at_the_begin_an_object_is_its_own_anchor() -> None:
    mesh = TriangleMesh(colored_ball(), MESH)
    (term,) = make_views_objective(with_losses(MESH, anchor_views=3.0)).terms(seen_of(mesh)).values()
    assert float(term.detach()) == pytest.approx(0.0, abs=1e-6)
    term.backward()
    assert mesh.colors.grad.abs().max() == 0.0


def test_anchors_are_of_the_stage_s_begin_although_they_weigh_later() -> None:
    mesh = TriangleMesh(colored_ball(), MESH)
    objective = make_views_objective(with_losses(MESH, anchor_views=LATE))
    waiting = seen_of(mesh)
    state = waiting.generator.get_state()
    assert objective.terms(waiting) == {} and torch.equal(state, waiting.generator.get_state())
    with torch.no_grad():
        mesh.colors.copy_(1.0 - mesh.colors)
    (term,) = objective.terms(seen_of(mesh, 0.9)).values()
    assert float(term.detach()) > 0.1


def test_anchors_bring_back_what_has_drifted() -> None:
    start = colored_ball()
    mesh = TriangleMesh(start, MESH)
    objective = make_views_objective(with_losses(MESH, anchor_views=1.0))
    objective.terms(seen_of(mesh))
    with torch.no_grad():
        mesh.displacement.add_(0.15 * torch.tensor([1.0, 0.0, 0.0]))
        mesh.colors.copy_(0.5)

    def distance() -> tuple[float, float]:
        """From the start, in a view that is no anchor: of colors and of silhouettes."""
        cameras = Cameras.orbit([20.0], 10.0)
        with torch.no_grad():
            now = mesh.render(cameras, 32, shading="albedo")
            then = render_mesh(*(torch.as_tensor(each) for each in (start.positions, start.faces, start.colors)), cameras, 32, shading="albedo")
        return float((now.rgb - then.rgb).abs().mean()), float((now.alpha - then.alpha).abs().mean())

    before = distance()
    descend(objective, mesh, 40, 0.03)
    after = distance()
    assert after[0] < 0.5 * before[0] and after[1] < 0.5 * before[1]


# ---- in jobs


@pytest.fixture
def prior() -> GaussianMixturePrior:
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.25).float()
    color = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    picture = (disk * color + (1 - disk) * 0.5) * 2 - 1
    return GaussianMixturePrior({"disk": Component(picture.expand(4, 3, SIZE, SIZE), 0.2)}, linear_alphas_cumprod())


def job(*stages: Stage) -> JobSettings:
    return JobSettings(prompt="disk", stages=stages, seed=4, prior="analytic", checkpoint_seconds=1e6, preview_seconds=1e6)


def result(settings: JobSettings, prior: GaussianMixturePrior, folder: Path, **more: object) -> MeshData:
    folder.mkdir(exist_ok=True)
    last = list(run_job(settings, colored_ball(), prior, folder, **more))[-1]
    assert isinstance(last, Finished)
    return last.mesh


def same(a: MeshData, b: MeshData) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("positions", "faces", "colors"))


def test_a_job_keeps_a_mesh_closer_to_its_first_views(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start, drift = colored_ball(), {}
    for weight in (0.0, 30.0):
        made = result(job(with_losses(MESH, anchor_views=weight)), prior, tmp_path / str(weight))
        drift[weight] = float(np.abs(made.colors - start.colors).mean())
    assert drift[30.0] < 0.8 * drift[0.0]


@pytest.mark.parametrize("killed_after", [2, 6])
def test_jobs_resume_bit_for_bit(prior: GaussianMixturePrior, tmp_path: Path, killed_after: int) -> None:
    grid = with_losses(GRID, depth_agreement=0.5, normal_agreement=0.5, view_interpolation=0.5)
    mesh = msgspec.structs.replace(with_losses(MESH, anchor_views=1.0), remesh_every=3)
    settings = job(grid, mesh)
    whole = result(settings, prior, tmp_path / "whole")
    assert not same(whole, result(job(GRID, msgspec.structs.replace(MESH, remesh_every=3)), prior, tmp_path / "without"))
    (tmp_path / "killed").mkdir()
    eager = msgspec.structs.replace(settings, checkpoint_seconds=1e-6, preview_seconds=1e-6)
    events = run_job(eager, colored_ball(), prior, tmp_path / "killed")
    saved = (event.step for event in events if isinstance(event, CheckpointSaved))
    assert killed_after in islice(saved, killed_after)
    torch.manual_seed(999)
    assert same(result(settings, prior, tmp_path / "killed", resume=True), whole)
