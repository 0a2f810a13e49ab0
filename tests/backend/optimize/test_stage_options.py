"""What the settings of a stage say is what its steps do; on a prior known exactly."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from backend.errors import InputError
from backend.optimize.averaging import MovingAverage
from backend.optimize.events import CheckpointSaved, EndedEarly, Event, Finished, Preview, StageStarted, StepDone
from backend.optimize.run import run_job
from backend.optimize.stages import RunningStage, begin_stage
from backend.optimize.step import distill_step
from backend.optimize.views import render_side, view_count
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.rendering import Rendered
from backend.representations import density_grid
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from protocol.settings import (
    CameraSettings,
    Constant,
    FieldStage,
    GridStage,
    GuidanceSettings,
    JobSettings,
    Linear,
    MeshStage,
    Schedule,
    Stage,
    StepList,
    TetrahedraStage,
)

SIZE = 12
CPU = torch.device("cpu")
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
GRID = GridStage(steps=6, resolution=10, samples_per_ray=12, guidance=GUIDANCE, target_vertices=100)
MESH = MeshStage(steps=6, guidance=GUIDANCE, supersample=1, target_vertices=100, position_rate=Constant(0.02))


class Watched(GaussianMixturePrior):
    """Remembers what it was shown."""

    shown: list[Rendered]

    def encode_images(self, rendered: Rendered, background: torch.Tensor) -> torch.Tensor:
        self.shown.append(rendered)
        return super().encode_images(rendered, background)


def make_prior(views: int) -> Watched:
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.25).float()
    color = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    picture = (disk * color + (1 - disk) * 0.5) * 2 - 1
    prior = Watched({"disk": Component(picture.expand(views, 3, SIZE, SIZE), 0.2)}, linear_alphas_cumprod())
    prior.shown = []
    return prior


@pytest.fixture
def prior() -> Watched:
    return make_prior(4)


def job(*stages: Stage, **changes: object) -> JobSettings:
    settings = JobSettings(prompt="disk", stages=stages, seed=4, prior="analytic", checkpoint_seconds=1e6, preview_seconds=1e6)
    return msgspec.structs.replace(settings, **changes)


def change(stage: Stage, **changes: object) -> Stage:
    return msgspec.structs.replace(stage, **changes)


def run(settings: JobSettings, prior: Watched, folder: Path, start: MeshData | None = None, **more: object) -> list[Event]:
    folder.mkdir(exist_ok=True)
    return list(run_job(settings, start, prior, folder, **more))


def result(events: list[Event]) -> MeshData:
    assert isinstance(events[-1], Finished)
    return events[-1].mesh


def steps(events: list[Event]) -> list[StepDone]:
    return [event for event in events if isinstance(event, StepDone)]


def advance(running: RunningStage, prior: Watched, count: int) -> None:
    generator, conditioning = torch.Generator().manual_seed(0), prior.encode_prompt("disk", "")
    for step in range(count):
        distill_step(running, step / running.stage.steps, 0.5, prior, conditioning, generator)


# ---- schedules


def test_weights_follow_their_schedules() -> None:
    running = begin_stage(change(MESH, laplacian=Linear(0.0, 4.0), slivers=0.5, remesh_every=2), icosphere(1), CPU)
    with torch.no_grad():
        running.representation.displacement.normal_(generator=torch.Generator().manual_seed(1))
    terms = {name: float(term.detach()) for name, term in running.representation.regularization().items()}
    for progress, names in ((0.0, {"slivers"}), (0.25, {"laplacian", "slivers"}), (1.0, {"laplacian", "slivers"})):
        shown = running.regularizers(progress)
        total = sum(shown.values())
        assert set(shown) == names
        expected = 4.0 * progress * terms["laplacian"] + 0.5 * terms["slivers"]
        assert float(total.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        (GRID, {"opacity_entropy", "total_variation", "sparsity"}),
        (FieldStage(steps=2, resolution=16, samples_per_ray=8), {"opacity_entropy", "orientation", "distortion", "sparsity"}),
        (TetrahedraStage(steps=2, resolution=8, supersample=1), {"sign_changes", "laplacian"}),
        (change(MESH, remesh_every=1), {"laplacian", "normal_consistency", "slivers"}),
    ],
    ids=["grid", "field", "tetrahedra", "mesh"],
)
def test_every_weight_of_every_stage_takes_a_schedule_and_only_that_is_computed(
    stage: Stage, names: set[str], prior: Watched
) -> None:
    late = StepList((0.0, 0.5), (0.0, 1.0))
    for name in names:
        weighted = change(stage, **{each: late if each == name else 0.0 for each in names})
        running = begin_stage(weighted, icosphere(1) if isinstance(stage, MeshStage) else None, CPU)
        advance(running, prior, 1)
        assert running.regularizers(0.4) == {}
        assert set(running.regularizers(0.6)) == {name}
        assert set(running.representation.regularization({name})) == {name}
    assert set(running.representation.regularization()) == names


def test_what_weighs_nothing_costs_nothing(prior: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_dear(volume: torch.Tensor) -> torch.Tensor:
        raise AssertionError("computed although it weighs nothing")

    monkeypatch.setattr(density_grid, "_total_variation", too_dear)
    advance(begin_stage(change(GRID, total_variation=0.0), None, CPU), prior, 2)
    advance(begin_stage(change(GRID, total_variation=StepList((0.0, 0.5), (0.0, 1.0))), None, CPU), prior, 3)
    with pytest.raises(AssertionError):
        advance(begin_stage(GRID, None, CPU), prior, 1)


def test_shape_and_colors_guided_apart_need_no_regularizer(prior: Watched) -> None:
    apart = msgspec.structs.replace(GUIDANCE, geometry_scale=Constant(2.0))
    running = begin_stage(change(MESH, laplacian=0.0, guidance=apart), icosphere(1), CPU)
    advance(running, prior, 2)
    assert bool((running.representation.displacement != 0.0).any())


def test_a_scheduled_distortion_is_seen_by_the_field(prior: Watched) -> None:
    """The field leaves it out of its rays unless it weighs something at some time."""
    field = FieldStage(steps=2, resolution=16, samples_per_ray=12, guidance=GUIDANCE, distortion=Linear(0.0, 2.0))
    running = begin_stage(field, None, CPU)
    advance(running, prior, 1)
    assert float(running.regularizers(0.5)["distortion"].detach()) > 0.0


@pytest.mark.parametrize(
    ("views", "progress", "together", "expected"),
    [
        (4, 0.0, 4, 4), (1, 0.0, 1, 1), (3, 0.0, 4, 4), (1, 0.0, 4, 4), (5, 0.0, 4, 4), (6, 0.0, 4, 8), (16, 0.0, 4, 16),
        (Linear(1, 8), 0.0, 1, 1), (Linear(1, 8), 0.5, 1, 5), (Linear(1, 8), 0.99, 1, 8), (Linear(-5, 8), 0.0, 1, 1),
        (Linear(4, 12), 0.24, 4, 4), (Linear(4, 12), 0.26, 4, 8), (StepList((0.0, 0.5), (2, 7)), 0.5, 1, 7),
    ],
)  # fmt: skip
def test_views_are_whole_groups(views: int | Schedule, progress: float, together: int, expected: int) -> None:
    assert view_count(views, progress, together) == expected


def test_render_side_is_a_whole_number_and_below_one_the_priors_own() -> None:
    assert [render_side(size, 0.5, 32) for size in (0, 64, Linear(16, 47), Linear(16, 48), Linear(0, 0.9))] == [32, 64, 32, 32, 32]
    assert render_side(Linear(16, 49), 0.5, 32) == 33


def test_views_and_render_size_change_under_way(prior: Watched, tmp_path: Path) -> None:
    cameras = CameraSettings(views=StepList((0.0, 0.5), (4, 8)))
    stage = change(GRID, cameras=cameras, render_size=StepList((0.0, 0.3), (8, 14)))
    done = steps(run(job(stage), prior, tmp_path))
    assert [len(event.azimuths) for event in done] == [4, 4, 4, 8, 8, 8]
    assert [tuple(rendered.rgb.shape) for rendered in prior.shown] == [
        (4, 8, 8, 3), (4, 8, 8, 3), (4, 14, 14, 3), (8, 14, 14, 3), (8, 14, 14, 3), (8, 14, 14, 3),
    ]  # fmt: skip


# ---- cameras


def test_scattered_views_widen_from_the_front(tmp_path: Path) -> None:
    cameras = CameraSettings(views=3, layout="scattered", spread=Linear(30.0, 360.0), jitter=0.05, fov_range=10.0)
    done = steps(run(job(change(GRID, steps=8, cameras=cameras)), make_prior(1), tmp_path))
    for number, event in enumerate(done):
        around = (np.array(event.azimuths) + 180.0) % 360.0 - 180.0
        assert len(around) == 3 and len(set(event.elevations)) == 3
        assert np.abs(around).max() <= (30.0 + 330.0 * number / 8) / 2 + 1e-3
    assert max(np.abs((np.array(event.azimuths) + 180.0) % 360.0 - 180.0).max() for event in done) > 60.0


@pytest.mark.parametrize("kind", ["grid", "field", "tetrahedra", "mesh", "texture"])
def test_every_representation_sees_a_jittered_target(kind: str, tmp_path: Path) -> None:
    cameras = CameraSettings(views=2, layout="scattered", jitter=0.2, fov_range=20.0, distance_range=0.5)
    stages: dict[str, Stage] = {
        "grid": GRID,
        "field": FieldStage(steps=1, resolution=16, samples_per_ray=12, target_vertices=100),
        "tetrahedra": TetrahedraStage(steps=1, resolution=8, supersample=1, target_vertices=100),
        "mesh": MESH,
        "texture": change(MESH, texture_size=64),
    }
    stage = change(stages[kind], steps=2, cameras=cameras, guidance=GUIDANCE)
    prior = make_prior(1)
    result(run(job(stage), prior, tmp_path, icosphere(1)))
    if kind == "mesh":
        # Off the center, where the target is not: the middle of what is covered has moved from the picture's middle.
        covered = prior.shown[0].alpha[..., 0].detach()
        axis = torch.arange(SIZE) - (SIZE - 1) / 2
        middles = torch.stack([(covered * axis).sum((1, 2)), (covered * axis[:, None]).sum((1, 2))]) / covered.sum((1, 2))
        assert middles.abs().max() > 0.3


def test_scattered_views_are_nothing_for_a_prior_of_groups(prior: Watched, tmp_path: Path) -> None:
    stage = change(GRID, cameras=CameraSettings(layout="scattered"))
    with pytest.raises(InputError, match='set the stage\'s cameras.layout to "ring"'):
        run(job(stage), prior, tmp_path)


# ---- what is shown and what is learned


def test_normals_are_shown_as_a_picture(prior: Watched, tmp_path: Path) -> None:
    """The middle of a ball turns its normal to the camera: n / 2 + 1/2, whatever its color and the light."""
    stage = change(MESH, steps=2, shading="normals", cameras=CameraSettings(elevation_min=0.0, elevation_max=0.0))
    done = steps(run(job(stage), prior, tmp_path, icosphere(2)))
    middle = prior.shown[0].rgb[:, SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1].detach().mean(dim=(1, 2))
    azimuth = torch.deg2rad(torch.tensor(done[0].azimuths))
    toward = torch.stack([azimuth.sin(), torch.zeros(4), azimuth.cos()], dim=1)
    torch.testing.assert_close(middle, toward / 2 + 0.5, atol=0.03, rtol=0)
    assert done[0].numbers["gradient_positions"] > 0.0 and done[0].numbers["gradient_colors"] == 0.0


@pytest.mark.parametrize("texture", [0, 64])
@pytest.mark.parametrize("learns", ["joint", "geometry", "material"])
def test_only_what_is_learned_moves_and_costs_optimizer_state(
    prior: Watched, tmp_path: Path, learns: str, texture: int
) -> None:
    start = icosphere(2)
    colors = np.random.default_rng(0).uniform(0.2, 0.8, start.positions.shape).astype(np.float32)
    start = MeshData(start.positions, start.faces, colors)
    stage = change(MESH, learns=learns, texture_size=texture, ema=0.5, clip_norm=0.1)
    mesh = result(run(job(stage), prior, tmp_path, start))
    assert np.array_equal(mesh.positions, start.positions) == (learns == "material")
    if texture:
        still = result(run(job(change(stage, steps=1, learns="geometry")), prior, tmp_path, start))
        assert np.array_equal(mesh.material.base_color, still.material.base_color) == (learns == "geometry")
        assert not np.array_equal(mesh.colors, still.colors) or learns == "geometry"
    else:
        assert np.array_equal(mesh.colors, start.colors) == (learns == "geometry")

    running = begin_stage(stage, start, CPU)
    advance(running, prior, 2)
    groups = {group["name"]: group["params"] for group in running.representation.parameter_groups()}
    moving = {"joint": set(groups), "geometry": {"positions"}, "material": set(groups) - {"positions"}}[learns]
    held = {id(parameter) for optimizer in running.optimizers for parameter in optimizer.state}
    for name, parameters in groups.items():
        for parameter in parameters:
            assert (id(parameter) in held) == (name in moving)
            assert parameter.requires_grad == (name in moving) and (parameter.grad is not None) == (name in moving)


def test_a_material_stage_never_remeshes_nor_repairs(prior: Watched, tmp_path: Path) -> None:
    ball = icosphere(2)
    speck = 0.02 * ball.positions + np.float32([0.9, 0.0, 0.0])  # a repair would drop it
    start = MeshData(np.concatenate([ball.positions, speck]), np.concatenate([ball.faces, ball.faces + len(speck)]))
    mesh = result(run(job(change(MESH, learns="material", remesh_every=2)), prior, tmp_path, start))
    assert np.array_equal(mesh.positions, start.positions) and np.array_equal(mesh.faces, start.faces)
    assert not np.allclose(mesh.colors, 0.5)


def test_a_material_that_nobody_sees_is_refused(prior: Watched, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in which no material is seen"):
        run(job(change(MESH, learns="material", shading="normals")), prior, tmp_path, icosphere(1))


# ---- averages


def test_moving_average_is_the_bias_corrected_one() -> None:
    decay, generator = 0.9, torch.Generator().manual_seed(0)
    values = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    average, parameter = MovingAverage(decay), torch.zeros(5, dtype=torch.float64)
    moment = torch.zeros(5, dtype=torch.float64)
    for step, value in enumerate(values, start=1):
        parameter.copy_(value)
        average.update([parameter])
        moment = decay * moment + (1 - decay) * value
        with average.in_place_of([parameter]):
            torch.testing.assert_close(parameter, moment / (1 - decay**step), rtol=1e-12, atol=1e-12)
        assert torch.equal(parameter, value)


def test_moving_average_keeps_the_bits_of_what_does_not_change() -> None:
    parameter = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    start, average = parameter.clone(), MovingAverage(0.99)
    for _ in range(50):
        average.update([parameter])
    with average.in_place_of([parameter]):
        assert torch.equal(parameter, start)


def test_average_is_shown_and_handed_on_and_ends_with_a_topology(prior: Watched, tmp_path: Path) -> None:
    """A stage of its last value and one of averages see the same draws and steps: they differ in what they show."""
    plain, averaged = (change(MESH, ema=ema, remesh_every=0) for ema in (0.0, 0.8))
    events = {ema: run(job(stage, preview_seconds=1e-6), prior, tmp_path, icosphere(1)) for ema, stage in ((0.0, plain), (0.8, averaged))}
    path = []
    for event in run_job(job(plain, preview_seconds=1e-6), icosphere(1), prior, tmp_path):
        if isinstance(event, Preview):
            path.append(event.mesh().positions.astype(np.float64))
    shares = 0.8 ** np.arange(len(path))[::-1]
    expected = (np.stack(path) * (shares / shares.sum())[:, None, None]).sum(axis=0)
    np.testing.assert_allclose(result(events[0.8]).positions, expected, atol=1e-6)
    assert np.abs(result(events[0.0]).positions - expected).max() > 1e-3
    shown = [event.mesh().positions for event in run_job(job(averaged, preview_seconds=1e-6), icosphere(1), prior, tmp_path) if isinstance(event, Preview)]
    np.testing.assert_allclose(shown[1], (0.8 * path[0] + path[1]) / 1.8, atol=1e-6)

    running = begin_stage(change(averaged, remesh_every=2), icosphere(2), CPU)
    advance(running, prior, 2)
    before = running.average
    assert running.remesh(2) and running.average is not before and running.average.state_dict()["steps"] == 0


# ---- clipping


def test_gradients_are_clipped_group_by_group_and_shown_as_they_were() -> None:
    running = begin_stage(change(MESH, clip_norm=2.0), icosphere(1), CPU)
    positions, colors = running.representation.displacement, running.representation.colors
    positions.grad, colors.grad = torch.full_like(positions, 0.001), torch.full_like(colors, 1.0)
    expected = colors.numel() ** 0.5
    numbers = running.move()
    assert numbers["gradient_colors"] == pytest.approx(expected) and float(colors.grad.norm()) == pytest.approx(2.0)
    assert numbers["clipped_colors"] == pytest.approx(1 - 2.0 / expected)
    assert numbers["clipped_positions"] == 0.0 and bool((positions.grad == 0.001).all())
    running = begin_stage(MESH, icosphere(1), CPU)
    running.representation.colors.grad = torch.ones_like(colors)
    assert set(running.move()) == {"gradient_colors"}


# ---- plateaus


def test_a_stage_that_has_stopped_falling_ends_early(prior: Watched, tmp_path: Path) -> None:
    """At a rate of 0 nothing can fall. The job's total follows, and the next stage is whole."""
    still = change(MESH, steps=200, patience=0.1, position_rate=Constant(0.0), color_rate=Constant(0.0))
    events = run(job(still, MESH), prior, tmp_path, icosphere(1))
    (ended,) = [event for event in events if isinstance(event, EndedEarly)]
    done = steps(events)
    assert 24 <= ended.step < 150 and ended.steps_left_out == 200 - ended.step
    assert [event.step for event in done] == list(range(1, ended.step + 6 + 1))
    assert {event.total for event in done[: ended.step - 1]} == {206} and {event.total for event in done[ended.step - 1 :]} == {ended.step + 6}
    assert done[ended.step - 1].seconds_left < 1.0 and done[-1].seconds_left == 0.0
    assert [event.index for event in events if isinstance(event, StageStarted)] == [0, 1]


def test_rates_are_halved_when_nothing_falls(prior: Watched, tmp_path: Path) -> None:
    still = change(MESH, steps=70, adaptive=True, position_rate=Constant(0.0), color_rate=Constant(0.0))
    paces = [event.numbers["pace"] for event in steps(run(job(still), prior, tmp_path, icosphere(1)))]
    assert paces[0] == 1.0 and paces[-1] < 1.0 and set(np.diff(np.log2(paces))) <= {0.0, -1.0}
    running = begin_stage(MESH, icosphere(1), CPU)
    running.pace = 0.25
    running.set_schedules(0.0)
    rates = {group["name"]: group["lr"] for optimizer in running.optimizers for group in optimizer.param_groups}
    assert rates == {"positions": pytest.approx(0.25 * 0.02), "colors": pytest.approx(0.25 * 0.02)}


# ---- resume


def kill(settings: JobSettings, prior: Watched, folder: Path, start: MeshData | None, after: int) -> None:
    """Abandoning the generator is what a kill does: nothing runs after the last checkpoint."""
    folder.mkdir()
    eager = msgspec.structs.replace(settings, checkpoint_seconds=1e-6, preview_seconds=1e-6)
    saved: Iterator[int] = (event.step for event in run_job(eager, start, prior, folder) if isinstance(event, CheckpointSaved))
    assert after in islice(saved, after)


def same(a: MeshData, b: MeshData) -> bool:
    pairs = [(a.positions, b.positions), (a.faces, b.faces), (a.colors, b.colors)]
    if a.material is not None:
        pairs.append((a.material.base_color, b.material.base_color))
    return all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("killed_after", [2, 5, 8])
def test_a_job_with_everything_resumes_bit_for_bit(prior: Watched, tmp_path: Path, killed_after: int) -> None:
    cameras = CameraSettings(views=Linear(4, 8))
    grid = change(GRID, steps=4, ema=0.7, clip_norm=0.01, cameras=cameras, total_variation=Linear(0.0, 0.1), adaptive=True)
    mesh = change(MESH, steps=6, ema=0.7, clip_norm=0.01, remesh_every=3, patience=0.5, render_size=Linear(8, 16))
    settings = job(grid, mesh)
    whole = result(run(settings, prior, tmp_path / "whole"))
    kill(settings, prior, tmp_path / "killed", None, killed_after)
    torch.manual_seed(999)
    rest = run(settings, prior, tmp_path / "killed", resume=True)
    assert steps(rest)[0].step == killed_after + 1 and same(result(rest), whole)


@pytest.mark.parametrize("learns", ["geometry", "material"])
def test_an_averaged_texture_resumes_bit_for_bit(prior: Watched, tmp_path: Path, learns: str) -> None:
    settings = job(change(MESH, texture_size=64, ema=0.7, learns=learns))
    whole = result(run(settings, prior, tmp_path / "whole", icosphere(1)))
    kill(settings, prior, tmp_path / "killed", icosphere(1), 3)
    assert same(result(run(settings, prior, tmp_path / "killed", icosphere(1), resume=True)), whole)


def test_early_ends_and_halved_rates_survive_a_kill(prior: Watched, tmp_path: Path) -> None:
    """Also where the kill comes after the last step of a stage that ended early."""
    still = change(MESH, steps=240, patience=0.1, adaptive=True, position_rate=Constant(0.0), color_rate=Constant(1e-4))
    settings = job(still, MESH)
    events = run(settings, prior, tmp_path / "whole", icosphere(1))
    (ended,) = [event for event in events if isinstance(event, EndedEarly)]
    for name, after in (("killed", 20), ("late", ended.step)):
        kill(settings, prior, tmp_path / name, icosphere(1), after)
        rest = run(settings, prior, tmp_path / name, icosphere(1), resume=True)
        assert same(result(rest), result(events))
        assert [event.total for event in steps(rest)] == [event.total for event in steps(events)[after:]]
        assert [event.numbers for event in steps(rest)] == [event.numbers for event in steps(events)[after:]]
