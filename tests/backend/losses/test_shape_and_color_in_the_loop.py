"""Losses of shape and color as a stage's settings ask for them: what they lower, where they cannot be had, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from backend.errors import InputError
from backend.losses.albedo import albedo_changes
from backend.losses.edge_lengths import edge_length_deviation
from backend.losses.normals import normal_variance
from backend.losses.saturation import color_saturation
from backend.optimize.color_objective import ColorObjective
from backend.optimize.control import Control
from backend.optimize.events import CheckpointSaved, Finished, StepDone
from backend.optimize.inputs import Inputs
from backend.optimize.objectives import Job
from backend.optimize.run import run_job
from backend.optimize.shape_objective import ShapeObjective
from backend.optimize.stages import RunningStage, begin_stage
from backend.optimize.step import distill_step
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.representations.large_steps import unique_edges
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import cube, icosphere
from protocol.settings import (
    Constant,
    FieldStage,
    GridStage,
    GuidanceSettings,
    JobSettings,
    Linear,
    LossSettings,
    MeshStage,
    Stage,
    TetrahedraStage,
)

SIZE = 12
CPU = torch.device("cpu")
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
MESH = MeshStage(steps=10, guidance=GUIDANCE, supersample=1, position_rate=Constant(0.02), laplacian=0.0, smoothing=0.5, remesh_every=100)
TETRAHEDRA = TetrahedraStage(steps=4, resolution=8, supersample=1, guidance=GUIDANCE)
GRID = GridStage(steps=4, resolution=10, samples_per_ray=12, guidance=GUIDANCE, target_vertices=100)
FIELD = FieldStage(steps=4, resolution=16, samples_per_ray=8, guidance=GUIDANCE)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    """A red ellipse, brighter on one side."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + 2.0 * axis[None] ** 2) < 0.4).float()
    color = torch.tensor([0.9, 0.2, 0.1])[:, None, None] * (0.7 + 0.3 * axis)
    picture = (disk * color + (1 - disk) * 0.5) * 2 - 1
    return GaussianMixturePrior({"disk": Component(picture.expand(4, 3, SIZE, SIZE), 0.2)}, linear_alphas_cumprod())


def rough_ball() -> MeshData:
    """With bumps that mirror in no plane, and in colors at random."""
    rng = np.random.default_rng(0)
    ball = icosphere(2)
    positions = ball.positions + 0.03 * rng.normal(size=ball.positions.shape)
    return replace(ball, positions=positions.astype(np.float32), colors=rng.uniform(0.2, 0.8, ball.positions.shape).astype(np.float32))


def job(stage: Stage, **changes: object) -> JobSettings:
    settings = JobSettings(
        "disk", (stage,), seed=3, prior="analytic", strength=1.0, checkpoint_seconds=1e6, preview_seconds=1e6
    )
    return msgspec.structs.replace(settings, **changes)


def asking(stage: Stage, **losses: object) -> Stage:
    return msgspec.structs.replace(stage, losses=LossSettings(**losses))


def begun(stage: Stage, prior: GaussianMixturePrior, start: MeshData | None = None) -> RunningStage:
    return begin_stage(stage, start, CPU, prior, 0, Job(job(stage), Inputs(start), prior))


def advance(running: RunningStage, prior: GaussianMixturePrior, count: int) -> list[dict[str, float]]:
    generator, conditioning = torch.Generator().manual_seed(0), prior.encode_prompt("disk", "")
    steps = running.stage.steps
    return [distill_step(running, step / steps, 1.0, prior, conditioning, generator).numbers for step in range(count)]


def result(stage: Stage, prior: GaussianMixturePrior, folder: Path, start: MeshData) -> MeshData:
    *_, last = run_job(job(stage), start, prior, folder)
    assert isinstance(last, Finished)
    return last.mesh


def measured(mesh: MeshData, name: str) -> float:
    """The loss itself of a finished mesh; of symmetry the asymmetry of its vertices, whose order mirrors with the ball's."""
    vertices, faces, colors = (torch.from_numpy(each.astype(np.float64)) for each in (mesh.positions, mesh.faces, mesh.colors))
    edges = unique_edges(faces)
    if name in ("symmetry", "color_symmetry"):
        ball = icosphere(2).positions
        partner = np.square(ball[:, None] * [-1.0, 1.0, 1.0] - ball[None]).sum(-1).argmin(1)
        if name == "color_symmetry":
            return float((colors - colors[partner]).square().mean())
        return float((vertices * torch.tensor([-1.0, 1.0, 1.0]) - vertices[partner]).square().sum(1).mean())
    losses = {
        "edge_lengths": lambda: edge_length_deviation(vertices, edges),
        "normal_variance": lambda: normal_variance(vertices, faces.long()),
        "albedo_sparsity": lambda: albedo_changes(colors, edges),
        "color_saturation": lambda: color_saturation(colors),
    }
    return float(losses[name]())


@pytest.fixture(scope="module")
def without(prior: GaussianMixturePrior, tmp_path_factory: pytest.TempPathFactory) -> MeshData:
    return result(MESH, prior, tmp_path_factory.mktemp("without"), rough_ball())


@pytest.mark.parametrize(
    ("name", "weight", "share"),
    [
        ("edge_lengths", 10.0, 0.6),
        ("normal_variance", 10.0, 0.8),
        ("symmetry", 100.0, 0.8),
        ("color_symmetry", 10.0, 0.8),
        ("albedo_sparsity", 1.0, 0.8),
        ("color_saturation", 1.0, 0.8),
    ],
)
def test_each_loss_is_lower_in_the_result_of_a_job_that_asks_for_it(
    name: str, weight: float, share: float, without: MeshData, prior: GaussianMixturePrior, tmp_path: Path
) -> None:
    with_it = result(asking(MESH, **{name: weight}), prior, tmp_path, rough_ball())
    assert measured(with_it, name) < share * measured(without, name)


def test_terms_are_weighted_by_their_schedules_and_only_those_that_weigh_something_are_there(
    prior: GaussianMixturePrior,
) -> None:
    losses = {"edge_lengths": Linear(0.0, 2.0), "albedo_sparsity": Linear(1.0, 0.0), "symmetry": 1.0, "color_saturation": 0.5}
    numbers = advance(begun(asking(MESH, **losses), prior, rough_ball()), prior, 6)
    assert {"albedo_sparsity", "symmetry", "color_saturation"} <= set(numbers[0]) and "edge_lengths" not in numbers[0]
    assert numbers[5]["edge_lengths"] > 0.0 and "normal_variance" not in numbers[5]
    ball = rough_ball()
    assert numbers[0]["color_saturation"] == pytest.approx(0.5 * measured(ball, "color_saturation"), rel=1e-5)
    assert numbers[0]["albedo_sparsity"] == pytest.approx(measured(ball, "albedo_sparsity"), rel=1e-5)


def test_without_weights_there_are_no_objectives(prior: GaussianMixturePrior) -> None:
    for stage in (MESH, TETRAHEDRA, GRID, FIELD):
        running = begun(stage, prior, rough_ball() if stage is MESH else None)
        assert not any(isinstance(each, ShapeObjective | ColorObjective) for each in running.objectives)


def test_an_artists_mesh_costs_nothing_before_it_is_moved(prior: GaussianMixturePrior) -> None:
    """Whose topology is kept: its uneven edges and its bends are meant."""
    losses = {"edge_lengths": 1.0, "normal_variance": 1.0}
    own = begun(asking(msgspec.structs.replace(MESH, remesh_every=0), **losses), prior, rough_ball())
    free = begun(asking(MESH, **losses), prior, rough_ball())
    kept, ideal = (advance(running, prior, 1)[0] for running in (own, free))
    assert kept["edge_lengths"] < 1e-10 and kept["normal_variance"] < 1e-10
    assert ideal["edge_lengths"] > 1e-3 and ideal["normal_variance"] > 1e-3


def test_seams_are_no_rims(prior: GaussianMixturePrior) -> None:
    """A cube whose sides share no vertex is measured as the cube that is welded."""
    welded = cube(3)
    corners = welded.faces.reshape(-1)
    apart = MeshData(welded.positions[corners], np.arange(len(corners), dtype=np.int32).reshape(-1, 3))
    stage = asking(MESH, edge_lengths=1.0, normal_variance=1.0)
    one, other = (advance(begun(stage, prior, mesh), prior, 1)[0] for mesh in (welded, apart))
    for name in ("edge_lengths", "normal_variance"):
        assert one[name] > 1e-3 and other[name] == pytest.approx(one[name], rel=1e-4)


@pytest.mark.parametrize("kind", ["texture", "tetrahedra"])
def test_textures_and_tetrahedra_have_the_same_losses(kind: str, prior: GaussianMixturePrior) -> None:
    losses = dict.fromkeys(
        ("edge_lengths", "normal_variance", "symmetry", "color_symmetry", "albedo_sparsity", "color_saturation"), 1.0
    )
    stage = asking(msgspec.structs.replace(MESH, texture_size=32) if kind == "texture" else TETRAHEDRA, **losses)
    running = begun(stage, prior, rough_ball() if kind == "texture" else None)
    numbers = advance(running, prior, 3)[-1]
    assert set(losses) <= set(numbers) and all(0.0 < numbers[name] < 10.0 for name in losses)


def test_what_cannot_be_had_is_said(prior: GaussianMixturePrior) -> None:
    for stage in (GRID, FIELD):
        for name in ("edge_lengths", "normal_variance", "symmetry", "color_symmetry", "albedo_sparsity"):
            with pytest.raises(InputError, match=f"{name}.*mesh or tetrahedra stage"):
                begun(asking(stage, **{name: Linear(0.0, 1.0)}), prior)
    with pytest.raises(InputError, match="shows no colors"):
        begun(asking(msgspec.structs.replace(GRID, shading="normals"), color_saturation=1.0), prior)


def test_volumes_are_held_to_gray_by_what_they_show(prior: GaussianMixturePrior) -> None:
    for stage in (GRID, FIELD):
        running = begun(asking(stage, color_saturation=1.0), prior)
        numbers = advance(running, prior, 4)
        assert 0.0 < numbers[-1]["color_saturation"] < 1.0


def test_what_does_not_move_has_no_losses(prior: GaussianMixturePrior) -> None:
    every = dict.fromkeys(
        ("edge_lengths", "normal_variance", "symmetry", "color_symmetry", "albedo_sparsity", "color_saturation"), 1.0
    )
    for learns, there in (
        ("material", {"color_symmetry", "albedo_sparsity", "color_saturation"}),
        ("geometry", {"edge_lengths", "normal_variance", "symmetry"}),
    ):
        stage = asking(msgspec.structs.replace(MESH, learns=learns), **every)
        numbers = advance(begun(stage, prior, rough_ball()), prior, 1)[0]
        assert set(every) & set(numbers) == there


def test_the_found_plane_is_that_of_the_start_and_stays(prior: GaussianMixturePrior) -> None:
    tilted = np.array([[0.8, 0.0, 0.6], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]])
    ball = icosphere(2)
    body = ball.positions * [0.6, 0.8, 1.0] + [0.0, 0.1, 0.0] + np.outer(ball.positions[:, 1] ** 2, [0.0, 0.0, 0.8])
    start = replace(ball, positions=(body @ tilted.T).astype(np.float32))
    stage = asking(MESH, symmetry=1.0, symmetry_plane="found")
    running = begun(stage, prior, start)
    first = advance(running, prior, 1)[0]
    found = running.state_dict()["objectives"][0]["plane"]
    assert abs(float(found @ torch.tensor(tilted[:, 0]).float())) > 0.9999
    assert first["symmetry"] < 1e-6
    advance(running, prior, 2)
    assert torch.equal(running.state_dict()["objectives"][0]["plane"], found)


@pytest.mark.parametrize("kind", ["remeshed", "texture"])
def test_resumed_is_bit_equal(kind: str, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    losses = {"edge_lengths": 1.0, "normal_variance": 1.0, "symmetry": 2.0, "color_symmetry": 1.0, "symmetry_plane": "found"}
    changes = {"remesh_every": 3, "target_vertices": 100} if kind == "remeshed" else {"texture_size": 32, "remesh_every": 0}
    stage = asking(msgspec.structs.replace(MESH, steps=7, **changes), **losses, albedo_sparsity=0.1, color_saturation=0.1)
    settings, control = job(stage), Control()
    for name in ("whole", "parted"):
        (tmp_path / name).mkdir()
    *_, whole = run_job(settings, rough_ball(), prior, tmp_path / "whole")
    for event in run_job(settings, rough_ball(), prior, tmp_path / "parted", control):
        if isinstance(event, StepDone) and event.step == 4:
            control.cancel()
    assert isinstance(event, CheckpointSaved) and event.step == 4
    *_, resumed = run_job(settings, rough_ball(), prior, tmp_path / "parted", resume=True)
    assert np.array_equal(whole.mesh.positions, resumed.mesh.positions)
    assert np.array_equal(whole.mesh.faces, resumed.mesh.faces) and np.array_equal(whole.mesh.colors, resumed.mesh.colors)
